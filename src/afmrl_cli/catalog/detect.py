"""A file of any format as a table: what it is, is found from its content; `catalog.format` overrules that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..settings import CatalogSettings
from .encodings import GUNZIP_ERRORS, as_utf8, find_encoding, unpacked, with_line_feeds
from .formats.delimited import delimited_table
from .formats.feed import feed_table
from .formats.google import google_layout, is_google
from .formats.jsonl import jsonl_table
from .formats.parquet import parquet_table
from .formats.sheet import sheet_table
from .formats.shopify import is_shopify, shopify_layout
from .formats.woocommerce import is_woocommerce, woocommerce_layout
from .lines import HEAD_BYTES
from .problems import clipped
from .table import Report, Table

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


def read_table(source: BinaryIO, file: Path, settings: CatalogSettings, report: Report) -> Table:
    """The table in `source`, a shop's export turned into a row for each listing.

    Rows that can't be read go to `report`, which may raise. Raises DataError for a file that is no such table at all.
    """
    source, packed = unpacked(source)
    try:
        head = source.read(16)
    except GUNZIP_ERRORS as error:
        raise DataError(f"{file}: damaged gzip file: {clipped(str(error))}", "export it again") from error
    source.seek(0)
    if packed and head.startswith((b"PAR1", b"PK")):
        raise DataError(f"{file}: a gzip file of a file that is packed already", "unpack it")
    table = _binary_table(source, head, file, settings, report) or _text_table(
        source, file, settings, report, packed=packed
    )
    return _laid_out(table, file, settings.format, report)


def kind_of(head: bytes) -> str:
    """What a text file is by the first characters of its UTF-8 text: csv, jsonl or xml."""
    start = head.lstrip(b" \t\r\n")[:1]
    return {b"<": "xml", b"{": "jsonl", b"[": "jsonl"}.get(start, "csv")


def _binary_table(source: BinaryIO, head: bytes, file: Path, settings: CatalogSettings, report: Report) -> Table | None:
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
        return feed_table(text, file, settings, report)
    if kind == "jsonl":
        return jsonl_table(text, head, file, settings, report)
    return delimited_table(text, head, file, settings, report)


def _laid_out(table: Table, file: Path, chosen: str, report: Report) -> Table:
    shapes: dict[str, Callable[[], Table]] = {
        "google": lambda: google_layout(table),
        "shopify": lambda: shopify_layout(table, report),
        "woocommerce": lambda: woocommerce_layout(table, report),
    }
    if chosen in FILES:
        return table
    tests = {"shopify": is_shopify, "woocommerce": is_woocommerce, "google": is_google}
    name = chosen or next((name for name, test in tests.items() if test(table.names)), "")
    if chosen and not tests[chosen](table.names):
        columns = ", ".join(table.names)[:300]
        raise DataError(f"{file}: no {chosen} export: the columns are {columns}", "leave catalog.format empty")
    return shapes[name]() if name else table
