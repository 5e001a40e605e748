"""A shop of near-duplicates, some of them listed twice in other words: text only, or with photos."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

COLOURS = ("navy", "black", "white", "red")
KINDS = ("shirt", "lamp", "kettle", "speaker", "jacket")
BRANDS = ("Alfa", "Bravo", "Corda", "Delmar", "Estrel", "Fjord")
NOISE = ("new", "original", "boxed", "free shipping", "sale")
Row = dict[str, str]


def rows(products: int = 160, known: float = 1.0) -> list[Row]:
    """Styles of four colours; three of four products twice, the second time with other words and most of the code."""
    rng = random.Random(5)
    made: list[Row] = []
    for product in range(products):
        style = random.Random(product // 4)
        brand, kind = style.choice(BRANDS), style.choice(KINDS)
        code = f"{style.choice('xyzqw')}{style.randrange(100, 999)}-{style.randrange(10, 99)}"
        colour = COLOURS[product % 4]
        series = f"series{style.randrange(40)}"
        identity = f"p{product}" if rng.random() < known else ""
        titles = [f"{brand} {kind} {series} {colour} {code}"]
        if product % 4 != 3:
            titles.append(f"{rng.choice(NOISE)} {colour} {kind} {brand} {code.replace('-', '')}")
        for title in titles:
            price = f"{style.randrange(20, 90) + rng.choice([0, 0, 1])}.50"
            made.append({"id": f"s{len(made)}", "product_id": identity, "title": title, "brand": brand, "price": price})
    return made


def write(root: Path, listed: Sequence[Row], name: str = "catalog.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in listed for key in row))
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(listed)
    return root / name


def picture(path: Path, seed: int, side: int = 96, tint: tuple[int, int, int] = (255, 255, 255)) -> str:
    """A patchwork of its own, in a colour; saved where `path` says. Returns the name that a catalog gives it."""
    rng = random.Random(seed)
    small = Image.new("RGB", (6, 6))
    for x in range(6):
        for y in range(6):
            light = rng.random()
            small.putpixel((x, y), tuple(int(light * part) for part in tint))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    return f"{path.parent.name}/{path.name}"
