"""A retailer's file as a stream of Products, in the file's order; what can't be used is reported with its row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..settings import CatalogSettings
from ..store.folder import CatalogFolder
from .columns import JOINERS, ColumnMap, map_columns
from .images import ImagePaths, ImageProblem, image_cells
from .problems import Kind, Problem, Problems, clipped
from .product import Product
from .tables import Cell, Rows, read_table

COUNT_CHUNK = 1 << 20
LIST_JOINER = "|"
"""Between the parts of a list from JSONL or Parquet in `Product.given`."""


@dataclass(frozen=True)
class Catalog:
    """An open catalog: what its columns are, and its products, which can be gone through once."""

    columns: ColumnMap
    products: Iterator[Product]


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
def open_catalog(folder: CatalogFolder, settings: CatalogSettings, problems: Problems) -> Iterator[Catalog]:
    """Open the catalog and find out what its columns are; the products can be read inside the block. Errors as in
    `read_products`, but no products are no error."""
    file = folder.catalog

    def report(problem: Problem) -> None:
        problems.report(problem, settings.bad_rows, file)

    with _opened(file) as source:
        table = read_table(source, file, settings, report)
        if not table.names:
            raise no_products(file, problems)
        columns = map_columns(table.names, settings.columns, file)
        for i, name in enumerate(table.names):
            if not name:
                problems.add(Problem("unnamed column", 1, f"column {i + 1} has no name and is not read"))
        yield Catalog(columns, _products(table.rows, columns, folder, settings, problems))


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        source = file.open("rb")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file", "give the catalog's file, such as catalog.csv") from None
    with source:
        yield source


def _products(
    rows: Rows, columns: ColumnMap, folder: CatalogFolder, settings: CatalogSettings, problems: Problems
) -> Iterator[Product]:
    seen = SeenIds()
    paths = ImagePaths(folder.root, settings)

    def bad(kind: Kind, row: int, message: str, listing: str = "") -> None:
        problems.report(Problem(kind, row, message, listing=listing), settings.bad_rows, folder.catalog)

    def lost(problem: Problem) -> None:
        problems.report(problem, settings.bad_images, folder.catalog)

    for row, cells in rows:
        listing = _text("id", cells, columns)
        if not listing:
            if any(map(_one, cells)):
                bad("no id", row, "the id is empty")
            else:
                bad("empty row", row, "nothing in it")
            continue
        if first := seen.add(listing, row):
            bad("duplicate id", row, f"row {first} has the same id", listing)
            continue
        product = Product(
            id=listing,
            title=_text("title", cells, columns),
            description=_text("description", cells, columns),
            category=_text("category", cells, columns),
            brand=_text("brand", cells, columns),
            images=_images(cells, columns, listing, row, paths, settings.image_separator, lost),
            given={key: text for i, key in columns.given if (text := _one(cells[i]))},
            product_id=_text("product_id", cells, columns) or None,
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
) -> tuple[Path, ...]:
    found: dict[Path, None] = {}  # keeps the order, drops repetitions
    for i in columns.roles.get("image", ()):
        cell = cells[i]
        for name in image_cells(cell.strip(), separator) if isinstance(cell, str) else cell:
            try:
                found[paths.find(name)] = None
            except ImageProblem as problem:
                message = f"{clipped(name, 80)}: {problem.reason}"
                lost(Problem(problem.kind, row, message, columns.names[i], listing))
    return tuple(found)


def _one(cell: Cell) -> str:
    return cell.strip() if isinstance(cell, str) else LIST_JOINER.join(cell)


def _text(role: str, cells: Sequence[Cell], columns: ColumnMap) -> str:
    positions = columns.roles.get(role, ())
    if len(positions) == 1:
        return _one(cells[positions[0]])
    return JOINERS.get(role, "-").join(text for i in positions if (text := _one(cells[i])))


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


def count_rows(folder: CatalogFolder, settings: CatalogSettings) -> int:
    """About how many products the catalog has, for progress: rows after the header, bad ones and all.

    Quick: a Parquet file says it, other files have their line breaks outside of quotes counted.
    """
    file = folder.catalog
    if file.suffix.lower() == ".parquet":
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            return int(ParquetFile(file).metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a Parquet file, or damaged", "export it again") from error
    jsonl = file.suffix.lower() == ".jsonl"
    lines, quoted, last = 0, False, b"\n"
    with _opened(file) as source:
        while chunk := source.read(COUNT_CHUNK):
            if jsonl:
                lines += chunk.count(b"\n")
            else:
                parts = chunk.split(b'"')
                lines += sum(part.count(b"\n") for part in parts[int(quoted) :: 2])
                quoted ^= len(parts) % 2 == 0
            last = chunk[-1:]
    return max(0, lines + (last != b"\n") - (0 if jsonl else 1))
