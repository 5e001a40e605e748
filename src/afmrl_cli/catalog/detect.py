"""A file of any format as a table: what it is, is found from its content; `catalog.format` overrules that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..settings import CatalogSettings, Columns
from ..store.source import is_table_folder, opened
from .bounds import bounded, check_names
from .columns import ROLES, map_columns
from .content import SAMPLE_ROWS, Sample
from .doubled import is_doubled, mended
from .encodings import GUNZIP_ERRORS, as_utf8, find_encoding, unpacked, with_line_feeds
from .formats.delimited import delimited_table
from .formats.families import Shape, families_layout, find_shape
from .formats.feed import feed_table
from .formats.google import google_layout, is_google
from .formats.jsonl import jsonl_table
from .formats.pairs import Splitter
from .formats.parquet import parquet_table
from .formats.parquet_folder import parquet_folder_table
from .formats.sheet import sheet_table
from .formats.shopify import is_shopify, shopify_layout
from .formats.woocommerce import is_woocommerce, woocommerce_layout
from .lines import HEAD_BYTES
from .problems import Problem, clipped
from .table import Report, Row, Table, one_text

OTHER_FORMATS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"7z\xbc\xaf": "a 7-Zip file",
    b"Rar!": "a RAR file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an XZ file",
    b"(\xb5/\xfd": "a Zstandard file",
}
FILES = ("csv", "tsv", "jsonl", "parquet", "xlsx", "xml")
"""Values of `catalog.format` that say what the file is and that its rows are plain; the others are shops' layouts."""
TESTS = {"shopify": is_shopify, "woocommerce": is_woocommerce, "google": is_google}


def read_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the table in `source`, a shop's export turned into a row for each listing.

    Rows that can't be read go to `report`, which may raise. Raises DataError for a file that is no such table at all.
    """
    table = raw_table(source, file, settings, report)
    check_names(table.names, file)
    if settings.format in FILES or not table.names:
        return table
    shape: str = settings.format or next((name for name, test in TESTS.items() if test(table.names)), "")
    if settings.format and not TESTS[shape](table.names):
        columns = ", ".join(table.names)[:300]
        raise DataError(f"{file}: no {shape} export: the columns are {columns}", "leave catalog.format empty")
    if shape in ("shopify", "woocommerce"):
        return shopify_layout(table, report) if shape == "shopify" else woocommerce_layout(table, report)

    def again() -> Iterator[Row]:
        """Yield the rows from the beginning, without what is wrong with the others."""
        with opened(file) as other:
            yield from splitter.table(bounded(raw_table(other, file, settings, lambda problem: None), file)).rows

    first, table = peeked(table)
    splitter = Splitter.find(table.names, first)
    first, table = peeked(splitter.table(table))
    if family := _family(table, first, file, settings, options=bool(splitter.options)):
        table = families_layout(table, family, again, report)
    return google_layout(table) if shape == "google" else table


def _family(
    table: Table, first: Sequence[Row], file: Path, settings: CatalogSettings, *, options: bool
) -> Shape | None:
    """Return how the table has parents and variants; None when it has none."""
    chosen = {role: [name for name in getattr(settings.columns, role) if name in table.names] for role in ROLES}
    try:
        columns = map_columns(table.names, Columns(**chosen), file, Sample.of(len(table.names), first))
    except DataError:  # no id, or a name twice: reported where the columns are mapped for good
        return None
    return find_shape(columns, first, options=options)


def peeked(table: Table) -> tuple[list[Row], Table]:
    """Return the first rows of `table`, by which its columns are recognised, and the table with all of its rows."""
    first = list(islice(table.rows, SAMPLE_ROWS))
    return first, replace(table, rows=chain(first, table.rows))


def raw_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """Return the rows of `source` from its beginning as they stand, without repeated column names."""
    plain, packed = unpacked(source)
    try:
        head = plain.read(16)
    except GUNZIP_ERRORS as error:
        raise DataError(f"{file}: damaged gzip file: {clipped(str(error))}", "export it again") from error
    plain.seek(0)
    if packed and head.startswith((b"PAR1", b"PK")):
        raise DataError(f"{file}: a gzip file of a file that is packed already", "unpack it")
    table = _binary_table(plain, head, file, settings, report) or _text_table(
        plain, file, settings, report, packed=packed
    )
    return replace(table, rows=_without_headers(table, report))


def _without_headers(table: Table, report: Report) -> Iterator[Row]:
    """Yield the rows of `table` but those that are the column names once more, as in exports that were joined."""
    names = [name for name in table.names if name]
    for row in table.rows:
        first = next((text for cell in row.cells if (text := one_text(cell).lstrip("\ufeff"))), "")
        if first == names[0] and len(names) > 1:
            cells = [one_text(cell).lstrip("\ufeff") for cell in row.cells]
            if [cell for cell in cells if cell] == names:
                report(Problem("repeated header", row.number, "the column names once more; not read"))
                continue
        yield row


def kind_of(head: bytes) -> str:
    """Return what a text file is by the first characters of its UTF-8 text: csv, jsonl or xml."""
    start = head.lstrip(b" \t\r\n")[:1]
    return {b"<": "xml", b"{": "jsonl", b"[": "jsonl"}.get(start, "csv")


def _binary_table(source: BinaryIO, head: bytes, file: Path, settings: CatalogSettings, report: Report) -> Table | None:
    if is_table_folder(file):
        return parquet_folder_table(file, settings, report)
    if settings.format == "parquet" or head.startswith(b"PAR1"):
        return parquet_table(source, file, settings, report)
    if settings.format == "xlsx" or head.startswith(b"PK\x03\x04"):
        return sheet_table(source, file, settings, report)
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{file}: not a catalog but {what}", "export it as CSV (UTF-8), XLSX, JSONL or Parquet")
    if not head:
        raise DataError(f"{file}: the file is empty", "the first row must hold the column names")
    return None


def _text_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report, *, packed: bool) -> Table:
    encoding = find_encoding(source, file, settings.encoding, report, packed=packed)
    head = as_utf8(source, encoding, lambda problem: None).read(HEAD_BYTES)
    start = head.lstrip()[:100].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{file}: a web page and no catalog", "was it downloaded without logging in?")
    kind = settings.format if settings.format in FILES else kind_of(head)
    text = as_utf8(source, encoding, report)
    if kind != "xml" and b"\n" not in head and b"\r" in head:  # as old Macs end lines
        text, head = with_line_feeds(text), head.replace(b"\r", b"\n")
    if kind == "xml":
        table = feed_table(text, file, settings, report)
    elif kind == "jsonl":
        table = jsonl_table(text, head, file, settings, report)
    else:
        table = delimited_table(text, head, file, settings, report)
    return _mended(table, report) if is_doubled(head.decode("utf-8", "replace")) else table


def _mended(table: Table, report: Report) -> Table:
    """Return `table`, whose text was encoded twice, as it was meant."""
    report(Problem("doubled encoding", 0, "the text was encoded as UTF-8 twice; it is read as it was meant"))

    def rows() -> Iterator[Row]:
        """Yield the rows, one after the other."""
        for row in table.rows:
            cells = [mended(cell) if isinstance(cell, str) else tuple(map(mended, cell)) for cell in row.cells]
            yield Row(row.number, cells, {mended(key): mended(text) for key, text in row.more.items()})

    return replace(table, names=tuple(map(mended, table.names)), rows=rows())
