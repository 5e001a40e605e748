"""How time and memory of the commands grow with the catalog: a log-log slope of each.

    python -m benchmarks.growth [--sizes 1000,10000] [--commands check,embed,search,dedupe,train-agcl,attributes]

Listings with a photo of 32 x 32 pixels, every other one the same product again, read by the nano model (a photo is four
tokens; answers of eight tokens at most). Each command is a process of its own; from its processor time that of a
catalog of ten products is taken off (start, imports, loading), which else would hide the growth. train-agcl is the time
of a step as --dry-run tells it. Memory is the peak of the process, start included. A slope of 1 is in step with the
catalog; of two sizes it is just their ratio.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
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
COMMANDS = ("check", "embed", "search", "dedupe", "train-agcl", "attributes")
WORDS = "soft cotton blouse navy red shirt wool summer winter linen classic fit long sleeve pocket collar".split()  # noqa: SIM905
SETTINGS = """[model]
device = "cpu"
max_pixels = 3136
[attributes]
max_new_tokens = 8
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


def make_shop(root: Path, products: int) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "afmrl.toml").write_text(SETTINGS)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product_id", "title", "description", "category", "image", "attr_color", "attr_fit"])
        for i in range(products):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "images" / f"{i}.jpg")
            words = rng.choice(WORDS, 12)
            row = [f"s{i}", f"p{i // 2}", f"{' '.join(words[:4])} {i // 2}", " ".join(words[4:]), f"Tops/{i % 20}"]
            writer.writerow([*row, f"images/{i}.jpg", words[0], words[1]])


def taken(root: Path, command: str) -> Taken:
    words = {"search": ["search", "--like", "s3"], "train-agcl": ["train-agcl", "--dry-run", "--json"]}
    process = subprocess.Popen(
        [sys.executable, "-m", "afmrl_cli", *words.get(command, [command]), "--quiet"],
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
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    commands = given.commands.split(",")
    found: dict[str, list[Taken]] = {command: [] for command in commands}
    for size in (SMALL, *sizes):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name) / "shop"
            make_shop(root, size)
            for command in commands:
                if command == "train-agcl" and size == SMALL:
                    continue  # a batch needs more products; a step has no start to take off
                found[command].append(taken(root, command))
                print(f"{size:>8,} {command:<12} {found[command][-1].seconds:8.2f} s", flush=True)
    for command, each in found.items():
        tell(command, sizes, each)


def tell(command: str, sizes: Sequence[int], each: Sequence[Taken]) -> None:
    start = 0.0 if command == "train-agcl" else each[0].seconds
    rows = each[-len(sizes) :]
    grown = [max(row.seconds - start, 0.01) for row in rows]  # what processor time is told in
    slope = slope_of(sizes, grown)
    memory = slope_of(sizes, [row.peak for row in rows])
    figures = ", ".join(f"{size:,}: {seconds:.2f} s" for size, seconds in zip(sizes, grown, strict=True))
    peaks = ", ".join(f"{row.peak / 2**20:,.0f}" for row in rows)
    print(f"{command:<12} slope {slope:5.2f} ({figures}; start {start:.2f} s)   memory {memory:5.2f} ({peaks} MiB)")
    aim = "< 1" if command == "search" else "<= 0" if command == "train-agcl" else "<= 1.05"
    peak = rows[-1].peak / 2**20
    record(f"growth of {command}, log-log slope of time", slope, aim=aim, memory_slope=memory, peak_mib=peak)


def slope_of(sizes: Sequence[int], values: Sequence[float]) -> float:
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


if __name__ == "__main__":
    main()
