"""JSONL: an object a line; rows are numbered by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..bounds import column_names, parse_record
from ..columns import known_names
from ..lines import Lines, LongLine
from ..problems import Problem, clipped
from ..table import Report, Row, Rows, Table, as_cell, row_limit, too_long
from .delimited import tell_blank

HEAD_RECORDS = 1000
NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""What JSON escapes can smuggle in and no file name, database or terminal takes."""


def jsonl_table(source: BinaryIO, head: bytes, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """The table in `source`, UTF-8 text that starts with `head`; columns are those of the first 1,000 records."""
    if head.lstrip().startswith(b"["):
        raise DataError(f"{file}: row 1: a JSON array", "JSONL has one object a line: jq -c '.[]' makes it of an array")
    return records_table(_records(Lines(source, file, row_limit(settings), report), report), settings, report)


def records_table(records: Iterator[tuple[int, Mapping[str, Any]]], settings: CatalogSettings, report: Report) -> Table:
    """Numbered records with names of their own as a table."""
    first = list(islice(records, HEAD_RECORDS))
    names, rare = column_names(record for _, record in first)
    if rare:
        message = f"{len(rare):,} columns that hardly any row has are not read"
        report(Problem("late column", 0, message, column=clipped(rare[0], 40)))

    def rows() -> Rows:
        """The rows, one after the other."""
        known = {*names, *rare}
        for part in (first, records):
            for row, record in part:
                for name in record.keys() - known:
                    known.add(name)
                    if known_names([name]):
                        message = f"{name!r} first stands here and is not read"
                        report(Problem("late column", row, message, column=clipped(name, 40)))
                cells = [as_cell(record.get(name)) for name in names]
                if problem := too_long(cells, names, row, settings.max_field_chars):
                    report(problem)
                else:
                    yield Row(row, cells)

    return Table(tuple(names), rows())


def _records(lines: Lines, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
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
        tell_blank(blank, report)
        try:
            record = parse_record(line)
        except ValueError as error:
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
