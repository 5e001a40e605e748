"""From a row's cells to a product; what can't be used is reported with row and column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..settings import CatalogSettings
from ..store.folder import CatalogFolder
from .categories import category_paths, deepest
from .codes import GTIN_LENGTHS, gtin, identity, lost_digits
from .columns import JOINERS, ColumnMap
from .gaps import filled
from .images import ImagePaths, ImageProblem
from .markup import plain_text
from .named_photos import NamedPhotos
from .photo_cells import LINK, image_cells
from .problems import Kind, Problem, Problems, clipped
from .product import Product
from .table import Cell, Row, one_text

OnLink = Callable[[str, int, str, str], None]


class ProductReader:
    """Makes products of the rows of one catalog."""

    def __init__(
        self,
        columns: ColumnMap,
        folder: CatalogFolder,
        settings: CatalogSettings,
        problems: Problems,
        named: NamedPhotos | None,
        on_link: OnLink | None,
    ) -> None:
        self._columns, self._settings, self._problems = columns, settings, problems
        self._file = folder.catalog
        self._named, self._on_link = named, on_link
        self._paths = ImagePaths(folder.root, settings)
        self._gtins = columns.gtins

    def bad(self, kind: Kind, row: int, message: str, listing: str = "") -> None:
        """Report what is wrong with a row; raises DataError when the settings call that fatal."""
        self._problems.report(Problem(kind, row, message, listing=listing), self._settings.bad_rows, self._file)

    def joined(self, role: str, row: Row) -> str:
        """Return the cells of `role` as they stand, joined."""
        return joined_text(role, row.cells, self._columns)

    def product(self, row: Row, listing: str) -> Product | None:
        """Return the product of `row`, whose id is `listing`; None, and reported, when there is nothing to see
        of it.
        """
        named_any, images = self._images(row, listing)
        category, given = self._category(row, listing), self._given(row, listing)
        product = Product(
            id=listing,
            title=self._text("title", row, listing),
            description=self._text("description", row, listing),
            category=category[0],
            brand=self._text("brand", row, listing),
            images=images if named_any or not self._named else tuple(self._named.of(listing)),
            given={**category[1], **given},
            product_id=self._identity(row, listing),
            group_id=filled(self.joined("group_id", row)) or None,
            row=row.number,
            text=tuple((key, given[key]) for key in self._columns.text if key in given),
        )
        if product.images or product.title or product.description or product.category or product.brand:
            return product
        self.bad("empty product", row.number, "no text and no usable photo", listing)
        return None

    def _value(self, text: str, row: int, column: str, listing: str) -> str:
        """Return `text` without HTML, "" (and reported) when it is a placeholder."""
        kept = filled(text)
        if len(kept) < len(text):
            self._problems.add(Problem("placeholder", row, f"{clipped(text, 40)!r} is no value", column, listing))
        return plain_text(kept)

    def _text(self, role: str, row: Row, listing: str) -> str:
        parts = [
            self._value(text, row.number, self._columns.names[i], listing)
            for i in self._columns.roles.get(role, ())
            if (text := one_text(row.cells[i]))
        ]
        return JOINERS[role].join(filter(None, parts))

    def _given(self, row: Row, listing: str) -> dict[str, str]:
        given = {}
        for i, key in self._columns.given:
            if text := one_text(row.cells[i]):
                given[key] = self._value(text, row.number, self._columns.names[i], listing)
        for key, text in row.more.items():
            given[key] = self._value(text, row.number, key, listing)
        return {key: text for key, text in given.items() if text}

    def _category(self, row: Row, listing: str) -> tuple[str, dict[str, str]]:
        """Return (the category, all of them under the column's name where there are several)."""
        positions = self._columns.roles.get("category", ())
        if len(positions) != 1:
            return self._text("category", row, listing), {}
        name, cell = self._columns.names[positions[0]], row.cells[positions[0]]
        paths = category_paths(cell)
        category = self._value(deepest(paths), row.number, name, listing)
        several = len(paths) > 1 and category != "|".join(paths)
        return category, {name: plain_text("|".join(paths))} if several else {}

    def _images(self, row: Row, listing: str) -> tuple[bool, tuple[Path, ...]]:
        """Return (whether the row names any photo, those that are there)."""
        found: dict[Path, None] = {}  # keeps the order, drops repetitions
        seen: set[str] = set()
        for i in self._columns.roles.get("image", ()):
            cell = row.cells[i]
            column = self._columns.names[i]
            parts = [cell] if isinstance(cell, str) else cell
            for name in (name for part in parts for name in image_cells(part, self._settings.image_separator)):
                if name in seen or not filled(name):
                    continue
                seen.add(name)
                if self._on_link and LINK.match(name):
                    self._on_link(name, row.number, column, listing)
                try:
                    found[self._paths.find(name)] = None
                except ImageProblem as problem:
                    message = f"{clipped(name, 80)}: {problem.reason}"
                    problem_of_photo = Problem(problem.kind, row.number, message, column, listing)
                    self._problems.report(problem_of_photo, self._settings.bad_images, self._file)
        return bool(seen), tuple(found)

    def _identity(self, row: Row, listing: str) -> str | None:
        written = self.joined("product_id", row)
        if not written:
            return None
        text = identity(written, gtins=self._gtins)
        column = ", ".join(self._columns.read_as("product_id"))
        if not text:
            message = f"{clipped(written, 40)!r} is no identity"
            self._problems.add(Problem("placeholder", row.number, message, column, listing))
        elif lost_digits(text, strict=False):
            self.bad("lost digits", row.number, f"{text} is no identity: a spreadsheet has rounded it", listing)
            return None
        elif self._gtins and text.isdecimal() and len(text) in GTIN_LENGTHS and not gtin(text):
            message = f"{text} is no GTIN by its last digit; it is an identity as it is"
            self._problems.add(Problem("wrong check digit", row.number, message, column, listing))
        return text or None


def joined_text(role: str, cells: Sequence[Cell], columns: ColumnMap) -> str:
    """Return the cells of `role`, joined as the role is."""
    positions = columns.roles.get(role, ())
    if len(positions) == 1:
        return one_text(cells[positions[0]])
    return JOINERS.get(role, "-").join(text for i in positions if (text := one_text(cells[i])))
