"""Filters with counts: which values the listings have, and how many listings are left with each; of prices the range.

A value's count is that of the listings that pass the filters of all other keys and have it: what a click on it leaves,
or adds where another value of its key is chosen already. What a filter lets through is `retrieval.filters`' word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.amounts import read_amount
from ..retrieval.columns import Column, Columns, Mask
from ..retrieval.filters import LIST_SEPARATOR, PRICES, Filters

CATEGORY = "category"
NEVER = frozenset(("id", "product_id", "group_id", "link", "url", "image", "image_link", "availability_date"))
MOST_VALUES = 40
"""Of a key that are shown, the most frequent ones."""
MOST_DISTINCT = 2_000
"""Cells of a column with more are no filter for people: names, numbers, texts."""
LONGEST_VALUE = 60
LEAST_FILLED = 0.05
NUMBER = re.compile(r"[^\w\s]*\s*[\d.,]+\s*(\w{1,3}|[^\w\s])?")
MOST_NUMBERS = 12
"""A column of more numbers than that holds prices or measures, not sizes."""
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Facet:
    """A key, and its values with their counts, in the order of frequency in the whole catalog."""

    key: str
    values: list[tuple[str, int]]


@dataclass(frozen=True)
class Range:
    """A column of prices in one currency, its lowest and its highest one."""

    key: str
    least: float
    most: float


class Facets:
    """The columns of a catalog by which people filter."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        few = {
            key: column
            for key, column in columns.items()
            if key not in NEVER and 0 < len(column.cells) <= MOST_DISTINCT
        }
        values = {key: _values(key, column) for key, column in few.items()}
        self._values = {key: shown for key, shown in values.items() if self._is_shown(few[key], shown)}
        self.price = _range(columns)

    def _is_shown(self, column: Column, values: dict[str, Places]) -> bool:
        filled = int((column.codes >= 0).sum())
        repeats = 2 * len(column.cells) <= filled or len(column.cells) <= MOST_VALUES // 4
        names = not all(map(NUMBER.fullmatch, values)) or len(column.cells) <= MOST_NUMBERS
        return len(values) > 1 and filled >= LEAST_FILLED * self._columns.count and repeats and names

    def counts(self, filters: Filters) -> tuple[int, list[Facet]]:
        """Return how many listings pass `filters`, and the values of each key with the counts beside the filters of all
        other keys. Keys that no listing has let everything through here: a search says that there are none.
        """
        names = {"price": self.price.key} if self.price else {}
        named = {names.get(key, key) if key not in self._columns else key: wanted for key, wanted in filters.items()}
        masks = {key: self._columns[key].mask(key, wanted) for key, wanted in named.items() if key in self._columns}
        everything = np.ones(self._columns.count, bool)
        facets = []
        for key, values in self._values.items():
            there = everything
            for other, mask in masks.items():
                there = there if other == key else there & mask
            facets.append(Facet(key, _counted(self._columns[key], values, there)))
        left = everything
        for mask in masks.values():
            left = left & mask
        return int(left.sum()), facets


def _counted(column: Column, values: dict[str, Places], there: Mask) -> list[tuple[str, int]]:
    """Count the listings of each value among those that are `there`."""
    codes = column.codes[there]
    numbers = np.bincount(codes[codes >= 0], minlength=len(column.cells))
    return [(value, int(numbers[places].sum())) for value, places in values.items()]


def _values(key: str, column: Column) -> dict[str, Places]:
    """Return the most frequent values of a column, each with the places of the cells that hold it."""
    cells = column.cells
    frequency = np.bincount(column.codes[column.codes >= 0], minlength=len(cells))
    spelled: dict[str, str] = {}
    places: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        for part in [cell] if key == CATEGORY else filter(None, map(str.strip, cell.split(LIST_SEPARATOR))):
            folded = part.casefold()
            spelled.setdefault(folded, part)
            places.setdefault(folded, []).append(place)
    if key == CATEGORY:  # which is matched by its beginning
        folded_cells = [cell.casefold() for cell in cells]
        places = {
            value: [place for place, cell in enumerate(folded_cells) if cell.startswith(value)] for value in places
        }
    short = [value for value in places if len(value) <= LONGEST_VALUE]
    often = sorted(short, key=lambda value: (-int(frequency[places[value]].sum()), value))[:MOST_VALUES]
    return {spelled[value]: np.array(places[value], np.int64) for value in often}


def _range(columns: Columns) -> Range | None:
    """Return the range of the prices, None without any, and where they are in several currencies."""
    key = next((name for name in PRICES if name in columns), "")
    amounts = [read_amount(cell, price=True) for cell in columns[key].cells] if key else []
    known = [(number, unit) for number, unit in amounts if not math.isnan(number)]
    if len({unit for _, unit in known}) != 1:
        return None
    numbers = [number for number, _ in known]
    return Range(key, min(numbers), max(numbers))
