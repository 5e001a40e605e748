"""A retailer's file as a stream of Products, in the file's order; what can't be used is reported with its row."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..settings import CatalogSettings
from ..store.folder import CatalogFolder
from .bounds import bounded
from .columns import JOINERS, ColumnMap, map_columns, rivals
from .detect import kind_of, read_table
from .encodings import GUNZIP_ERRORS, unpacked
from .images import LINK, ImagePaths, ImageProblem, image_cells
from .markup import plain_text
from .named_photos import NamedPhotos
from .problems import Kind, Problem, Problems, clipped
from .product import Product
from .table import Cell, Rows, one_text

COUNT_CHUNK = 1 << 20
FIRST_ROWS = 100
"""Rows that tell an empty column from a filled one where both could be meant."""
OnLink = Callable[[str, int, str, str], None]
SHEET_ROW_BYTES = 100
"""Of a workbook, packed, for a row: about."""
ITEM_ENDS = (b"</item>", b"</entry>", b"</product>")
NO_IDENTITY = {"-", "0", "n/a", "na", "none", "null", "nan", "does not apply"}
"""What exports write where there is no GTIN."""
SCIENTIFIC = re.compile(r"\d[.,]?\d*[eE]\+?\d{1,2}")
"""A long number as Excel shows it, 4.00638E+12: many products share it."""


@dataclass(frozen=True)
class Catalog:
    """An open catalog: what its columns are, and its products, which can be gone through once."""

    columns: ColumnMap
    products: Iterator[Product]
    layout: str
    """Whose export it is (google, shopify, woocommerce), "" for a plain table."""


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
    """The error of a catalog without a usable product."""
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

    with _opened(file) as source, _unchanged(source, file):
        table = bounded(read_table(source, file, settings, report), file)
        if not table.names:
            raise no_products(file, problems)
        first = list(islice(table.rows, FIRST_ROWS)) if rivals(table.names, settings.columns) else []
        empty = {i for i in range(len(table.names)) if first and not any(one_text(row.cells[i]) for row in first)}
        columns = map_columns(table.names, settings.columns, file, empty)
        for i, name in enumerate(table.names):
            if not name:
                problems.add(Problem("unnamed column", 1, f"column {i + 1} has no name and is not read"))
        named = _named_photos(folder, settings, columns)
        rows = chain(first, table.rows)
        yield Catalog(columns, _products(rows, columns, folder, settings, problems, named, on_link), table.layout)


@contextmanager
def _unchanged(source: BinaryIO, file: Path) -> Iterator[None]:
    """DataError when somebody writes to the file while the block reads it: half of each would be read. A file that is
    renamed onto it changes nothing, this one is read to its end."""
    before = os.fstat(source.fileno())
    yield
    after = os.fstat(source.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        hint = "run the command again once the file is complete: what is done stays"
        raise DataError(f"{file}: was written to while it was read", hint)


def _named_photos(folder: CatalogFolder, settings: CatalogSettings, columns: ColumnMap) -> NamedPhotos | None:
    """Photos by their names, when the settings say so or the catalog has no column of photos."""
    if "image" in columns.roles and not settings.image_folder:
        return None

    def ids() -> Iterator[str]:
        with _opened(folder.catalog) as source:
            for row in read_table(source, folder.catalog, settings, lambda problem: None).rows:
                yield _text("id", row.cells, columns)

    return NamedPhotos.find(folder, settings, ids)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        source = file.open("rb")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file", "give the catalog's file, such as catalog.csv") from None
    with source:
        yield source


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
    paths = ImagePaths(folder.root, settings)

    def bad(kind: Kind, row: int, message: str, listing: str = "") -> None:
        problems.report(Problem(kind, row, message, listing=listing), settings.bad_rows, folder.catalog)

    def lost(problem: Problem) -> None:
        problems.report(problem, settings.bad_images, folder.catalog)

    for row, cells, more in rows:
        listing = _text("id", cells, columns)
        if not listing:
            if any(map(one_text, cells)):
                bad("no id", row, "the id is empty")
            else:
                bad("empty row", row, "nothing in it")
            continue
        if first := seen.add(listing, row):
            bad("duplicate id", row, f"row {first} has the same id", listing)
            continue
        images = _images(cells, columns, listing, row, paths, settings.image_separator, lost, on_link)
        given = {key: plain_text(text) for i, key in columns.given if (text := one_text(cells[i]))}
        product = Product(
            id=listing,
            title=plain_text(_text("title", cells, columns)),
            description=plain_text(_text("description", cells, columns)),
            category=plain_text(_text("category", cells, columns)),
            brand=plain_text(_text("brand", cells, columns)),
            images=(*images, *named.of(listing)) if named else images,
            given=given | {key: plain_text(text) for key, text in more.items()} if more else given,
            product_id=_identity(cells, columns, listing, row, bad),
            group_id=_text("group_id", cells, columns) or None,
            row=row,
        )
        if not (product.images or product.title or product.description or product.category or product.brand):
            bad("empty product", row, "no text and no usable photo", listing)
            continue
        yield product


def _images(
    cells: Sequence[Cell],
    columns: ColumnMap,
    listing: str,
    row: int,
    paths: ImagePaths,
    separator: str,
    lost: Callable[[Problem], None],
    on_link: OnLink | None,
) -> tuple[Path, ...]:
    found: dict[Path, None] = {}  # keeps the order, drops repetitions
    for i in columns.roles.get("image", ()):
        cell = cells[i]
        for name in image_cells(cell.strip(), separator) if isinstance(cell, str) else cell:
            if on_link and LINK.match(name):
                on_link(name, row, columns.names[i], listing)
            try:
                found[paths.find(name)] = None
            except ImageProblem as problem:
                message = f"{clipped(name, 80)}: {problem.reason}"
                lost(Problem(problem.kind, row, message, columns.names[i], listing))
    return tuple(found)


def _text(role: str, cells: Sequence[Cell], columns: ColumnMap) -> str:
    positions = columns.roles.get(role, ())
    if len(positions) == 1:
        return one_text(cells[positions[0]])
    return JOINERS.get(role, "-").join(text for i in positions if (text := one_text(cells[i])))


def _identity(
    cells: Sequence[Cell], columns: ColumnMap, listing: str, row: int, bad: Callable[[Kind, int, str, str], None]
) -> str | None:
    text = _text("product_id", cells, columns)
    if not text or text.lower() in NO_IDENTITY:
        return None
    if SCIENTIFIC.fullmatch(text):
        bad("lost digits", row, f"{text} is no identity: Excel has rounded it", listing)
        return None
    return text


class SeenIds:
    """Which ids have been seen, and in which row first, in 32 to 64 bytes an id.

    Ids are told apart by their 64-bit hash: two different ones among a million are taken for the same once in 37
    million catalogs. (A dict of strings would need some 150 bytes an id.)
    """

    def __init__(self) -> None:
        self._size = 1 << 12
        self._hashes = array("q", bytes(8 * self._size))
        self._rows = array("q", bytes(8 * self._size))  # 0: free
        self._count = 0

    def add(self, listing: str, row: int) -> int:
        """0 when `listing` is new, else the row that had it first."""
        if 2 * self._count >= self._size:
            self._grow()
        value = hash(listing)
        slot = self._slot(value)
        if self._rows[slot]:
            return self._rows[slot]
        self._hashes[slot], self._rows[slot] = value, row
        self._count += 1
        return 0

    def _slot(self, value: int) -> int:
        mask = self._size - 1
        slot = value & mask
        while self._rows[slot] and self._hashes[slot] != value:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        hashes, rows = self._hashes, self._rows
        self._size *= 2
        self._hashes, self._rows = array("q", bytes(8 * self._size)), array("q", bytes(8 * self._size))
        for value, row in zip(hashes, rows, strict=True):
            if row:
                slot = self._slot(value)
                self._hashes[slot], self._rows[slot] = value, row


def most_photos(folder: CatalogFolder, settings: CatalogSettings) -> int:
    """The largest number of photos that a listing of the catalog has; one pass over it, no photo is opened."""
    return max((len(product.images) for product in read_products(folder, settings, Problems())), default=0)


def count_rows(folder: CatalogFolder, settings: CatalogSettings) -> int:
    """About how many products the catalog has, for progress: rows after the header, bad ones and all.

    Quick: a Parquet file says it, a sheet's is guessed from its size, of others line breaks outside of quotes or the
    ends of a feed's items are counted.
    """
    file = folder.catalog
    with _opened(file) as opened:
        try:
            source, _ = unpacked(opened)
            head = source.read(512)
            source.seek(0)
            if head.startswith(b"PAR1") or settings.format == "parquet":
                return _parquet_rows(file)
            if head.startswith(b"PK"):
                return file.stat().st_size // SHEET_ROW_BYTES
            kind = kind_of(head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe"))
            return _count_items(source) if kind == "xml" else _count_lines(source, quotes=kind == "csv")
        except GUNZIP_ERRORS as error:
            raise DataError(f"{file}: damaged gzip file: {clipped(str(error))}", "export it again") from error


def _parquet_rows(file: Path) -> int:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return int(ParquetFile(file).metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise DataError(f"{file}: not a Parquet file, or damaged", "export it again") from error


def _count_items(source: BinaryIO) -> int:
    count, rest = 0, b""
    while chunk := source.read(COUNT_CHUNK):
        chunk = rest + chunk
        count += sum(chunk.count(end) for end in ITEM_ENDS)
        rest = chunk[1 - len(ITEM_ENDS[-1]) :]
    return count


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
