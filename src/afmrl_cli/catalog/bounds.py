"""What a table may cost: a small file can stand for any number of cells (short rows under a long header, records with a
new key each) and for any amount of text (one string that thousands of cells of a workbook share, a dictionary in
Parquet). Work is held to what a file of its size can honestly ask for; beyond that it is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..store.source import state_of
from .table import Rows, Table

NAME_CHARS = 1_000
MOST_COLUMNS = 4_000
DEEPEST, NESTED = 32, "nested too deeply"
MOST_CELLS, CELLS_A_BYTE = 100_000_000, 2
MOST_CHARS, CHARS_A_BYTE = 256 << 20, 64
"""Whatever the size of the file, and more for each byte of it."""
FEW_COLUMNS, COLUMNS_A_KEY = 100, 20
"""Records with names of their own may have so many columns, or so many times the keys of the average record."""


def check_names(names: Sequence[str], file: Path) -> None:
    """Raise DataError when there are too many columns, or one has a name that is none."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file}: {len(names):,} columns", f"a table may have {MOST_COLUMNS:,}")
    for i, name in enumerate(names):
        if len(name) > NAME_CHARS:
            hint = "the first row must hold the column names"
            raise DataError(f"{file}: row 1: the name of column {i + 1} has {len(name):,} characters", hint)


def bounded(table: Table, file: Path) -> Table:
    """Return `table` whose rows end in a DataError once they stand for more than a file of that size may."""
    size, width = state_of(file)[0], len(table.names)
    most_cells, most_chars = MOST_CELLS + CELLS_A_BYTE * size, MOST_CHARS + CHARS_A_BYTE * size

    def rows() -> Rows:
        """Yield the rows, counted."""
        cells = chars = 0
        for row in table.rows:
            cells += width
            chars += sum(len(cell) if isinstance(cell, str) else sum(map(len, cell)) for cell in row.cells)
            if cells > most_cells:
                hint = "leave out columns that hardly any row fills"
                raise DataError(f"{file}: row {row.number}: {width:,} columns are too many for so many rows", hint)
            if chars > most_chars:
                hint = "export it again, without texts that are the same in every row"
                raise DataError(f"{file}: row {row.number}: unpacks to more than {most_chars >> 20:,} MB of text", hint)
            yield row

    return dataclasses.replace(table, rows=rows())


def parse_record(line: str) -> Any:
    """Return the JSON in `line`. ValueError when it is none, or nested more deeply than anything that is read or
    written.
    """
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError(NESTED) from error
    if line.count("[") + line.count("{") > DEEPEST and is_deep(record):
        raise ValueError(NESTED)
    return record


def is_deep(record: Any) -> bool:
    """Tell whether lists and objects lie in one another in more than `DEEPEST` levels."""
    level = [record]
    for _ in range(DEEPEST):
        parts = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def column_names(records: Iterable[Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return the names in `records`, in order, and those that are left out because there are too many: the rarest."""
    keys = [list(record) for record in records]
    counts = Counter(name for record in keys for name in record)
    most = max(FEW_COLUMNS, COLUMNS_A_KEY * sum(map(len, keys)) // max(1, len(keys)))
    kept = {name for name, _ in counts.most_common(most)}
    return [name for name in counts if name in kept], [name for name in counts if name not in kept]
