"""JSONL: an object a line, rows numbered by line; and JSON: a list of objects, alone or in an object, rows from 1."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..bounds import NESTED, is_deep, parse_record
from ..columns import known_names
from ..lines import Lines, LongLine
from ..problems import Problem, clipped
from ..table import Report, Table, row_limit
from .delimited import tell_blank
from .records import records_table

READ_CHUNK = 1 << 18
IN_OBJECT = re.compile(rb"\{[^\[]*?\[\s*\{")
"""The beginning of an object up to the first list of objects in it."""
BETWEEN = re.compile(r"[ \t\r\n,]*")
NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""What JSON escapes can smuggle in and no file name, database or terminal takes."""


def jsonl_table(source: BinaryIO, head: bytes, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`, UTF-8 text that starts with `head`; columns are those of the first 1,000
    records.
    """
    if (start := list_start(head)) >= 0:
        return records_table(_listed(source, start, file, row_limit(settings), report), settings, report)
    return records_table(_records(Lines(source, file, row_limit(settings), report), report), settings, report)


def list_start(head: bytes) -> int:
    """Find where a list of objects begins when the file is one JSON document; -1 for an object a line."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        return head.index(b"[")
    first = text.split(b"\n", 1)[0]
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        record = None  # the object goes on in the next line, or beyond the head
    if isinstance(record, dict) and (known_names(list(record)) > 1 or not _holds_objects(record)):
        return -1
    found = IN_OBJECT.match(text)
    return len(head) - len(text) + found.end() - 2 if found else -1


def _holds_objects(record: Mapping[str, Any]) -> bool:
    lists = (part for part in record.values() if isinstance(part, list))
    return any(part and all(isinstance(each, dict) for each in part) for part in lists)


def _listed(
    source: BinaryIO, start: int, file: Path, limit: int, report: Report
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of the list that begins at byte `start`, one at a time."""
    decoder, text, at, row = json.JSONDecoder(), "", 0, 0
    reader = codecs.getreader("utf-8")(source, "replace")
    source.read(start + 1)
    while True:
        at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == "]":
            return
        try:
            record, end = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise DataError(f"{file}: record {row + 1}: nested too deeply", "export the catalog again") from error
        except ValueError as error:
            more = reader.read(READ_CHUNK)
            if more and len(text) - at <= limit:
                text, at = text[at:] + more, 0
                continue
            what = "is longer than a record may be" if more else f"not JSON: {clipped(str(error), 100)}"
            raise DataError(f"{file}: after record {row}: {what}", "export the catalog again") from error
        if end == len(text) and (more := reader.read(READ_CHUNK)):  # a number may go on in the next chunk
            text, at = text[at:] + more, 0
            continue
        row, at = row + 1, end
        if not isinstance(record, dict):
            report(Problem("broken row", row, f"not an object but {type(record).__name__}"))
        elif is_deep(record):
            report(Problem("broken row", row, NESTED))
        elif _holds_no_text(record):
            report(Problem("broken row", row, "a NUL or half a surrogate pair (\\u0000, \\ud800...) is no text"))
        else:
            yield row, record


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
