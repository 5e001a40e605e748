"""A re-run with 1 % of the products changed, against the full run before it.

    python -m benchmarks.rerun [--products 1000] [--model nano] [--commands attributes,embed] [-- FLAGS]

Runs the commands on a shop that it draws, all in one process after first runs on a shop of two, so that starting
Python and importing torch (seconds, whatever the catalog's size) are not in the figures; reading the catalog and
loading the model are. Then another 1 % changes, and each command runs as a process of its own, as a user runs it; the
full run to compare it with is the one in this process and, added, what a process for the shop of two takes above the
same in this process. Time is processor time. `tiny` is the model of benchmarks/growth.py.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .figures import record
from .growth import MODELS, make_model

COLORS = ["navy", "red", "green", "black", "white"]


def make_shop(root: Path, products: int) -> list[list[str]]:
    """A catalog of plain drawings; returns its rows."""
    from PIL import Image, ImageDraw

    (root / "images").mkdir(parents=True)
    rows = []
    for i in range(products):
        image = Image.new("RGB", (160, 160), "white")
        draw = ImageDraw.Draw(image)
        draw.rectangle((40 + i % 7, 30, 120, 130 + i % 5), COLORS[i % len(COLORS)], "black")
        draw.text((5, 5), str(i), "black")
        image.save(root / "images" / f"{i}.jpg")
        rows.append([f"sku{i}", f"Blouse {i}", "A blouse with long sleeves", "Tops", f"images/{i}.jpg"])
    write_catalog(root, rows)
    return rows


def write_catalog(root: Path, rows: Sequence[Sequence[str]]) -> None:
    with (root / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "title", "description", "category", "image"), *rows])


def busy() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def seconds(root: Path, command: str, more: Sequence[str], apart: bool = False) -> float:
    """Processor time of `afmrl command`, here or as a process of its own."""
    from afmrl_cli.cli.app import app

    words = [command, str(root), "-q", *more]
    begin = busy()
    with contextlib.redirect_stdout(sys.stderr):
        if apart:
            subprocess.run([sys.executable, "-m", "afmrl_cli", *words], check=True, stdout=sys.stderr)
        elif app(words, standalone_mode=False):
            raise SystemExit(f"{command} failed")
    return busy() - begin


def change(root: Path, rows: Sequence[list[str]], word: str) -> None:
    """Write the catalog with every hundredth title changed."""
    write_catalog(
        root, [[row[0], f"{row[1]}, {word}", *row[2:]] if i % 100 == 0 else row for i, row in enumerate(rows)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--commands", default="attributes,embed", help="comma-separated")
    parser.add_argument("--model", choices=MODELS, default="nano")
    parser.add_argument("more", nargs="*", help="flags for every command, after --")
    wanted = parser.parse_args()
    commands = wanted.commands.split(",")
    with tempfile.TemporaryDirectory() as folder:
        more = list(wanted.more)
        if wanted.model == "tiny":
            make_model(tiny := Path(folder) / "tiny")
            more += [word for role in ("generator", "embedder") for word in ("--set", f"model.{role}={tiny}")]
        root, two = Path(folder) / "shop", Path(folder) / "two"
        rows, few = make_shop(root, wanted.products), make_shop(two, 2)
        starts: dict[str, float] = {}
        for command in commands:
            seconds(two, command, more)
        change(two, few, "here")
        for command in commands:
            starts[command] = -seconds(two, command, more)
        change(two, few, "apart")
        for command in commands:
            starts[command] += seconds(two, command, more, apart=True)
        full = {command: seconds(root, command, more) for command in commands}
        idle = {command: seconds(root, command, more) for command in commands}
        change(root, rows, "new")
        again = {command: seconds(root, command, more) for command in commands}
        change(root, rows, "newer")
        apart = {command: seconds(root, command, more, apart=True) for command in commands}
    show(full, idle, again, {name: full[name] + starts[name] for name in full}, apart)


def show(
    full: dict[str, float],
    idle: dict[str, float],
    again: dict[str, float],
    full_apart: dict[str, float],
    again_apart: dict[str, float],
) -> None:
    """The table; all in seconds by command."""
    heads = ["full run", "nothing new", "1 % changed", "ratio", "full process", "1 % changed", "ratio"]
    print(f"{'command':<12}", *(f"{head:>13}" for head in heads), "  (aim <= 2 %)")
    sides = [full, idle, again, full_apart, again_apart]
    for name in [*full, "together"]:
        a, b, c, d, e = (sum(side.values()) if name == "together" else side[name] for side in sides)
        times = [f"{each:11.1f} s" for each in (a, b, c, d, e)]
        print(f"{name:<12}", *times[:3], f"{c / a:>13.1%}", *times[3:], f"{e / d:>13.1%}")
        record(
            f"{name} with 1 % changed against all, processor s", c, a, a / c, aim=">= 50", start_s=d - a, process=d / e
        )


if __name__ == "__main__":
    main()
