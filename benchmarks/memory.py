"""The memory that is estimated from a configuration against what a process on the CPU really takes.

    python -m benchmarks.memory [--hidden 384] [--layers 6] [--rows 6] [--length 512]

A Qwen2-VL of that size with random weights reads rows x length tokens without a gradient (embed), with one through its
adapter (train-agcl, with and without activation checkpointing), and with the answers' log-probabilities behind it
(train-rar). Each runs as a process of its own, which does the same with a tiny model first, so that imports are over;
measured is how far its peak lies above what it had then, estimated are weights, adapter and activations. glibc returns
freed pieces of a MiB and more at once (MALLOC_MMAP_THRESHOLD_), as a GPU's caching allocator reuses them; --as-it-is
leaves glibc its habit of keeping what it was given.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .figures import record

KINDS: dict[str, dict[str, Any]] = {
    "embed": {},
    "train-agcl": {"rank": 16, "dropout": 0.1},
    "train-agcl, checkpointing": {"rank": 16, "dropout": 0.1, "checkpointing": True},
    "train-rar": {"rank": 16, "answers": 256},
}


def make(folder: Path, hidden: int, layers: int) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    from afmrl_cli.nano.model import nano_folder

    config = AutoConfig.from_pretrained(nano_folder())
    shape = config.get_text_config()
    shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers = hidden, 4 * hidden, layers
    shape.num_attention_heads, shape.num_key_value_heads = hidden // 64, hidden // 128
    shape.vocab_size, shape.layer_types = 20_000, ["full_attention"] * layers
    shape.rope_parameters["mrope_section"] = [8, 12, 12]
    config.vision_config.hidden_size = hidden
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)


def status(name: str) -> int:
    """VmRSS (now) or VmHWM (the most) of this process in bytes. getrusage's maximum outlives exec: a child of a large
    process would begin with its parent's.
    """
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024


def measured(folder: Path, kind: str, rows: int, length: int) -> int:
    """Bytes of this process above those before the model was there."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), 128, 1)
        work(Path(name), kind, 2, 32)
    gc.collect()
    before = status("VmRSS")
    work(folder, kind, rows, length)
    return status("VmHWM") - before


def work(folder: Path, kind: str, rows: int, length: int) -> None:
    """Two steps of `kind`."""
    from peft import LoraConfig, get_peft_model

    from afmrl_cli.models.base import load_base
    from afmrl_cli.models.presets import Base
    from afmrl_cli.training.adapter import TARGETS

    how = KINDS[kind]
    model = load_base(Base("wide", "", folder, 0, 0), "fp32", "cpu")
    if rank := how.get("rank", 0):
        lora = LoraConfig(r=rank, lora_dropout=how.get("dropout", 0.0), target_modules=TARGETS)
        model = get_peft_model(model, lora).base_model.model.train()
        if how.get("checkpointing"):
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained) if rank else None
    ids = torch.randint(10, 1000, (rows, length))
    # Rows of several lengths, as they are: transformers then makes a mask.
    mask = torch.ones_like(ids)
    mask[0, : length // 16] = 0
    for _ in range(2):
        with torch.set_grad_enabled(bool(rank)):
            hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            if answers := how.get("answers", 0):
                logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[:answers])
                (logits[:, 0] - torch.logsumexp(logits, dim=-1)).sum().backward()
            elif rank:
                hidden[:, -1].sum().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()


def apart(words: Sequence[str], as_it_is: bool = False) -> int:
    """`measured` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    environment = dict(os.environ) if as_it_is else {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(json.loads(done.stdout.splitlines()[-1]))


def estimated(folder: Path, kind: str, rows: int, length: int) -> int:
    from transformers import AutoConfig

    from afmrl_cli.sources import load_settings
    from afmrl_cli.training.activations import activations
    from afmrl_cli.training.memory import load_model

    flags = {"model.embedder": str(folder), "model.precision": "fp32", "model.device": "cpu"}
    model = load_model(load_settings(None, flags, {}), "embedder")
    assert model is not None
    config = AutoConfig.from_pretrained(folder)
    adapter = model.adapted * KINDS[kind].get("rank", 0) * 12
    return model.weights + int(adapter) + activations(config, torch.float32, rows, length, **KINDS[kind])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of 128")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--kinds", default=";".join(KINDS), help="separated by semicolons")
    parser.add_argument("--as-it-is", action="store_true", help="leave glibc's settings alone")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(Path(given.one[0]), given.one[1], given.rows, given.length)))
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), given.hidden, given.layers)
        for kind in given.kinds.split(";"):
            words = ["--one", name, kind, "--rows", str(given.rows), "--length", str(given.length)]
            real = apart(words, given.as_it_is)
            ours = estimated(Path(name), kind, given.rows, given.length)
            print(f"{kind:<28} estimated {ours / 2**20:7.0f} MiB, measured {real / 2**20:7.0f} MiB: {ours / real:.2f}")
            record(f"memory of {kind}, estimated against measured, MiB", ours / 2**20, real / 2**20, ours / real)


if __name__ == "__main__":
    main()
