"""The training split in folds: sizes, identity, what moves a product to another one."""

from __future__ import annotations

import json

import pytest

from afmrl_cli.catalog.folds import FOLDS, Fold, Folds, Part, cut, read_folds

SIZES: dict[Fold, int] = {"a": 13, "b": 12, "asked": 9, "later": 6}
LISTINGS = {f"L{i}{half}": f"P{i}" for i in range(40) for half in "xy"}


def folds_of(folds: Folds, listings: dict[str, str] = LISTINGS) -> dict[str, Fold]:
    return {id: folds.of(id, identity) for id, identity in listings.items()}


def test_folds_have_their_sizes_and_hold_whole_products() -> None:
    folds = cut(LISTINGS, SIZES, "salt", {})
    found = folds_of(folds)
    assert {fold: sum(each == fold for each in found.values()) / 2 for fold in FOLDS} == SIZES
    assert all(found[f"L{i}x"] == found[f"L{i}y"] for i in range(40))
    assert folds_of(cut(dict(reversed(LISTINGS.items())), SIZES, "salt", {})) == found, "whatever the order"
    assert folds_of(cut(LISTINGS, SIZES, "other", {})) != found
    assert folds_of(read_folds(json.loads(json.dumps(folds.as_json())))) == found, "to the last bit"


@pytest.mark.parametrize("change", [{"ends": {"a": 2.0}}, {"sizes": {"a": "x"}}, {"ends": 3}, {"joined": None}])
def test_damaged_folds_are_none(change: dict[str, object]) -> None:
    content = cut(LISTINGS, SIZES, "", {}).as_json()
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        read_folds(content | change)
    with pytest.raises(KeyError):
        read_folds({})


def test_a_fold_that_nobody_wants_is_not_there() -> None:
    folds = cut(LISTINGS, {"a": 15, "b": 15, "asked": 10}, "", {})
    assert set(folds_of(folds).values()) == {"a", "b", "asked"} == set(folds.sizes)


def test_a_new_product_moves_no_more_than_one_other_over_each_border() -> None:
    before = folds_of(cut(LISTINGS, SIZES, "", {}))
    grown = LISTINGS | {"new": "P-new"}
    after = folds_of(cut(grown, {**SIZES, "a": SIZES["a"] + 1}, "", {}), grown)
    assert sum(before[id] != after[id] for id in LISTINGS) <= 2 * 3


def test_listings_that_people_called_one_product_are_in_one_fold() -> None:
    apart = folds_of(cut(LISTINGS, SIZES, "", {}))
    i, j = next((i, j) for i in range(40) for j in range(i) if apart[f"L{i}x"] != apart[f"L{j}x"])
    joined = {f"L{i}{half}": f"P{j}" for half in "xy"}
    found = folds_of(cut(LISTINGS, {**SIZES, "a": SIZES["a"] - 1}, "", joined))
    assert found[f"L{i}x"] == found[f"L{j}x"] == found[f"L{i}y"]


def test_a_part_sees_its_folds_and_asks_in_some() -> None:
    folds = cut(LISTINGS, SIZES, "", {})
    part = Part(folds, frozenset({"a", "asked"}), frozenset({"asked"}))
    for id, fold in folds_of(folds).items():
        assert part.sees(id, LISTINGS[id]) == (fold in ("a", "asked"))
        assert part.asks(id, LISTINGS[id]) == (fold == "asked")
    assert Part(folds, frozenset({"a"})).describe() == {"folds": ["a"], "of": SIZES, "salt": ""}
