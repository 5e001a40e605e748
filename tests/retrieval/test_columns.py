"""Filters over the columns of many listings: values, bounds, and what is said where nothing can pass."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.errors import UsageError
from afmrl_cli.retrieval.columns import Columns
from afmrl_cli.retrieval.filters import parse_filters, passes

ROWS = [
    {"brand": "Luma", "price": "19.90 EUR", "color": "red", "size": "S|M", "weight": "900 g"},
    {"brand": "Acme", "price": "1.299,00 EUR", "color": "navy", "size": "L", "weight": "1.2 kg"},
    {"brand": "Luma", "price": "", "color": "Red", "size": "", "weight": "2 kg"},
]


def passing(*written: str) -> list[int]:
    filters = parse_filters(written, "--filter")
    mask, _ = Columns(ROWS).passing(filters, "--filter")
    assert mask.tolist() == [passes(row, filters) for row in ROWS], "one listing at a time says the same"
    return np.flatnonzero(mask).tolist()


def test_bounds_compare_numbers_and_leave_out_what_has_none() -> None:
    assert passing("price<100") == [0]
    assert passing("price>=19.9", "price<=2000") == [0, 1]
    assert passing("price>19,90") == [1]


def test_values_are_alternatives_and_bounds_must_hold_as_well() -> None:
    assert passing("color=red", "color=navy") == [0, 1, 2]
    assert passing("color=red", "color=navy", "price>1000") == [1]
    assert passing("size=m", "brand=luma") == [0]


def test_a_bound_is_of_one_unit() -> None:
    assert passing("weight<2kg") == [1]
    assert passing("weight<=2 KG", "weight>1.5kg") == [2]
    with pytest.raises(UsageError, match="several units: g, kg") as caught:
        passing("weight<2")
    assert "weight<2g" in caught.value.hint
    with pytest.raises(UsageError, match="no weight is in lb"):
        passing("weight<2lb")


@pytest.mark.parametrize(("written", "message"), [("price<cheap", "is no number"), ("color<3", "holds no numbers")])
def test_bounds_that_compare_nothing(written: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        passing(written)


def test_the_price_is_the_column_that_holds_it() -> None:
    rows = [{"preis": "9"}, {"preis": "90"}]
    assert Columns(rows).passing(parse_filters(["price<10"], "--filter"), "--filter")[0].tolist() == [True, False]


def test_a_value_that_no_listing_has_names_the_nearest() -> None:
    mask, notes = Columns(ROWS).passing(parse_filters(["color=nayv"], "--filter"), "--filter")
    assert not mask.any()
    assert notes == ["--filter color=nayv: no listing has it; did you mean navy?"]
    notes = Columns(ROWS).passing(parse_filters(["brand=zzz"], "--filter"), "--filter")[1]
    assert notes == ["--filter brand=zzz: no listing has it; there are Luma, Acme"]


def test_generated_values_count_where_the_shop_says_nothing() -> None:
    both = Columns(ROWS).with_more(Columns([{"size": "XL"}, {"fit": "slim"}, {"size": "XS", "fit": "wide"}]))
    assert both.passing(parse_filters(["size=xs"], "--filter"), "--filter")[0].tolist() == [False, False, True]
    assert both.passing(parse_filters(["size=xl"], "--filter"), "--filter")[0].tolist() == [False, False, False]
    assert both.passing(parse_filters(["fit=slim"], "--filter"), "--filter")[0].tolist() == [False, True, False]
