"""A folder of Parquet files as one table: rows are numbered through, file after file in the order of their names.

Folders called `category=Shoes` are a column, as in Hive's partitions. A file may lack columns that others have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ...errors import DataError
from ...settings import CatalogSettings
from ...store.source import Part, is_table_folder, parts_of
from ..problems import Problem, clipped
from ..table import Report, Row, Rows, Table
from .parquet import parquet_table

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def parquet_folder_table(folder: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `folder`, of which one file is open at a time. Raises DataError as `parquet_table` does."""
    parts = [(part, _values_of(part.name)) for part in parts_of(folder)]
    names: dict[str, None] = {}
    once: set[str] = set()

    def tell(problem: Problem) -> None:
        """Report what is wrong with a column, once for all files."""
        if problem.column not in once:
            once.add(problem.column)
            report(problem)

    for part, _ in parts:
        with part.opened() as source:
            names |= dict.fromkeys(parquet_table(source, part.file, settings, tell).names)
    names |= dict.fromkeys(name for _, values in parts for name in values)

    def rows() -> Rows:
        """Yield the rows, one after the other."""
        before = 0
        for part, values in parts:
            with part.opened() as source:
                table = parquet_table(source, part.file, settings, lambda problem: _later(problem, before, report))  # noqa: B023
                places = {name: i for i, name in enumerate(table.names)}
                for row in table.rows:
                    cells = [row.cells[places[name]] if name in places else values.get(name, "") for name in names]
                    yield Row(before + row.number, cells)
            before += _rows_of(part)

    return Table(tuple(names), rows())


def _later(problem: Problem, before: int, report: Report) -> None:
    """Report what is wrong with a row, by its number in the whole table."""
    if problem.row:
        report(replace(problem, row=before + problem.row))


def _values_of(inside: PurePosixPath) -> dict[str, str]:
    """Return what the names of the folders say of a file's rows."""
    pairs = [name.partition("=") for name in inside.parts[:-1] if "=" in name]
    return {unquote(key): "" if value == NO_VALUE else unquote(value) for key, _, value in pairs}


def parquet_rows(file: Path) -> int:
    """Return how many rows a Parquet file, or a table of some, says it has."""
    parts = parts_of(file) if is_table_folder(file) else [Part(PurePosixPath(file.name), file)]
    return sum(map(_rows_of, parts))


def _rows_of(part: Part) -> int:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with part.opened() as source:
            return int(ParquetFile(source).metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        message = f"{part.file}: not a Parquet file, or damaged: {clipped(str(error))}"
        raise DataError(message, "export it again") from error
