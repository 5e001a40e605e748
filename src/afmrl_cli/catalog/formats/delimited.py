"""CSV, TSV and their kin: rows numbered as a spreadsheet shows them, the header being row 1; a cell with line breaks
does not count twice."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError, UsageError
from ...settings import CatalogSettings, Columns
from ..columns import header_row, known_names
from ..lines import HEAD_BYTES, Lines, LongLine
from ..photo_columns import holds_images
from ..problems import Kind, Problem, clipped
from ..table import Report, Row, Rows, Table, row_limit, too_long

DELIMITERS = ",;\t|"
DELIMITER_NAMES = {"\t": "tab"}
SNIFFED_LINES = 50


def delimited_table(source: BinaryIO, head: bytes, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`, UTF-8 text that starts with `head`."""
    start = head.decode("utf-8", "replace")
    delimiter = chosen_delimiter(settings) or find_delimiter(start, settings.columns)
    above = header_row(_first_rows(start, delimiter), settings.columns)
    limit = row_limit(settings)
    # Python's own limit is one for the whole process; ours, per cell and with the column's name, is checked below.
    csv.field_size_limit(limit)
    lines = Lines(source, file, limit, report)
    reader = csv.reader(lines, delimiter=delimiter)
    names: list[str] = []
    while not names:
        skipped = lines.row
        lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            raise DataError(f"{file}: the file is empty", "the first row must hold the column names") from None
        except (LongLine, csv.Error) as error:
            raise DataError(f"{file}: row {lines.row}: no header but one enormous line", "is it a CSV file?") from error
        if not (len(cells) <= 2 and cells and cells[0].lower().startswith("sep=")):  # a line that Excel writes
            filled = any(cell.strip() for cell in cells)
            names = [cell.strip() for cell in cells] if filled and not above else []
            above -= filled and above > 0
    tell_rows_above(skipped, header_row(_first_rows(start, delimiter), settings.columns), report)
    _refuse_wrong_delimiter(names, delimiter, file)
    while names and not names[-1]:
        names.pop()
    names = number_images(names)
    return Table(tuple(names), _rows(lines, reader, names, settings.max_field_chars, report))


def number_images(names: Sequence[str]) -> list[str]:
    """Return `names` with repeated names of photo columns numbered: feeds repeat `additional_image_link` for each
    photo.
    """
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(f"{name} {seen[name]}" if seen[name] > 1 and holds_images(name) else name)
    return numbered


def chosen_delimiter(settings: CatalogSettings) -> str:
    """Return the delimiter of the settings; "" when it is to be found. Raises UsageError when it is not one
    character.
    """
    text = {"tab": "\t", "\\t": "\t"}.get(settings.delimiter.lower(), settings.delimiter)
    if len(text) > 1 or text in ('"', "\n", "\r"):
        raise UsageError(f"catalog.delimiter: {settings.delimiter!r} is not one character", 'for example ";" or "tab"')
    return text


def tell_rows_above(rows: int, filled: int, report: Report) -> None:
    """Report that `rows` rows stand above the column names, `filled` of them with something in them."""
    if filled:
        what = "row 1 stands" if rows == 1 else f"rows 1 to {rows} stand"
        report(Problem("rows above", 0, f"{what} above the column names and {'is' if rows == 1 else 'are'} not read"))


def _sample(text: str) -> list[str]:
    sample = text.splitlines(keepends=True)[: SNIFFED_LINES + 1]
    if len(sample) > 1 and len(text) >= HEAD_BYTES // 2:
        sample.pop()  # may be cut off
    return sample


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    """Return the first rows of `text` with anything in them; none when it can't be split."""
    try:
        rows = [row for row in csv.reader(_sample(text), delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error:
        return []
    return [row for row in rows if not row[0].lower().startswith("sep=")]


def find_delimiter(text: str, settings: Columns | None = None) -> str:
    """Return the delimiter of a CSV file that starts with `text`: the one whose header has the most known column names,
    then the one that gives most rows the header's width, then the one with the most columns; a comma when none splits.

    Names that `settings` give count as known."""
    sample = _sample(text)
    if sample and sample[0].lower().startswith("sep=") and len(sample[0].strip()) == 5:
        return sample[0][4]
    best, best_score = ",", (0, 0.0, 1)
    for delimiter in DELIMITERS:
        rows = _first_rows(text, delimiter)
        rows = rows[header_row(rows, settings) :]
        if not rows or len(rows[0]) < 2:
            continue
        alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        score = (known_names(rows[0], settings), alike, len(rows[0]))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _refuse_wrong_delimiter(names: Sequence[str], delimiter: str, file: Path) -> None:
    if len(names) != 1:
        return
    if known_names(names[0].split(delimiter)) > 1:
        raise DataError(
            f"{file}: row 1: {clipped(names[0], 60)!r} is a single cell: quotes stand around whole rows",
            "export it again, or take the outer quotes away",
        )
    for other in DELIMITERS:
        if other != delimiter and known_names(names[0].split(other)) > 1:
            shown, right = (DELIMITER_NAMES.get(d, d) for d in (delimiter, other))
            raise DataError(
                f"{file}: row 1: a single column {clipped(names[0], 60)!r} when split at {shown!r}",
                f"leave catalog.delimiter empty, or set it to {right!r}",
            )


def _rows(lines: Lines, reader: Iterator[list[str]], names: Sequence[str], max_chars: int, report: Report) -> Rows:
    width = len(names)
    blank: list[int] = []  # lines without anything are reported only when something follows them
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
        tell_blank(blank, report)
        if len(cells) > width and not any(cells[width:]):
            del cells[width:]
        if lines.ended or len(cells) != width:
            report(_misshapen(cells, width, lines))
        elif lines.bytes > max_chars and (problem := too_long(cells, names, row, max_chars)):
            report(problem)
        else:
            yield Row(row, cells)


def tell_blank(rows: list[int], report: Report) -> None:
    """Report the blank lines in `rows` and forget them."""
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
