"""A re-run with 1 % of the products changed, against the full run before it: `python -m benchmarks.rerun`.

Runs the commands on a shop that it draws, all in one process after a first run on a shop of two, so that starting
Python and importing torch (seconds, whatever the catalog's size) are not in the figures; `--processes` puts them in.
Reading the catalog and loading the model are in either way. Time is processor time.
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


def seconds(root: Path, command: str, more: Sequence[str], processes: bool) -> float:
    """Processor time of `afmrl command`."""
    from afmrl_cli.cli.app import app

    words = [command, str(root), "-q", *more]
    begin = busy()
    with contextlib.redirect_stdout(sys.stderr):
        if processes:
            subprocess.run([sys.executable, "-m", "afmrl_cli", *words], check=True, stdout=sys.stderr)
        elif app(words, standalone_mode=False):
            raise SystemExit(f"{command} failed")
    return busy() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--commands", default="attributes,embed", help="comma-separated")
    parser.add_argument("--processes", action="store_true", help="start a process for every command")
    parser.add_argument("more", nargs="*", help="flags for every command, after --")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        rows = make_shop(root, wanted.products)
        changed = max(1, wanted.products // 100)
        print(f"{'command':<12}{'full run':>12}{'nothing new':>14}{'1 % changed':>14}{'ratio':>9}   (aim <= 2 %)")
        totals = [0.0, 0.0]
        times: dict[str, list[float]] = {}
        commands = wanted.commands.split(",")
        make_shop(root.with_name("two"), 2)
        for command in commands:
            seconds(root.with_name("two"), command, wanted.more, wanted.processes)
        for command in commands:
            times[command] = [
                seconds(root, command, wanted.more, wanted.processes),
                seconds(root, command, wanted.more, wanted.processes),
            ]
        for row in rows[:: wanted.products // changed]:
            row[1] += ", new"
        write_catalog(root, rows)
        for command in commands:
            full, idle = times[command]
            again = seconds(root, command, wanted.more, wanted.processes)
            totals = [totals[0] + full, totals[1] + again]
            record(f"{command} with 1 % changed against all, processor s", again, full, full / again, aim=">= 50")
            print(f"{command:<12}{full:>10.1f} s{idle:>12.1f} s{again:>12.1f} s{again / full:>9.1%}")
        record("rerun, these together, processor s", totals[1], totals[0], totals[0] / totals[1], aim=">= 50")
        print(f"{'together':<12}{totals[0]:>10.1f} s{'':>14}{totals[1]:>12.1f} s{totals[1] / totals[0]:>9.1%}")


if __name__ == "__main__":
    main()
