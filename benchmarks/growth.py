"""How time and memory of the commands grow with the catalog: a log-log slope of each.

    python -m benchmarks.growth [--sizes 1000,10000] [--model tiny] [--commands check,embed,search,...]

Listings with a photo of their own of 32 x 32 pixels (a photo is four tokens), every other one the same product again.
`tiny` is nano's architecture with one layer of 64 and random weights, since what may grow is our own loop, not the
model; `nano` is the built-in model. Answers have eight tokens at most, batches 256 products. Each command is a process
of its own; from its processor time that of a catalog of ten products is taken off (start, imports, loading), which else
would hide the growth. train-agcl is a step as --dry-run tells it, by the clock; agcl-plan is all that the same command
does, of which a step is a small part. Memory is the peak of the process, start included, and what each product beyond
the first size adds to it. A slope of 1 is in step with the catalog; of two sizes it is just their ratio.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .figures import record

SMALL = 10
COMMANDS = ("check", "embed", "search", "dedupe", "train-agcl", "agcl-plan", "attributes")
MODELS = ("tiny", "nano")
DRY_RUN = ["train-agcl", "--dry-run", "--json"]
WORDS = "soft cotton blouse navy red shirt wool summer winter linen classic fit long sleeve pocket collar".split()  # noqa: SIM905
SETTINGS = """[model]
device = "cpu"
max_pixels = 3136
{model}[attributes]
max_new_tokens = 8
batch_size = 256
[embed]
batch_size = 256
[agcl]
batch_size = 32
attributes = "given"
batches = "random"
[split]
validation = 0.2
test = 0.2
"""


@dataclass(frozen=True)
class Taken:
    """Processor seconds, and the peak in bytes."""

    seconds: float
    peak: int


def make_model(folder: Path) -> None:
    """A model that takes as little time as one can, in `folder`."""
    import torch
    from nano_training.model import build_config, load_nano_processor, save_nano
    from transformers import Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    processor = load_nano_processor()
    config = build_config(processor.tokenizer, width=64, layers=1, depth=1)
    save_nano(Qwen2VLForConditionalGeneration(config), processor, folder)


def make_shop(root: Path, products: int, model: str) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "afmrl.toml").write_text(SETTINGS.format(model=model))
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product_id", "title", "description", "category", "image", "attr_color", "attr_fit"])
        for i in range(products):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "images" / f"{i}.jpg")
            words = rng.choice(WORDS, 12)
            row = [f"s{i}", f"p{i // 2}", f"{' '.join(words[:4])} {i // 2}", " ".join(words[4:]), f"Tops/{i % 20}"]
            writer.writerow([*row, f"images/{i}.jpg", words[0], words[1]])


def settings_of(model: Path) -> str:
    """The lines of `[model]` that name it."""
    return "".join(f"{role} = {json.dumps(str(model))}\n" for role in ("generator", "embedder"))


def taken(root: Path, command: str, more: Sequence[str] = ()) -> Taken:
    words = {"search": ["search", "--like", "s3"], "train-agcl": DRY_RUN, "agcl-plan": DRY_RUN}
    process = subprocess.Popen(
        [sys.executable, "-m", "afmrl_cli", *words.get(command, [command]), "--quiet", *more],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, errors = process.stdout, process.stderr
    assert out is not None and errors is not None
    said, wrong = out.read(), errors.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: {wrong[-2000:]}")
    seconds = usage.ru_utime + usage.ru_stime
    if command == "train-agcl":
        seconds = json.loads(said)["estimate"]["step_seconds"]
    return Taken(seconds, usage.ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make_model(given.make)
        return
    sizes = [int(size) for size in given.sizes.split(",")]
    commands = given.commands.split(",")
    found: dict[str, list[Taken]] = {command: [] for command in commands}
    with tempfile.TemporaryDirectory() as name:
        model, lines = Path(name) / "tiny", ""
        if given.model == "tiny":
            # Apart: what a process takes at its peak begins with what the one that starts it has.
            subprocess.run([sys.executable, "-m", "benchmarks.growth", "--make", model], check=True)
            lines = settings_of(model)
        for size in (SMALL, SMALL, *sizes):  # the shorter one counts as the start, which varies most
            root = Path(name) / f"shop-{size}"
            make_shop(root, size, lines)
            for command in commands:
                if command == "train-agcl" and size == SMALL:
                    continue  # a batch needs more products; a step has no start to take off
                few = command == "agcl-plan" and size == SMALL
                found[command].append(taken(root, command, ["--set", "agcl.batch_size=2"] if few else []))
                row = found[command][-1]
                print(f"{size:>8,} {command:<12} {row.seconds:8.2f} s {row.peak / 2**20:8.0f} MiB", flush=True)
            shutil.rmtree(root)
    for command, each in found.items():
        tell(command, sizes, each)


def tell(command: str, sizes: Sequence[int], each: Sequence[Taken]) -> None:
    rows = each[-len(sizes) :]
    start = min((row.seconds for row in each[: -len(sizes)]), default=0.0)
    grown = [max(row.seconds - start, 0.01) for row in rows]  # what processor time is told in
    slope = slope_of(sizes, grown)
    memory = slope_of(sizes, [row.peak for row in rows])
    held = (rows[-1].peak - rows[0].peak) / max(1, sizes[-1] - sizes[0]) / 1000
    figures = ", ".join(f"{size:,}: {seconds:.2f} s" for size, seconds in zip(sizes, grown, strict=True))
    peaks = ", ".join(f"{row.peak / 2**20:,.0f}" for row in rows)
    print(f"{command:<12} slope {slope:5.2f} ({figures}; start {start:.2f} s)   ", end="")
    print(f"memory {memory:5.2f} ({peaks} MiB; {held:.2f} kB a product)")
    aim = "< 1" if command == "search" else "<= 0" if command == "train-agcl" else "<= 1.05"
    peak = rows[-1].peak / 2**20
    name = f"growth of {command}, log-log slope of time"
    record(name, slope, aim=aim, memory_slope=memory, peak_mib=peak, kb_a_product=held)


def slope_of(sizes: Sequence[int], values: Sequence[float]) -> float:
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


if __name__ == "__main__":
    main()
