"""Sizes and colours: what is read of a listing, and when two conflict."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.catalog.product import Product
from afmrl_cli.dedupe.variants import Facts, conflicts_of, facts_of


@pytest.mark.parametrize(
    ("title", "facts"),
    [
        ("Samsung Galaxy S21 128 GB", {"gb=128"}),
        ("SSD 1TB", {"gb=1000"}),
        ("Corsair 16GB (2x8GB) DDR4", {"gb=16", "gb=8"}),
        ("Cola 0,5 l", {"ml=500"}),
        ("Honig 500g", {"g=500"}),
        ('Dell 15.6" Laptop', {"inch=15.6"}),
        ("Levi's 501 W32 L34", {"w=32", "l=34"}),
        ("Puma Suede red UK 8.5", {"uk=8.5", "colour=red"}),
        ("Chaz Kangeroo Hoodie-XS-Black", {"size=xs", "colour=black"}),
        ("Bruno Tank, M", {"size=m"}),
        ("Bluse Grösse 42 schwarz", {"size=42", "colour=black"}),
        ("T-Shirt 2XL", {"size=xxl"}),
        ("Air Force 1", set()),
        ("Le Parfum or la vie en rose", set()),
        ("Levi's jeans", set()),
        ("", set()),
    ],
)
def test_facts_of_a_title(title: str, facts: set[str]) -> None:
    assert facts_of(Product("a", title=title), {}) == facts


def test_columns_count_before_the_title_and_the_generator() -> None:
    given = Product("a", title="Blue shirt S", given={"Farbe": "Schwarz", "Größe": "M|L"})
    assert facts_of(given, {"color": "red", "size": "xl"}) == {"colour=black", "size=m", "size=l"}
    assert facts_of(Product("a", title="Shirt"), {"color": "navy blue"}) == {"colour=navy", "colour=blue"}
    assert facts_of(Product("a", given={"color": "Ginger Sparkle"}), {}) == {"colour=ginger sparkle"}


@pytest.mark.parametrize(
    ("one", "other", "colour", "size"),
    [
        ("phone 128GB black", "phone 256 GB noir", 0, 0.5),
        ("shirt white", "shirt schwarz", 1, 0),
        ("shirt white and black", "shirt black", 0, 0),
        ("jeans W32 L32", "jeans W34 L34", 0, 0.75),
        ("jeans W32 L32 blue", "jeans", 0, 0),
        ("disk 1 TB", "disk 1000gb", 0, 0),
        ("shoe uk 8", "shoe eu 42", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_conflicts(one: str, other: str, colour: float, size: float) -> None:
    rows = [facts_of(Product(title, title=title), {}) for title in ("filler red xl", one, other)]
    found = Facts(rows).conflicts(np.array([1, 2]), np.array([2, 1]))
    assert [list(part) for part in found] == [[colour, colour], [size, size]]
    assert bool(conflicts_of(rows[1], rows[2])) == bool(colour or size)


def test_no_facts_at_all() -> None:
    found = Facts([frozenset(), frozenset()]).conflicts(np.array([0]), np.array([1]))
    assert [list(part) for part in found] == [[0], [0]]
    assert conflicts_of({"gb=8", "colour=red"}, {"gb=16", "colour=red"}) == {"gb": ("8", "16")}
