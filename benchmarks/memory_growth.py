"""Memory of `embed` and `attributes` over a large catalog: it must not grow with the products that are done.

    python -m benchmarks.memory_growth [--products 20000] [--commands embed,attributes]

A tiny Qwen2-VL of random weights, photos of 40 x 40 pixels, each command in a process of its own; Linux. Prints what
each holds for itself (RssAnon: without files that are mapped, which the system takes back) at ten moments between the
first batches and the end, with the progress at each, and how much was added from the first to the last of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from .rerun import write_catalog

EVERY = 0.5


def make_shop(root: Path, products: int) -> None:
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for i in range(products):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / "images" / f"{i}.jpg")
        rows.append([f"sku{i}", f"Blouse {i}", "A blouse with long sleeves", "Tops", f"images/{i}.jpg"])
    write_catalog(root, rows)


def held(process: int) -> float:
    """MB of memory that the process has for itself; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def watch(root: Path, words: list[str]) -> list[tuple[float, float]]:
    """(seconds, MB) of a command from start to end."""
    began = time.monotonic()
    command = [sys.executable, "-m", "afmrl_cli", words[0], str(root), "-q", *words[1:]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    found = []
    while process.poll() is None:
        found.append((time.monotonic() - began, held(process.pid)))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"{words[0]} failed")
    return [each for each in found if each[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--commands", default="embed,attributes")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        from tests.tiny import make_tiny

        model, root = make_tiny("qwen2_vl", Path(place) / "tiny"), Path(place) / "shop"
        make_shop(root, wanted.products)
        sets = [f"model.embedder={model}", f"model.generator={model}", "model.max_pixels=3136"]
        sets += ["attributes.max_new_tokens=8", "embed.batch_size=64", "attributes.batch_size=64"]
        for name in wanted.commands.split(","):
            seen = watch(root, [name, *(word for pair in sets for word in ("--set", pair))])
            # The first fifth is imports, loading and the first batches; the last, the end's index and report.
            middle = seen[len(seen) // 5 : -max(1, len(seen) // 20)]
            shown = [middle[round(i * (len(middle) - 1) / 9)] for i in range(10)]
            print(f"{name}: {wanted.products:,} products in {seen[-1][0]:.0f} s; MB at ten moments:", end=" ")
            print(*(f"{mb:.0f}" for _, mb in shown), f"; {shown[-1][1] - shown[0][1]:+.0f} MB", flush=True)


if __name__ == "__main__":
    main()
