"""What every reader of a file gives: column names, and a stream of numbered rows of cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..settings import CatalogSettings
from .problems import Problem

Cell = str | tuple[str, ...]
"""A tuple when the file itself has a list there (JSONL, Parquet, XML)."""
Report = Callable[[Problem], None]
NOTHING: Mapping[str, str] = {}


class Row(NamedTuple):
    """A row as the file has it. `number` is what a spreadsheet shows; `more` are given attributes whose names stand
    in the row and not in the header (a shop's options such as colour and size)."""

    number: int
    cells: Sequence[Cell]
    more: Mapping[str, str] = NOTHING


Rows = Iterator[Row]


@dataclass(frozen=True)
class Table:
    """Column names and rows; every row has one cell per name. `layout` says whose export it is, "" for plain rows.

    `own_attributes`: rows may bring attributes that no column is named by.
    """

    names: tuple[str, ...]
    rows: Rows
    layout: str = ""
    own_attributes: bool = False


def row_limit(settings: CatalogSettings) -> int:
    """Return the bytes of one line that are held in memory at most."""
    return max(1 << 20, 8 * settings.max_field_chars)


def too_long(cells: Sequence[Cell], names: Sequence[str], row: int, max_chars: int) -> Problem | None:
    """Return the problem of a row with a cell of more than `max_chars` characters; None when there is none."""
    for name, cell in zip(names, cells, strict=True):
        length = len(cell) if isinstance(cell, str) else sum(map(len, cell))
        if length > max_chars:
            return Problem("cell too long", row, f"{length:,} characters, at most {max_chars:,}", column=name)
    return None


def as_cell(value: Any) -> Cell:
    """Return a value of JSON, Parquet or a sheet as text: nothing for null and NaN, 5 for 5.0, JSON for what is
    nested.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list) and value and all(map(_is_path, value)):  # of categories
        return tuple(" > ".join(filter(None, (one_text(as_cell(name)) for name in part))) for part in value)
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return tuple(part for part in (one_text(as_cell(part)) for part in value) if part)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _is_path(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and not any(isinstance(name, list | dict) for name in part)


def one_text(cell: Cell) -> str:
    """Return a cell as one text; the parts of a list stand between |."""
    return cell.strip() if isinstance(cell, str) else "|".join(cell)
