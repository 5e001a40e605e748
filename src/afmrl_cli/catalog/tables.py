"""CSV, TSV, JSONL and Parquet as one thing: column names, and a stream of numbered rows of cells.

Rows are numbered as a spreadsheet shows them: in CSV and TSV the header is row 1 and a cell with line breaks does not
count twice; in JSONL the row is the line; in Parquet it is the record, from 1.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, UsageError
from ..settings import CatalogSettings
from .columns import known_names
from .lines import HEAD_BYTES, Lines, LongLine, refuse_binary
from .problems import Kind, Problem, clipped

Cell = str | tuple[str, ...]
"""A tuple when the file itself has a list there (JSONL, Parquet)."""
Rows = Iterator[tuple[int, Sequence[Cell]]]
Report = Callable[[Problem], None]

DELIMITERS = ",;\t|"
DELIMITER_NAMES = {"\t": "tab"}
SNIFFED_LINES = 50
JSONL_HEAD_ROWS = 1000
PARQUET_BATCH_ROWS = 1024
NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""What JSON escapes can smuggle in and no file name, database or terminal takes."""


@dataclass(frozen=True)
class Table:
    """Column names and rows; every row has one cell per name."""

    names: tuple[str, ...]
    rows: Rows


def read_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """The table in `source`, in the format that the suffix of `file` says.

    Rows that can't be read go to `report`, which may raise. Raises DataError for a file that is no such table at all.
    """
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv_table(source, file, settings, report)
    if suffix == ".jsonl":
        return _jsonl_table(source, file, settings, report)
    if suffix == ".parquet":
        return _parquet_table(source, file, settings, report)
    raise DataError(f"{file}: can't read {suffix or 'a file without a suffix'}", "give .csv, .tsv, .jsonl or .parquet")


def row_limit(settings: CatalogSettings) -> int:
    """Bytes of one line that are held in memory at most."""
    return max(1 << 20, 8 * settings.max_field_chars)


# CSV and TSV


def _csv_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    head = source.read(HEAD_BYTES)
    refuse_binary(head, file)
    if b"\n" not in head and b"\r" in head:
        raise DataError(f"{file}: row 1: lines end in CR alone", "save it with line ends LF or CR LF")
    source.seek(0)
    delimiter = chosen_delimiter(settings) or find_delimiter(head.decode("utf-8-sig", "replace"))
    limit = row_limit(settings)
    # Python's own limit is one for the whole process; ours, per cell and with the column's name, is checked below.
    csv.field_size_limit(limit)
    lines = Lines(source, file, limit)
    reader = csv.reader(lines, delimiter=delimiter)
    names: list[str] = []
    while not names:
        lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            raise DataError(f"{file}: the file is empty", "the first row must hold the column names") from None
        except (LongLine, csv.Error) as error:
            raise DataError(f"{file}: row {lines.row}: no header but one enormous line", "is it a CSV file?") from error
        if not (len(cells) <= 2 and cells and cells[0].lower().startswith("sep=")):  # a line that Excel writes
            names = [cell.strip() for cell in cells] if any(cell.strip() for cell in cells) else []
    _refuse_wrong_delimiter(names, delimiter, file)
    while names and not names[-1]:
        names.pop()
    return Table(tuple(names), _csv_rows(lines, reader, names, settings.max_field_chars, report))


def chosen_delimiter(settings: CatalogSettings) -> str:
    """The delimiter of the settings; "" when it is to be found. Raises UsageError when it is not one character."""
    text = {"tab": "\t", "\\t": "\t"}.get(settings.delimiter.lower(), settings.delimiter)
    if len(text) > 1 or text in ('"', "\n", "\r"):
        raise UsageError(f"catalog.delimiter: {settings.delimiter!r} is not one character", 'for example ";" or "tab"')
    return text


def find_delimiter(text: str) -> str:
    """The delimiter of a CSV file that starts with `text`: the one whose header has the most known column names, then
    the one that gives most rows the header's width, then the one with the most columns; a comma when none splits."""
    sample = text.splitlines(keepends=True)[: SNIFFED_LINES + 1]
    if len(sample) > 1 and len(text) >= HEAD_BYTES // 2:
        sample.pop()  # may be cut off
    if sample and sample[0].lower().startswith("sep=") and len(sample[0].strip()) == 5:
        return sample[0][4]
    best, best_score = ",", (0, 0.0, 1)
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(sample, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        score = (known_names(rows[0]), alike, len(rows[0]))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _refuse_wrong_delimiter(names: Sequence[str], delimiter: str, file: Path) -> None:
    if len(names) != 1:
        return
    for other in DELIMITERS:
        if other != delimiter and known_names(names[0].split(other)) > 1:
            shown, right = (DELIMITER_NAMES.get(d, d) for d in (delimiter, other))
            raise DataError(
                f"{file}: row 1: a single column {clipped(names[0], 60)!r} when split at {shown!r}",
                f"leave catalog.delimiter empty, or set it to {right!r}",
            )


def _csv_rows(lines: Lines, reader: Iterator[list[str]], names: Sequence[str], max_chars: int, report: Report) -> Rows:
    width = len(names)
    blank: list[int] = []  # lines without anything are told only when something follows them
    while True:
        lines.start_record()
        row = lines.row
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (LongLine, csv.Error) as error:
            report(_unreadable(error, row, lines))
            continue
        if not cells:
            blank.append(row)
            continue
        _tell_blank(blank, report)
        if len(cells) > width and not any(cells[width:]):
            del cells[width:]
        if lines.ended or len(cells) != width:
            report(_misshapen(cells, width, lines))
        elif lines.bytes > max_chars and (problem := _too_long(cells, names, row, max_chars)):
            report(problem)
        else:
            yield row, cells


def _tell_blank(rows: list[int], report: Report) -> None:
    for row in rows:
        report(Problem("empty row", row, "nothing in it"))
    rows.clear()


def _misshapen(cells: Sequence[str], width: int, lines: Lines) -> Problem:
    if lines.ended:  # the reader asked for one more line inside this row, and there was none
        return Problem("unclosed quote", lines.row, f"a quote is never closed; {_lines_lost(lines.lines)}")
    if not any(cells):
        return Problem("empty row", lines.row, "nothing in it")
    span = f"; it spans {lines.lines} lines: is a quote unclosed?" if lines.lines > 1 else ""
    kind: Kind = "row too short" if len(cells) < width else "row too long"
    message = f"{len(cells)} cells, the header has {width}{span}"
    return Problem(kind, lines.row, message, listing=clipped(cells[0], 40))


def _unreadable(error: Exception, row: int, lines: Lines) -> Problem:
    if isinstance(error, csv.Error) and "limit" not in str(error):
        return Problem("broken row", row, "a line break (CR) inside a cell without quotes")
    lost = _lines_lost(lines.drop_open_quote())
    return Problem("cell too long", row, f"more than {lines.bytes // 1_000_000} MB in one row; {lost}")


def _lines_lost(lines: int) -> str:
    return "the line is skipped" if lines <= 1 else f"the row takes {lines:,} lines, all skipped"


def _too_long(cells: Sequence[Cell], names: Sequence[str], row: int, max_chars: int) -> Problem | None:
    for name, cell in zip(names, cells, strict=True):
        length = len(cell) if isinstance(cell, str) else sum(map(len, cell))
        if length > max_chars:
            return Problem("cell too long", row, f"{length:,} characters, at most {max_chars:,}", column=name)
    return None


# JSONL


def _jsonl_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    head = source.read(HEAD_BYTES)
    refuse_binary(head, file)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise DataError(f"{file}: row 1: a JSON array", "JSONL has one object a line: jq -c '.[]' makes it of an array")
    source.seek(0)
    records = _jsonl_records(Lines(source, file, row_limit(settings)), report)
    first = list(islice(records, JSONL_HEAD_ROWS))
    names = list(dict.fromkeys(name for _, record in first for name in record))

    def rows() -> Rows:
        known = set(names)
        for part in (first, records):
            for row, record in part:
                for name in record.keys() - known:
                    known.add(name)
                    if known_names([name]):
                        message = f"{name!r} first stands here and is not read"
                        report(Problem("late column", row, message, column=clipped(name, 40)))
                cells = [_cell(record.get(name)) for name in names]
                if problem := _too_long(cells, names, row, settings.max_field_chars):
                    report(problem)
                else:
                    yield row, cells

    return Table(tuple(names), rows())


def _jsonl_records(lines: Lines, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    blank: list[int] = []
    while True:
        lines.start_record()
        row = lines.row
        try:
            line = next(lines)
        except StopIteration:
            return
        except LongLine:
            report(Problem("cell too long", row, f"a line of {lines.bytes // 1_000_000} MB; the line is skipped"))
            continue
        if not line.strip():
            blank.append(row)
            continue
        _tell_blank(blank, report)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(Problem("broken row", row, f"not JSON: {clipped(str(error), 100)}"))
            continue
        if not isinstance(record, dict):
            report(Problem("broken row", row, f"not an object but {type(record).__name__}"))
        elif "\\u" in line and _holds_no_text(record):
            report(Problem("broken row", row, "a NUL or half a surrogate pair (\\u0000, \\ud800...) is no text"))
        else:
            yield row, record


def _holds_no_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_no_text(part) for part in (*value, *value.values()))
    if isinstance(value, list):
        return any(map(_holds_no_text, value))
    return isinstance(value, str) and NOT_TEXT.search(value) is not None


# Parquet


def _parquet_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        parquet = ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a Parquet file, or damaged: {clipped(str(error))}", "export it again") from error
    fields = list(parquet.schema_arrow)
    positions = [i for i, field in enumerate(fields) if "binary" not in str(field.type)]
    for i, field in enumerate(fields):
        if i not in positions:
            report(Problem("binary column", 0, f"holds {field.type} and is not read", column=field.name))
    names = tuple(fields[i].name for i in positions)

    def rows() -> Rows:
        row = 0
        try:
            for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=list(names)):
                columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
                for values in zip(*(columns[name].to_pylist() for name in names), strict=True):
                    row += 1
                    cells = [_cell(value) for value in values]
                    if problem := _too_long(cells, names, row, settings.max_field_chars):
                        report(problem)
                    else:
                        yield row, cells
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: after row {row}: damaged: {clipped(str(error))}", "export it again") from error

    return Table(names, rows())


def _cell(value: Any) -> Cell:
    """A value of JSON or Parquet as text: nothing for null and NaN, 5 for 5.0, JSON for what is nested."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return tuple(part for part in (str(_cell(part)) for part in value) if part)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
