"""Parquet: any columns but binary ones; rows are records, from 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..problems import Problem, clipped
from ..table import Report, Row, Rows, Table, as_cell, too_long

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024


def parquet_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        fields = list(ParquetFile(source).schema_arrow)
        # A text that a million rows share stays one text; decoded, it would be a million.
        texts = [
            field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        parquet = ParquetFile(source, read_dictionary=texts)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise DataError(f"{file}: not a Parquet file, or damaged: {clipped(str(error))}", "export it again") from error
    positions = [i for i, field in enumerate(fields) if "binary" not in str(field.type)]
    for i, field in enumerate(fields):
        if i not in positions:
            report(Problem("binary column", 0, f"holds {field.type} and is not read", column=field.name))
    names = tuple(fields[i].name for i in positions)

    def rows() -> Rows:
        """Yield the rows, one after the other."""
        row = 0
        try:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(names)):
                columns = {name: _values(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for values in zip(*(columns[name] for name in names), strict=True):
                    row += 1
                    cells = [as_cell(value) for value in values]
                    if problem := too_long(cells, names, row, settings.max_field_chars):
                        report(problem)
                    else:
                        yield Row(row, cells)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise DataError(f"{file}: after row {row}: damaged: {clipped(str(error))}", "export it again") from error

    return Table(names, rows())


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column, equal ones of a dictionary as one object."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column.validate(full=True)  # a damaged file may point beyond its dictionary
        texts = column.dictionary.to_pylist()
        return [None if i is None else texts[i] for i in column.indices.to_pylist()]
    return _plain(column).to_pylist()  # type: ignore[no-any-return]


def _plain(column: pa.Array) -> pa.Array:
    """Return dates and times as text: Python has none before the year 1 and after 9999, and none of unknown
    time zones.
    """
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))
    return column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
