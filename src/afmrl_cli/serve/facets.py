"""Filters with counts: which values the listings have, and how many listings are left with each.

A value's count is that of the listings that pass the filters of all other keys and have it: what a click on it leaves,
or adds where another value of its key is chosen already. What a filter lets through is `retrieval.filters`' word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..retrieval.filters import LIST_SEPARATOR, Filters, passes

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


@dataclass(frozen=True)
class Facet:
    """A key, and its values with their counts, in the order of frequency in the whole catalog."""

    key: str
    values: list[tuple[str, int]]


@dataclass(frozen=True)
class _Column:
    """The cells of a key: `codes` [listings] are places in `cells`, -1 where there is none; `values` are those shown,
    each with the places of the cells that hold it.
    """

    codes: NDArray[np.int32]
    cells: list[str]
    values: dict[str, NDArray[np.int64]]

    def mask(self, key: str, wanted: Filters) -> NDArray[np.bool_]:
        """Tell of each listing whether it passes the filter of `key`."""
        right = np.array([passes({key: cell}, wanted) for cell in [*self.cells, ""]])
        return right[self.codes]

    def counts(self, there: NDArray[np.bool_]) -> list[tuple[str, int]]:
        """Count the listings of each value among those that are `there`."""
        codes = self.codes[there]
        numbers = np.bincount(codes[codes >= 0], minlength=len(self.cells))
        return [(value, int(numbers[places].sum())) for value, places in self.values.items()]


class Facets:
    """The columns of a catalog by which people filter, from the fields of its listings."""

    def __init__(self, fields: Iterable[Mapping[str, str]]) -> None:
        places: dict[str, dict[str, int]] = {}
        rows: dict[str, list[tuple[int, int]]] = {}
        self.count = 0
        for row, each in enumerate(fields):
            self.count = row + 1
            for key, cell in each.items():
                if key in NEVER or not (cell := cell.strip()):
                    continue
                known = places.setdefault(key, {})
                if len(known) <= MOST_DISTINCT:
                    rows.setdefault(key, []).append((row, known.setdefault(cell, len(known))))
        self._columns = {
            key: _column(self.count, list(known), rows[key], key)
            for key, known in places.items()
            if len(known) <= MOST_DISTINCT
        }
        self.keys = [key for key, column in self._columns.items() if self._is_shown(column)]

    def _is_shown(self, column: _Column) -> bool:
        filled = int((column.codes >= 0).sum())
        repeats = 2 * len(column.cells) <= filled or len(column.cells) <= MOST_VALUES // 4
        names = not all(map(NUMBER.fullmatch, column.values)) or len(column.cells) <= MOST_NUMBERS
        several = len(column.values) > 1 and filled >= LEAST_FILLED * self.count
        return several and repeats and names

    def counts(self, filters: Filters) -> tuple[int, list[Facet]]:
        """Return how many listings pass `filters`, and the values of each key with the counts beside the filters of all
        other keys. Keys that are no filter for people let everything through here.
        """
        masks = {
            key: self._columns[key].mask(key, {key: wanted}) for key, wanted in filters.items() if key in self._columns
        }
        everything = np.ones(self.count, bool)
        facets = []
        for key in self.keys:
            there = everything
            for other, mask in masks.items():
                there = there if other == key else there & mask
            facets.append(Facet(key, self._columns[key].counts(there)))
        left = everything
        for mask in masks.values():
            left = left & mask
        return int(left.sum()), facets


def _column(count: int, cells: list[str], rows: list[tuple[int, int]], key: str) -> _Column:
    codes = np.full(count, -1, np.int32)
    where = np.array(rows, np.int64).reshape(-1, 2)
    codes[where[:, 0]] = where[:, 1]
    frequency = np.bincount(codes[codes >= 0], minlength=len(cells))
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
    return _Column(codes, cells, {spelled[value]: np.array(places[value], np.int64) for value in often})
