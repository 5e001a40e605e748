"""The fields of all listings in columns, for filters over many of them: a filter looks at each value once, and not at
each listing.

    codes [n]    which of the column's cells a listing has, -1 for none
    cells        the different ones, in the order in which they occur
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .filters import Filters, Wanted, check_units, has_one, holds, known_filters, near_values

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """The cells of one key: `codes` [n] are places in `cells`, -1 where a listing has none."""

    codes: NDArray[np.int32]
    cells: list[str]

    def mask(self, key: str, wanted: Sequence[Wanted]) -> Mask:
        """Tell of each listing [n] whether it passes what is `wanted` of the key."""
        right = np.array([*(holds(key, cell, wanted) for cell in self.cells), holds(key, "", wanted)])
        return right[self.codes]

    def groups(self) -> NDArray[np.int64]:
        """Return a number for each listing [n] that those with the same cell share; without one it stands alone."""
        alone = self.codes < 0
        made = self.codes.astype(np.int64)
        made[alone] = len(self.cells) + np.flatnonzero(alone)
        return made


class Columns(Mapping[str, Column]):
    """The columns of n listings, by key. `fields` are those of each listing; empty cells are none."""

    def __init__(self, fields: Iterable[Mapping[str, str]]) -> None:
        places: dict[str, dict[str, int]] = {}
        found: dict[str, tuple[list[int], list[int]]] = {}
        self.count = 0
        for row, each in enumerate(fields):
            self.count = row + 1
            for key, cell in each.items():
                known = places.get(key)
                if known is None:
                    known, found[key] = places.setdefault(key, {}), ([], [])
                if not cell or not (cell := cell.strip()):
                    continue
                rows, codes = found[key]
                rows.append(row)
                codes.append(known.setdefault(cell, len(known)))
        self._columns = {key: _column(self.count, list(known), *found[key]) for key, known in places.items()}

    def __getitem__(self, key: str) -> Column:
        return self._columns[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def with_more(self, more: Columns) -> Columns:
        """Return these columns with `more` of the same listings, whose cells count where these have none."""
        made = Columns(())
        made.count, made._columns = self.count, dict(self._columns)
        for key, column in more._columns.items():
            made._columns[key] = _filled(self[key], column) if key in self else column
        return made

    def passing(self, filters: Filters, flag: str) -> tuple[Mask, list[str]]:
        """Tell of each listing whether it passes `filters` [n], and what is to be said: of values that no listing has.
        UsageError for a key that none has, and for a bound that can't be compared.
        """
        passed, notes = np.ones(self.count, dtype=bool), list[str]()
        for key, wanted in known_filters(filters, self._columns, flag).items():
            column = self._columns[key]
            check_units(key, wanted, column.cells, flag)
            passed &= column.mask(key, wanted)
            for value in (each for each in wanted if isinstance(each, str)):
                if not any(has_one(key, cell, [value]) for cell in column.cells):
                    notes.append(f"{flag} {key}={value}: no listing has it; {near_values(value, column.cells)}")
        return passed, notes


def _column(count: int, cells: list[str], rows: list[int], codes: list[int]) -> Column:
    made = np.full(count, -1, dtype=np.int32)
    made[rows] = codes
    return Column(made, cells)


def _filled(column: Column, other: Column) -> Column:
    cells = {cell: place for place, cell in enumerate(column.cells)}
    renamed = np.array([cells.setdefault(cell, len(cells)) for cell in other.cells] + [-1], dtype=np.int32)
    codes = np.where(column.codes < 0, renamed[other.codes], column.codes)
    return Column(codes, list(cells))
