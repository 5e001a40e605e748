"""Excel workbooks (XLSX): the first sheet that holds anything; rows are the sheet's own."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from ...settings import CatalogSettings
from ..bounds import NAME_CHARS
from ..columns import MOST_ABOVE, header_row
from ..photo_columns import holds_images
from ..problems import Problem, clipped
from ..table import Report, Row, Rows, Table, as_cell, one_text, too_long
from .delimited import number_images, tell_rows_above
from .sheet_links import cell_links, formula_rows, has_formulas, link_of

UNPACKED_BYTES = 2 << 30
SHARED_BYTES = 256 << 20
"""A workbook that unpacks to more is refused; the second is for the texts that all cells share, held in memory."""


def sheet_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`. Raises DataError for what is no workbook, and for one that would unpack to
    gigabytes.
    """
    from openpyxl import load_workbook

    _refuse_bombs(source, file)
    # openpyxl warns of styles and extensions that it does not read.
    warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
    try:
        book = load_workbook(source, read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # some programs write wrong ones
            part = str(getattr(sheet, "_worksheet_path", ""))  # openpyxl keeps it to itself
            rows = _filled(_with_links(sheet.iter_rows(values_only=True), source, sheet.title, part, report))
            if first := list(islice(rows, MOST_ABOVE)):
                break
        else:
            raise DataError(f"{file}: the workbook is empty", "the first row must hold the column names")
    except DataError:
        raise
    except Exception as error:  # openpyxl raises whatever damaged XML makes it stumble over
        raise _damaged(file, error) from error
    if others := [other.title for other in book.worksheets if other.title != sheet.title]:
        message = f"only sheet {clipped(sheet.title, 40)!r} is read, not {clipped(', '.join(others), 80)!r}"
        report(Problem("other sheets", 0, message))
    # Thousands of cells may share one text of megabytes, and no column is called that.
    written = [[one_text(as_cell(value)[: NAME_CHARS + 1]) for value in values] for _, values in first]
    above = header_row(written, settings.columns)
    tell_rows_above(first[above][0] - 1, above, report)
    names = number_images(written[above])
    return Table(tuple(names), _rows(chain(first[above + 1 :], rows), first[above][0], names, file, settings, report))


def _with_links(
    rows: Iterator[Sequence[Any]], source: BinaryIO, title: str, part: str, report: Report
) -> Iterator[Sequence[Any]]:
    """Yield `rows` with the links that lie on cells of photos and of =HYPERLINK(); formulas without results are
    reported.
    """
    links = cell_links(source, part) if part else {}
    formulas = formula_rows(source, title) if part and has_formulas(source, part) else None
    photos: set[int] = set()
    for number, values in enumerate(rows, 1):
        written = next(formulas, ()) if formulas else ()
        if links or formulas:
            names = values if number <= MOST_ABOVE else ()
            values = [
                _with_link(value, written[i] if i < len(written) else None, links.get((number, i), ""), i in photos)
                for i, value in enumerate(values)
            ]
            photos |= {i for i, name in enumerate(names) if isinstance(name, str) and holds_images(name)}
            if lost := [i for i, formula in enumerate(written) if formula is not None and values[i : i + 1] == [None]]:
                message = f"{len(lost)} formulas without results, the first is {clipped(str(written[lost[0]]), 60)}"
                report(Problem("formula", number, message))
        yield values


def _with_link(value: Any, formula: Any, link: str, photo: bool) -> Any:
    """Return the link of a cell of photos, and of =HYPERLINK() without a result; else its value."""
    if photo and link:
        return link
    if (address := link_of(formula)) and (photo or value is None):
        return address
    return value


def _refuse_bombs(source: BinaryIO, file: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise _damaged(file, error) from error
    if "xl/workbook.xml" not in {part.filename.lower() for part in parts}:
        raise DataError(f"{file}: a ZIP file and no Excel workbook", "unpack it, and give the catalog's file")
    shared = sum(part.file_size for part in parts if "sharedstrings" in part.filename.lower())
    if sum(part.file_size for part in parts) > UNPACKED_BYTES or shared > SHARED_BYTES:
        raise DataError(f"{file}: the workbook unpacks to gigabytes", "export the catalog as CSV")


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: not an Excel workbook, or damaged: {clipped(str(error), 100)}", "export it again")


def _filled(rows: Iterator[Sequence[Any]]) -> Iterator[tuple[int, list[Any]]]:
    """Yield (row's number, values up to the last one) of the rows that hold anything."""
    for number, values in enumerate(rows, 1):
        cells = list(values)
        while cells and cells[-1] in (None, ""):
            cells.pop()
        if cells:
            yield number, cells


def _rows(
    rows: Iterator[tuple[int, list[Any]]],
    number: int,
    names: Sequence[str],
    file: Path,
    settings: CatalogSettings,
    report: Report,
) -> Rows:
    width = len(names)
    try:
        for number, values in rows:
            cells = [as_cell(value) for value in values[:width]] + [""] * (width - len(values))
            if len(values) > width:
                report(Problem("row too long", number, f"{len(values)} cells, the header has {width}"))
            elif problem := too_long(cells, names, number, settings.max_field_chars):
                report(problem)
            else:
                yield Row(number, cells)
    except DataError:
        raise
    except Exception as error:  # see sheet_table
        raise DataError(
            f"{file}: after row {number}: damaged: {clipped(str(error), 100)}", "export it again"
        ) from error
