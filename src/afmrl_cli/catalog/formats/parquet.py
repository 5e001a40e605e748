"""Parquet: any columns but binary ones; rows are records, from 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..problems import Problem, clipped
from ..table import Report, Row, Rows, Table, as_cell, too_long

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024


def parquet_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """The table in `source`."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        parquet = ParquetFile(source)
        fields = list(parquet.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise DataError(f"{file}: not a Parquet file, or damaged: {clipped(str(error))}", "export it again") from error
    positions = [i for i, field in enumerate(fields) if "binary" not in str(field.type)]
    for i, field in enumerate(fields):
        if i not in positions:
            report(Problem("binary column", 0, f"holds {field.type} and is not read", column=field.name))
    names = tuple(fields[i].name for i in positions)

    def rows() -> Rows:
        """The rows, one after the other."""
        row = 0
        try:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(names)):
                columns = {name: _plain(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for values in zip(*(columns[name].to_pylist() for name in names), strict=True):
                    row += 1
                    cells = [as_cell(value) for value in values]
                    if problem := too_long(cells, names, row, settings.max_field_chars):
                        report(problem)
                    else:
                        yield Row(row, cells)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise DataError(f"{file}: after row {row}: damaged: {clipped(str(error))}", "export it again") from error

    return Table(names, rows())


def _plain(column: pa.Array) -> pa.Array:
    """Dates and times as text: Python has none before the year 1 and after 9999, and none of unknown time zones."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))
    return column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
