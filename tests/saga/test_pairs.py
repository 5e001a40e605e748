"""Pairs of labelled photos: of one class, or of the nearest of another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.saga.pairs import Pairs, fixed_pairs, values_of
from afmrl_cli.saga.photos import LabelledPhoto, PhotoSet, regrouped
from afmrl_cli.training.pairs import Photo


def labelled(name: str, label: int, listing: str = "", **pairs: str) -> LabelledPhoto:
    return LabelledPhoto(Photo(Path(name), (8, 8), name), listing or name, f"P{listing or name}", label, pairs)


def drawn(photos: PhotoSet, at: int, same: bool, times: int = 60) -> list[tuple[str, str]]:
    """(first, second) of many draws about the photo `at`."""
    rng, pairs = np.random.default_rng(1), Pairs(photos)
    found = [pairs.draw(at, same, rng) for _ in range(times)]
    assert all(pair.same is same is (pair.first.label == pair.second.label) for pair in found)
    return [(str(pair.first.photo.path), str(pair.second.photo.path)) for pair in found]


def test_the_same_is_another_photo_of_another_listing_if_there_is_one() -> None:
    photos = PhotoSet(
        [
            labelled("a", 0, "x"),
            labelled("b", 0, "x"),
            labelled("c", 0, "y"),
            labelled("d", 1, "z"),
            labelled("e", 1, "z"),
        ],
        ["one", "two"],
    )
    assert set(drawn(photos, 0, True)) == {("a", "c"), ("c", "a")}, "in either order"
    assert set(drawn(photos, 2, True)) == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}
    assert set(drawn(photos, 3, True)) == {("d", "e"), ("e", "d")}, "of its own listing where there is no other"
    orders = [first for first, _ in drawn(photos, 0, True)]
    assert 0.3 < orders.count("a") / len(orders) < 0.7


def test_the_different_one_shares_most() -> None:
    """Folded values by key; of few candidates all are looked at."""
    photos = PhotoSet(
        [
            labelled("a", 0, colour="Navy Blue", fit="slim", neck="red"),
            labelled("b", 0, colour="red"),
            labelled("c", 1, colour="red", fit="wide", neck="slim"),
            labelled("d", 1, colour="navy-blue", fit="slim", neck="green"),
            labelled("e", 2, colour="navy blue", fit="wide"),
        ],
        ["one", "two", "three"],
    )
    assert set(drawn(photos, 0, False)) == {("a", "d"), ("d", "a")}
    assert set(drawn(photos, 1, False)) == {("b", "c"), ("c", "b")}
    assert values_of(photos.photos[0]) == {("colour", "navy blue"), ("fit", "slim"), ("neck", "red")}


def test_of_many_candidates_some_are_drawn() -> None:
    """Where nothing is known, it is any; where one of hundreds is like it, it is found now and then."""
    unknown = [labelled(str(i), i % 100) for i in range(200)]
    assert len(set(drawn(PhotoSet(unknown, list("x" * 100)), 0, False))) > 40
    known = [labelled("like", 1, colour="red"), *(labelled(str(i), 1, colour="blue") for i in range(200))]
    rare = PhotoSet([labelled("own", 0, colour="red"), labelled("own too", 0), *known], ["a", "b"])
    share = np.mean(["like" in pair for pair in drawn(rare, 0, False, 400)])
    assert 0.04 < share < 0.14, "16 of 201 candidates a time"


@pytest.mark.parametrize("number", [1, 7, 20, 1000])
def test_fixed_pairs_are_half_of_one_class(number: int) -> None:
    photos = PhotoSet([labelled(str(i), i % 5) for i in range(20)], list("abcde"))
    pairs = fixed_pairs(photos, number)
    assert pairs == fixed_pairs(photos, number) and len(pairs) == min(number, 40)
    assert [pair.same for pair in pairs] == [i % 2 == 0 for i in range(len(pairs))]
    begun = [{pair.first.photo.content, pair.second.photo.content} for pair in pairs[:20]]
    everywhere = set().union(*begun)
    assert len(everywhere) >= min(number, 20), "each is asked about once before one is asked about again"


def test_one_class_has_no_pairs_to_tell_apart() -> None:
    assert fixed_pairs(PhotoSet([labelled("a", 0), labelled("b", 0)], ["one"]), 8) == []


def test_photos_grouped_anew() -> None:
    photos = [labelled("a", 7, "x"), labelled("b", 7, "y"), labelled("c", 3, "x"), labelled("d", 3, "z")]
    found = regrouped(photos, lambda photo: photo.identity)
    assert found.classes == ["Px"] and [(each.photo.content, each.label) for each in found.photos] == [
        ("a", 0),
        ("c", 0),
    ]
