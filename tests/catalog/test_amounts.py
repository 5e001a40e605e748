"""Amounts as shops write them."""

from __future__ import annotations

import math

import pytest

from afmrl_cli.catalog.amounts import read_amount


@pytest.mark.parametrize(
    ("cell", "number", "unit"),
    [
        ("12,50 EUR", 12.5, "eur"),
        ("$1,299.95", 1299.95, "$"),
        ("EUR12.50", 12.5, "eur"),
        ("ca 360g", 360, "g"),
        ("0.125 kg", 0.125, "kg"),
        ("-5 °C", -5, "°c"),
        ('43.2 cm (17")', 43.2, "cm"),
        ("1 299,00 kr", 1299, "kr"),
        ("33", 33, ""),
        ("0.00", 0, ""),
    ],
)
def test_a_cell_is_a_number_and_its_unit(cell: str, number: float, unit: str) -> None:
    assert read_amount(cell) == (number, unit)


def test_three_digits_after_a_point_are_thousands_in_prices_alone() -> None:
    assert read_amount("1.299", price=True)[0] == 1299
    assert read_amount("1.299")[0] == 1.299
    assert read_amount("1.299.000")[0] == 1_299_000


def test_what_holds_no_number_is_none() -> None:
    assert math.isnan(read_amount("on request")[0])
