"""One training step against sentence-transformers' CachedMultipleNegativesRankingLoss: time and peak memory.

    python -m benchmarks.agcl_step ours|theirs|both [--batch 64] [--chunk 16]

The same tiny Qwen2-VL base, texts of mixed lengths, batch and tokens in the largest chunk, plain InfoNCE, fp32 on the
CPU; all weights are trained in both. Ours cuts chunks by tokens as `train-agcl` does; theirs are so many rows in the
order of the batch, padded to the batch's longest. "both" runs each in a process of its own, in turn, three times, and
prints the medians, and the share of all tokens that are padding.
Time is processor time of the one thread that works, so that other work on the machine does not count.
"memory": the peak of ours at batch 1024 over that at batch 64 with the same chunk.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afmrl_cli.training.agcl import contrastive_loss
from afmrl_cli.training.gradcache import cached_gradients, token_chunks

from .figures import record

TAU, STEPS, HIDDEN, LAYERS = 0.05, 4, 128, 4


def texts(number: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [
        "red",
        "blue",
        "green",
        "shirt",
        "denim",
        "jacket",
        "cotton",
        "silk",
        "v",
        "neck",
        "round",
        "long",
        "short",
        "sleeves",
        "pattern",
        "striped",
    ]
    return [" ".join(rng.choices(words, k=rng.randrange(4, 40))) for _ in range(number)]


def make_folder(place: Path) -> Path:
    """A tiny model as sentence-transformers opens it: the folder that `checkpoints export` writes, less the adapter."""
    from tests.tiny import make_tiny
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from afmrl_cli.models import export

    make_tiny("qwen2_vl", place / "base", hidden=HIDDEN, layers=LAYERS)
    out = place / "out"
    AutoModelForImageTextToText.from_pretrained(place / "base").model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(place / "base", padding_side="left")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(out)
    export.open_as_it_is(out / "tokenizer_config.json")
    export.write_modules(out, HIDDEN, {"query": "", "document": ""})
    return out


def theirs(model: Any, batch: int, chunk: int, seed: int) -> float:
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(model, scale=1 / TAU, mini_batch_size=chunk)
    sides = [model.preprocess(texts(batch, 2 * seed + side)) for side in (0, 1)]
    loss(sides, torch.arange(batch)).backward()
    masks: list[torch.Tensor] = [side["attention_mask"] for side in sides]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def ours(model: Any, batch: int, chunk: int, seed: int) -> float:
    both = texts(batch, 2 * seed) + texts(batch, 2 * seed + 1)
    lengths = [len(ids) for ids in model.tokenizer(both)["input_ids"]]
    chunks = token_chunks(lengths, chunk * max(lengths))

    def loss_of(vectors: torch.Tensor) -> tuple[None, torch.Tensor]:
        leaf = vectors.requires_grad_()
        value = contrastive_loss(leaf[:batch], leaf[batch:], temperature=TAU).value
        return None, torch.autograd.grad(value, leaf)[0]

    def prepare(rows: Sequence[int]) -> Any:
        return model.preprocess([both[row] for row in rows])

    def forward(features: Any) -> torch.Tensor:
        vectors: torch.Tensor = model(features)["sentence_embedding"]
        return vectors

    cached_gradients(chunks, prepare, forward, loss_of)
    return 1 - sum(lengths) / sum(len(rows) * max(lengths[row] for row in rows) for rows in chunks)


def measure(who: str, batch: int, chunk: int) -> dict[str, float]:
    """Processor seconds of a step and peak memory above that of the loaded model, in this process."""
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        model = SentenceTransformer(str(make_folder(Path(place))), device="cpu").train()
    step = ours if who == "ours" else theirs
    step(model, 4, 4, 0)  # gradients and buffers are there
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, padding = [], []
    for seed in range(1, STEPS + 1):
        begin = time.process_time()
        padding.append(step(model, batch, chunk, seed))
        model.zero_grad(set_to_none=False)
        times.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": statistics.median(times),
        "padding": statistics.median(padding),
        "peak_mb": peak / 1024,
        "added_mb": (peak - before) / 1024,
    }


def apart(who: str, batch: int, chunk: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.agcl_step", who, "--batch", str(batch), "--chunk", str(chunk)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, float] = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=("ours", "theirs", "both", "memory"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", action="store_true", help="both in this process: its memory means nothing")
    wanted = parser.parse_args()
    if wanted.who in ("ours", "theirs"):
        print(json.dumps(measure(wanted.who, wanted.batch, wanted.chunk)))
        return
    if wanted.who == "memory":
        small, large = (apart("ours", batch, wanted.chunk)["peak_mb"] for batch in (64, 1024))
        print(f"peak memory at batch 1024 {large:.0f} MB, at batch 64 {small:.0f} MB: {large / small:.3f}")
        return
    run = measure if wanted.together else apart
    runs = [
        (run("ours", wanted.batch, wanted.chunk), run("theirs", wanted.batch, wanted.chunk))
        for _ in range(wanted.rounds)
    ]
    told = (
        ("processor seconds a step", "seconds"),
        ("padding, share of tokens", "padding"),
        ("peak MB", "peak_mb"),
        ("MB above the loaded model", "added_mb"),
    )
    for name, key in told:
        mine, its = (statistics.median(pair[i][key] for pair in runs) for i in (0, 1))
        ratio = f"{mine / its:.2f}" if its else "-"
        print(f"{name}: ours {mine:.3f}, CachedMultipleNegativesRankingLoss {its:.3f}, ratio {ratio}")
    own, other = ({key: statistics.median(pair[i][key] for pair in runs) for _, key in told} for i in (0, 1))
    record(
        f"AGCL step of {wanted.batch} against sentence-transformers' cached loss, processor s",
        own["seconds"],
        other["seconds"],
        other["seconds"] / own["seconds"],
        spread=[pair[1]["seconds"] / pair[0]["seconds"] for pair in runs],
        aim=">= 1.0",
        padding=own["padding"],
        added_mb=own["added_mb"],
        their_added_mb=other["added_mb"],
    )


if __name__ == "__main__":
    main()
