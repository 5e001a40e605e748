"""The peak memory that is estimated from settings and configurations against what each stage on the CPU really takes.

    python -m benchmarks.memory [--architectures qwen2_vl,...,qwen3_5] [--stages embed,...] [--set a.b=c ...]

A small model of random weights and a shop whose every text and photo is as large as the settings allow: `attributes`
writes two batches, `embed` all products, the trainings do their dry run's two steps. Each architecture is a process of
its own, which first does the same with a tiny model, so that imports are over; measured is how far a stage's peak
(VmHWM) lies above what the process held before. On the CPU, weights of a file are mapped, and rows of words that no
text holds are never read; here all are, as a GPU holds all of them. glibc returns freed pieces of 64 KiB and more at
once (MALLOC_MMAP_THRESHOLD_), as a GPU's caching allocator reuses them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import BUILT_IN

from .figures import record

ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
STAGES = ("attributes", "train-sft", "embed", "train-agcl", "train-rar", "train-rerank")
PRODUCTS, SIDE, HIDDEN, LAYERS = 32, 224, 384, 4
SETTINGS: dict[str, object] = {
    "model.precision": "fp32",
    "model.device": "cpu",
    "model.generator_images": 1,
    "model.embedder_images": 1,
    "model.max_pixels": SIDE * SIDE,
    "model.max_text_tokens": 96,
    "split.validation": 0.25,
    "split.test": 0.25,
    "attributes.max_new_tokens": 40,
    "attributes.batch_size": 16,
    "embed.batch_size": 16,
    "agcl.loss": "infonce",
    "agcl.batch_size": 8,
    "agcl.chunk_tokens": 1024,
    "agcl.activation_checkpointing": False,
    "sft.source": "columns",
    "sft.batch_size": 8,
    "sft.chunk_size": 4,
    "sft.activation_checkpointing": False,
    "rar.from_base": True,
    "rar.k": 3,
    "rar.prompts": 2,
    "rar.group": 8,
    "rar.activation_checkpointing": False,
    "rerank.batch_size": 4,
    "rerank.chunk_size": 2,
    "rerank.activation_checkpointing": False,
}


def make(folder: Path, architecture: str, hidden: int = HIDDEN, layers: int = LAYERS) -> Path:
    """A model of random weights with nano's tokenizer: heads of 64, a tower of `hidden` / 2."""
    from tests.tiny import tiny_config
    from transformers import AutoConfig, AutoModelForImageTextToText

    from afmrl_cli.models.presets import nano_folder

    nano, config = AutoConfig.from_pretrained(nano_folder()), tiny_config(architecture)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, name, getattr(nano, name))
    text, vision = config.get_text_config(), config.vision_config
    text.eos_token_id, text.pad_token_id = nano.text_config.eos_token_id, nano.text_config.pad_token_id
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = hidden, 4 * hidden, layers
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = hidden // 64, hidden // 128, 64
    text.vocab_size, text.max_position_embeddings, text.initializer_range = 20_000, 4096, 0.02
    text.layer_types, text.rope_parameters["mrope_section"] = ["full_attention"] * layers, [8, 12, 12]
    if architecture == "qwen3_5":  # all but every fourth, and the last one
        full = {*range(3, layers, 4), layers - 1}
        text.layer_types = ["full_attention" if i in full else "linear_attention" for i in range(layers)]
        text.linear_num_key_heads = text.linear_num_value_heads = hidden // 64
        text.linear_key_head_dim = text.linear_value_head_dim = 64
    width = hidden // 2
    vision.num_heads, vision.depth = width // 32, 4
    vision.hidden_size, vision.intermediate_size, vision.out_hidden_size = width, 4 * width, hidden
    if architecture == "qwen2_vl":
        vision.hidden_size, vision.embed_dim = hidden, width
    if architecture == "qwen2_5_vl":
        vision.fullatt_block_indexes = [3]
    shutil.copytree(nano_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        told = json.loads((folder / name).read_text())
        told.get("image_processor", told)["patch_size"] = vision.patch_size
        (folder / name).write_text(json.dumps(told))
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


def make_shop(root: Path, products: int = PRODUCTS, side: int = SIDE) -> None:
    """Pairs of listings with text of about 90 tokens, right answers of about 40, and a photo of `side` x `side`."""
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    colours = ("red", "navy", "green", "black")
    keys = ("color", "fit", "sleeve", "neckline", "material", "pattern", "closure", "style")
    lines = ["id,product_id,title,description,category,image," + ",".join(f"attr_{key}" for key in keys)]
    for i in range(products):
        noise = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{i}.png")
        words = " ".join(f"{colours[k % 4]} blouse {k} {i}" for k in range(12))
        values = ",".join(f"{colours[(i + k) % 4]} {colours[k % 4]}" for k in range(len(keys)))
        lines.append(f"s{i},p{i // 2},Blouse {i // 2},{words},Tops,images/{i}.png,{values}")
    (root / "catalog.csv").write_text("\n".join(lines) + "\n")


def settings_of(model: Path, changes: Sequence[str] = (), **more: object) -> Any:
    """SETTINGS for both roles with `model`, and `changes` (a.b=c)."""
    from afmrl_cli.sources import load_settings

    own = dict(change.split("=", 1) for change in changes)
    roles = {"model.generator": str(model), "model.embedder": str(model)}
    return load_settings(None, SETTINGS | roles | more | own, BUILT_IN)


def works(catalog: Path, settings: Any) -> dict[str, Callable[[], object]]:
    """The stages, as their commands do them."""
    from afmrl_cli.listener import Silent
    from afmrl_cli.rar.run import train_rar
    from afmrl_cli.rerank.run import train_rerank
    from afmrl_cli.retrieval.embed import embed_catalog
    from afmrl_cli.sft.run import train_sft
    from afmrl_cli.store.folder import CatalogFolder
    from afmrl_cli.training.run import train_agcl
    from afmrl_cli.workspace import Workspace

    work = Workspace(CatalogFolder(catalog), settings, Silent())
    return {
        "attributes": lambda: _ask(work.folder, settings, work.checkpoints),
        "train-sft": lambda: train_sft(work, dry_run=True),
        "embed": lambda: embed_catalog(work),
        "train-agcl": lambda: train_agcl(work, dry_run=True),
        "train-rar": lambda: train_rar(work, dry_run=True),
        "train-rerank": lambda: train_rerank(work, dry_run=True),
    }


def _ask(folder: Any, settings: Any, checkpoints: Any) -> None:
    from itertools import islice

    from afmrl_cli.attributes.open_requests import open_request
    from afmrl_cli.attributes.task import load_task
    from afmrl_cli.catalog.problems import Problems
    from afmrl_cli.catalog.read import read_products
    from afmrl_cli.models.backends import load_backend

    generator, task = load_backend(settings, checkpoints), load_task(settings.attributes, folder.root)
    problems = Problems()
    products = islice(read_products(folder, settings.catalog, problems), 2 * settings.attributes.batch_size)
    opened = (open_request(task, product, settings, problems) for product in products)
    generator.generate([request for request in opened if request is not None])


def status(name: str) -> int:
    """VmRSS (now) or VmHWM (the most) of this process in bytes."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024


def measured(catalog: Path, settings: Any, stages: Sequence[str]) -> dict[str, int]:
    """Bytes at the peak of each stage above those before it, every weight read once."""
    from afmrl_cli.models import base

    load = base.load_base

    def load_all(*how: Any) -> Any:
        model = load(*how)
        for parameter in model.parameters():
            parameter.detach().view(torch.uint8).max()
        return model

    setattr(base, "load_base", load_all)  # noqa: B010
    found: dict[str, int] = {}
    for stage in stages:
        shutil.rmtree(catalog.parent / ".afmrl", ignore_errors=True)
        gc.collect()
        ctypes.CDLL("").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before = status("VmRSS")
        works(catalog, settings)[stage]()
        found[stage] = status("VmHWM") - before
    setattr(base, "load_base", load)  # noqa: B010
    return found


def compare(
    place: Path, architecture: str, stages: Sequence[str], changes: Sequence[str], hidden: int, layers: int
) -> dict[str, tuple[int, int]]:
    """(estimated, measured) bytes of each stage, in this process."""
    from afmrl_cli.training.memory import estimate_stages

    torch.set_num_threads(1)
    make_shop(place / "shop")
    tiny = make(place / "tiny", architecture, 128, 1)
    measured(place / "shop" / "catalog.csv", settings_of(tiny), stages)
    settings = settings_of(make(place / "model", architecture, hidden, layers), changes)
    estimated: dict[str, int] = {each.stage: each.peak_bytes for each in estimate_stages(settings)}
    gc.collect()
    real = measured(place / "shop" / "catalog.csv", settings, stages)
    return {stage: (estimated[stage], real[stage]) for stage in stages}


def apart(
    architecture: str, stages: Sequence[str], changes: Sequence[str] = (), hidden: int = HIDDEN, layers: int = LAYERS
) -> dict[str, tuple[int, int]]:
    """`compare` in a process of its own."""
    words = ["--one", architecture, "--stages", ",".join(stages), "--hidden", str(hidden), "--layers", str(layers)]
    words += [word for each in changes for word in ("--set", each)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return {stage: tuple(pair) for stage, pair in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="a multiple of 128")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--set", action="append", default=[], help="a setting other than here, as afmrl's --set")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    stages = given.stages.split(",")
    if given.one:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(compare(Path(place), given.one, stages, given.set, given.hidden, given.layers)))
        return
    for architecture in given.architectures.split(","):
        for stage, (ours, real) in apart(architecture, stages, given.set, given.hidden, given.layers).items():
            told = f"estimated {ours / 2**20:5.0f} MiB, measured {real / 2**20:5.0f} MiB: {ours / real:.2f}"
            print(f"{architecture:<12} {stage:<12} {told}", flush=True)
            what = f"memory of {stage}, {architecture}, estimated against measured, MiB"
            record(what, ours / 2**20, real / 2**20, ours / real, aim="0.8 to 1.25")


if __name__ == "__main__":
    main()
