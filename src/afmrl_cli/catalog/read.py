"""A retailer's file as a stream of Products, in the file's order; what can't be used is reported with its row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..settings import CatalogSettings
from ..store.folder import CatalogFolder
from ..store.source import is_table_folder, opened, state_of
from .bounds import bounded
from .codes import code, lost_digits
from .columns import GROUP, ColumnMap, map_columns
from .content import Sample
from .detect import kind_of, peeked, read_table
from .encodings import GUNZIP_ERRORS, unpacked
from .formats.jsonl import list_start
from .formats.parquet_folder import parquet_rows
from .gaps import is_gap
from .lines import HEAD_BYTES
from .named_photos import NamedPhotos
from .problems import Problem, Problems, clipped
from .product import Product
from .product_reader import OnLink, ProductReader, joined_text
from .seen import MadeIds, SeenIds
from .table import Rows, one_text

COUNT_CHUNK = 1 << 20
SHEET_ROW_BYTES = 100
"""Of a workbook, packed, for a row: about."""
LARGE_SHEET = 20_000_000


@dataclass(frozen=True)
class Catalog:
    """An open catalog: what its columns are, and its products, which can be gone through once."""

    columns: ColumnMap
    products: Iterator[Product]
    layout: str
    """Whose export it is (google, shopify, woocommerce), "" for a plain table."""
    own_attributes: bool = False
    """Rows may bring attributes that no column is named by."""


def read_products(folder: CatalogFolder, settings: CatalogSettings, problems: Problems) -> Iterator[Product]:
    """Stream the catalog's usable products; everything else goes to `problems`.

    Raises DataError, naming file and row, when the file can't be read as a catalog, when it has no usable product,
    and at the first problem that the settings call fatal (`bad_rows`, `bad_images`).
    """
    count = 0
    with open_catalog(folder, settings, problems) as catalog:
        for product in catalog.products:
            count += 1
            yield product
    if not count:
        raise no_products(folder.catalog, problems)


def no_products(file: Path, problems: Problems) -> DataError:
    """Return the error of a catalog without a usable product."""
    if not problems.errors:
        return DataError(f"{file}: no products: there is no row after the column names", "add a row per product")
    kind = next(kind for kind in problems.counts if problems.first(kind)[0].severity == "error")
    first = problems.first(kind)[0]
    message = f"no usable product: {kind} in {problems.counts[kind]:,} rows, first {first.where}: {first.message}"
    return DataError(f"{file}: {message}", "`afmrl check` lists what is wrong, row by row")


@contextmanager
def open_catalog(
    folder: CatalogFolder, settings: CatalogSettings, problems: Problems, on_link: OnLink | None = None
) -> Iterator[Catalog]:
    """Open the catalog and find out what its columns are; the products can be read inside the block. Errors as in
    `read_products`, but no products are no error. `on_link` gets (cell, row, column, listing) of each link to a
    photo."""
    file = folder.catalog

    def report(problem: Problem) -> None:
        problems.report(problem, settings.bad_rows, file)

    with opened(file) as source, unchanged(source, file):
        table = bounded(read_table(source, file, settings, report), file)
        if not table.names:
            raise no_products(file, problems)
        first, table = peeked(table)
        sample = Sample.of(len(table.names), first)
        columns = map_columns(table.names, settings.columns, file, sample, own_attributes=table.own_attributes)
        _tell_guesses(columns, problems)
        for i, name in enumerate(table.names):
            if not name:
                problems.add(Problem("unnamed column", 1, f"column {i + 1} has no name and is not read"))
        named = _named_photos(folder, settings, columns)
        products = _products(table.rows, columns, folder, settings, problems, named, on_link)
        yield Catalog(columns, products, table.layout, table.own_attributes)


def _tell_guesses(columns: ColumnMap, problems: Problems) -> None:
    for role in columns.guessed:
        name = columns.read_as(role)[0]
        message = f"{clipped(name, 40)!r} is read as {role} by what it holds: catalog.columns.{role} = [{name!r}]"
        problems.add(Problem("guessed column", 0, message))


@contextmanager
def unchanged(source: BinaryIO, file: Path) -> Iterator[None]:
    """Raise DataError when another program writes to the file while the block reads it: half of each would be read. A
    file that is renamed onto it changes nothing, this one is read to its end.
    """

    def state() -> tuple[int, int]:
        if is_table_folder(file):
            return state_of(file)
        status = os.fstat(source.fileno())
        return status.st_size, status.st_mtime_ns

    before = state()
    yield
    if state() != before:
        hint = "run the command again once the file is complete: what is done stays"
        raise DataError(f"{file}: was written to while it was read", hint)


def _named_photos(folder: CatalogFolder, settings: CatalogSettings, columns: ColumnMap) -> NamedPhotos | None:
    """Find photos by their names, when the settings say so or the catalog has no column of photos."""
    if "image" in columns.roles and not settings.image_folder:
        return None

    def ids() -> Iterator[str]:
        with opened(folder.catalog) as source:
            for row in read_table(source, folder.catalog, settings, lambda problem: None).rows:
                yield code(joined_text("id", row.cells, columns))

    return NamedPhotos.find(folder, settings, ids)


def _products(
    rows: Rows,
    columns: ColumnMap,
    folder: CatalogFolder,
    settings: CatalogSettings,
    problems: Problems,
    named: NamedPhotos | None,
    on_link: OnLink | None,
) -> Iterator[Product]:
    seen = SeenIds()
    made = MadeIds(seen)
    reader = ProductReader(columns, folder, settings, problems, named, on_link)
    for row in rows:
        listing = code(reader.joined("id", row))
        if is_gap(listing) and columns.unnumbered and (listing := made.of(reader.joined("title", row))):
            problems.add(Problem("made id", row.number, "no id: it is made of the title", listing=listing))
        if is_gap(listing):
            if any(map(one_text, row.cells)):
                reader.bad("no id", row.number, "the id is empty" if not listing else f"{listing!r} is no id")
            else:
                reader.bad("empty row", row.number, "nothing in it")
        elif lost_digits(listing):
            reader.bad("lost digits", row.number, f"{listing} is no id: a spreadsheet has rounded it", listing)
        elif first := seen.add(listing, row.number):
            reader.bad("duplicate id", row.number, f"row {first} has the same id", listing)
        elif product := reader.product(row, listing):
            yield product


def most_photos(folder: CatalogFolder, settings: CatalogSettings) -> int:
    """Return the largest number of photos that a listing of the catalog has; one pass over it, no photo is opened."""
    return max((len(product.images) for product in read_products(folder, settings, Problems())), default=0)


def count_rows(folder: CatalogFolder, settings: CatalogSettings) -> int:
    """Return how many products the catalog has, for progress and for sizes of trainings: its listings, bad ones and
    all.

    Where rows are not listings (families, feeds, JSON documents, sheets), they are read. Quick where they are: a
    Parquet file says it, of others line breaks outside of quotes are counted, and a large sheet's is guessed.
    """
    file = folder.catalog
    with opened(file) as first:
        try:
            source, _ = unpacked(first)
            head = source.read(HEAD_BYTES)
            source.seek(0)
            if head.startswith(b"PAR1") or settings.format == "parquet":
                return parquet_rows(file)
            if head.startswith(b"PK") and file.stat().st_size > LARGE_SHEET:
                return file.stat().st_size // SHEET_ROW_BYTES
            with opened(file) as again:
                found: list[Problem] = []
                table = read_table(again, file, settings, found.append)
                kind = kind_of(head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe"))
                listed = kind == "jsonl" and list_start(head) >= 0
                above = any(problem.kind in ("rows above", "repeated header") for problem in found)
                shaped = listed or above or table.own_attributes or GROUP in table.names
                if head.startswith(b"PK") or kind == "xml" or shaped:
                    return sum(1 for _ in table.rows)
            return _count_lines(source, quotes=kind == "csv")
        except GUNZIP_ERRORS as error:
            raise DataError(f"{file}: damaged gzip file: {clipped(str(error))}", "export it again") from error


def _count_lines(source: BinaryIO, *, quotes: bool) -> int:
    every, lines, quoted, last = 0, 0, False, b"\n"
    while chunk := source.read(COUNT_CHUNK):
        every += chunk.count(b"\n")
        if quotes:
            parts = chunk.split(b'"')
            lines += sum(part.count(b"\n") for part in parts[int(quoted) :: 2])
            quoted ^= len(parts) % 2 == 0
        last = chunk[-1:]
    lines = lines if quotes and not quoted else every  # an odd number of quotes: they are no quotes, but inches
    return max(0, lines + (last != b"\n") - (1 if quotes else 0))
