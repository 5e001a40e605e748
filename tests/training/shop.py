"""A shop small enough to train on in a test: products in families of near-identical ones, with listings of variants."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from tests.tiny import photo

COLOURS = ["red", "blue", "green", "black", "white", "grey", "pink", "brown"]
SHAPES = ["v-neck", "round", "collar", "hood", "boat"]


def write_shop(root: Path, products: int = 60, *, listings_each: int = 1, photos: int = 2, seed: int = 0) -> Path:
    """catalog.csv with attr_* columns, and images/ of 56 x 56 noise, two alike for one product."""
    rng = random.Random(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for i in range(products):
        colour, shape = COLOURS[i % len(COLOURS)], SHAPES[i // len(COLOURS) % len(SHAPES)]
        for j in range(listings_each):
            names = []
            for k in range(photos):
                names.append(f"images/{i}-{j}-{k}.png")
                photo(1000 * i + rng.randrange(3)).save(root / names[-1])
            row = {
                "id": f"S{i}-{j}",
                "title": f"{colour} {shape} shirt number {i}" + (" again" if j else ""),
                "category": "shirts" if i % 2 else "tops",
                "image": "|".join(names),
                "product_id": f"P{i}" if listings_each > 1 else "",
                "attr_colour": colour,
                "attr_neckline": shape,
                "attr_series": f"n{i // 4}",
            }
            rows.append(row)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root
