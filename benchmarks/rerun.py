"""A re-run with 1 % of the products changed, against the full run before it: `python -m benchmarks.rerun`.

Runs the commands as a person does, in processes of their own, on a shop that it draws: every step's time includes
starting Python, reading the catalog and, where there is work, loading the model.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

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


def seconds(root: Path, command: str, more: Sequence[str]) -> float:
    """How long `afmrl command` takes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "afmrl_cli", command, str(root), "-q", *more], check=True, stdout=sys.stderr)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--commands", default="attributes,embed", help="comma-separated")
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
        for command in commands:
            times[command] = [seconds(root, command, wanted.more), seconds(root, command, wanted.more)]
        for row in rows[:: wanted.products // changed]:
            row[1] += ", new"
        write_catalog(root, rows)
        for command in commands:
            full, idle = times[command]
            again = seconds(root, command, wanted.more)
            totals = [totals[0] + full, totals[1] + again]
            print(f"{command:<12}{full:>10.1f} s{idle:>12.1f} s{again:>12.1f} s{again / full:>9.1%}")
        print(f"{'together':<12}{totals[0]:>10.1f} s{'':>14}{totals[1]:>12.1f} s{totals[1] / totals[0]:>9.1%}")


if __name__ == "__main__":
    main()
