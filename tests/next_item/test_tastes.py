"""What a history shares above chance, computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from afmrl_cli.next_item.gallery import Gallery, GalleryListing, Value
from afmrl_cli.next_item.tastes import LEAST, above_chance, shared_by, tastes_in_words, tastes_of


def gallery(*values: str) -> Gallery:
    """Listings whose values are written "color: navy, material: linen"."""
    listings = []
    for number, text in enumerate(values):
        pairs: list[Value] = [
            (key, value) for key, _, value in (each.partition(": ") for each in text.split(", ") if each)
        ]
        listings.append(GalleryListing(f"P{number}", "", "", "", "", (Path("x"),), f"G{number}", tuple(pairs)))
    return Gallery(listings, "given", {value: value[1] for each in listings for value in each.values})


NAVY = gallery(
    "color: navy, material: linen",
    "color: navy, material: wool",
    "color: navy, material: linen",
    "color: red, material: linen",
    *["color: green, material: wool"] * 16,
)


def test_a_value_counts_by_its_likelihood_against_chance() -> None:
    assert above_chance(3, 4, 0.2) == pytest.approx(3 * math.log(3 / 0.8) + math.log(1 / 3.2))
    assert above_chance(2, 2, 0.5) == pytest.approx(2 * math.log(2)) and 2 * math.log(2) < LEAST
    assert above_chance(1, 5, 0.2) == 0 == above_chance(0, 5, 0.2)


def test_tastes_are_what_the_history_has_more_often_than_the_catalog() -> None:
    tastes = tastes_of(NAVY, [0, 1, 2, 2, 3])

    assert [(taste.value, taste.count, taste.listings, taste.share) for taste in tastes] == [
        (("color", "navy"), 3, 4, 0.15),
        (("material", "linen"), 3, 4, 0.15),
    ]
    assert tastes_in_words(tastes) == "mostly navy (3 of 4), linen (3)"
    assert [taste.words for taste in shared_by(NAVY.listings[1], tastes)] == ["navy"]
    assert shared_by(NAVY.listings[5], tastes) == []


def test_a_value_that_one_of_several_listings_has_is_no_taste() -> None:
    rare = gallery("color: teal", "color: red", *["color: green"] * 50)

    assert tastes_of(rare, [0, 1]) == []
    assert [taste.words for taste in tastes_of(rare, [0])] == ["teal"], "a history of one has nothing else"
    assert tastes_in_words(tastes_of(rare, [0])) == "teal"


def test_a_history_without_attributes_has_no_tastes() -> None:
    assert tastes_of(gallery("", "color: red"), [0]) == []
    assert tastes_of(gallery("", ""), [0, 1]) == []
    assert tastes_in_words([]) == ""


def test_a_value_that_two_keys_have_is_said_with_its_key() -> None:
    shop = gallery("sleeve: long", "length: long", "color: navy", "belt: yes")

    assert [shop.words(value) for each in shop.listings for value in each.values] == [
        "sleeve: long",
        "length: long",
        "navy",
        "belt: yes",
    ]
