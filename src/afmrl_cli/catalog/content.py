"""What a column holds, by its cells: photos, GTINs, long text, prices, paths of categories, numbers, titles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from .codes import code, is_gtin
from .gaps import is_gap
from .photo_cells import image_cells, is_photo
from .table import Row, one_text

SAMPLE_ROWS = 500
"""Rows by which columns are recognised: the same for every command, so that all agree."""
MOST_CHARS = 5000
"""Characters of a cell that are read."""
MOST = 0.8
"""Share of a column's cells that must be of one kind."""
LONG_CHARS = 80
PATH = re.compile(r"[^<>/|:]{2,40}\s*(?:>|/|\|)\s*[^>/|]{2,40}.*")
PRICE = re.compile(r"(?:[$€£¥₹]|[A-Z]{2,3}|kr\.?|zł)?\s*-?\d{1,3}(?:[., \u00a0']?\d{3})*(?:[.,]\d{1,4})?\s*"
                   r"(?:[$€£¥₹]|[A-Z]{2,3}|kr\.?|zł)?", re.IGNORECASE)  # fmt: skip
LINK = re.compile(r"(https?:)?//\S+|www\.\S+", re.IGNORECASE)
DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ].*)?")


@dataclass(frozen=True)
class Sample:
    """The first rows of a table: for each column its cells that are no gaps."""

    rows: int
    cells: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, width: int, rows: Sequence[Row]) -> Sample:
        """Return the sample of `rows`, of which at most SAMPLE_ROWS are read."""
        columns: list[list[str]] = [[] for _ in range(width)]
        count = 0
        for row in islice(rows, SAMPLE_ROWS):
            count += 1
            for column, cell in zip(columns, row.cells, strict=True):
                if (text := one_text(cell)) and not is_gap(text):
                    column.append(text[:MOST_CHARS])
        return cls(count, tuple(map(tuple, columns)))

    def empty(self, i: int) -> bool:
        """Tell whether column `i` holds nothing in these rows; no rows, no judgement."""
        return self.rows > 0 and not self.cells[i]

    def filled(self, i: int) -> bool:
        """Tell whether column `i` holds something in half of the rows."""
        return len(self.cells[i]) >= max(1, self.rows // 2)


def share(cells: Sequence[str], test: Callable[[str], object]) -> float:
    """Return the share of `cells` that pass `test`; 0 of none."""
    return sum(bool(test(cell)) for cell in cells) / max(1, len(cells))


def are_photos(cells: Sequence[str]) -> bool:
    """Tell whether they are file names of photos, or links that seem to lead to some."""
    return bool(cells) and share(cells, _is_photo) >= MOST


def _is_photo(cell: str) -> bool:
    parts = image_cells(cell, "")
    return bool(parts) and is_photo(parts[0])


def are_gtins(cells: Sequence[str]) -> bool:
    """Tell whether they are numbers with a GTIN's length and check digit."""
    return bool(cells) and share(cells, lambda cell: is_gtin(code(cell))) >= MOST


def are_long(cells: Sequence[str]) -> bool:
    """Tell whether they are texts of some eighty characters and more, and not always the same few."""
    if not cells or share(cells, lambda cell: LINK.match(cell) or cell[:1] in "[{") > 1 - MOST:
        return False
    return sum(map(len, cells)) / len(cells) > LONG_CHARS and len(set(cells)) > len(cells) / 4


def are_sentences(cells: Sequence[str]) -> bool:
    """Tell whether they are texts of three words and more, or eight letters of a script without blanks; not always the
    same few.
    """
    words = sum(len(cell.split()) for cell in cells) / max(1, len(cells))
    together = share(cells, lambda cell: len(cell) > 7 and max(cell) > "\u3000") >= MOST
    return (words >= 3 or together) and len(set(cells)) > len(cells) / 4 and share(cells, LINK.match) == 0


def are_titles(cells: Sequence[str]) -> bool:
    """Tell whether they are short texts of two words and more; a name may stand in several rows, as variants
    share it.
    """
    words = sum(len(cell.split()) for cell in cells) / max(1, len(cells))
    worded = share(cells, lambda cell: any(char.isalpha() for char in cell) and not LINK.match(cell))
    return 1.5 <= words <= 25 and worded >= MOST and len(set(cells)) >= max(2, len(cells) / 4)


def are_paths(cells: Sequence[str]) -> bool:
    """Tell whether they are paths of categories: the same ones again and again."""
    paths = share(
        cells,
        lambda cell: (
            PATH.fullmatch(cell) and not LINK.match(cell) and not DATE.match(cell) and not cell.startswith("<")
        ),
    )
    return paths >= MOST and len(set(cells)) <= len(cells) / 2


def are_prices(cells: Sequence[str]) -> bool:
    """Tell whether they are amounts of money, or other plain numbers."""
    return bool(cells) and share(cells, PRICE.fullmatch) >= MOST


def are_ids(cells: Sequence[str], rows: int) -> bool:
    """Tell whether they are short words without blanks, most with a digit, another one in each row, and no prices,
    dates or links.
    """
    if len(cells) < rows or len(set(cells)) < len(cells) or max(map(len, cells), default=99) > 40:
        return False
    if share(cells, lambda cell: any(char.isdigit() for char in cell)) < 0.5:
        return False
    odd = share(
        cells, lambda cell: " " in cell or LINK.match(cell) or DATE.fullmatch(cell) or "." in cell or "," in cell
    )
    return odd == 0


KINDS: dict[str, Callable[[Sequence[str]], bool]] = {
    "links or paths of photos": are_photos,
    "GTINs": are_gtins,
    "long text": are_long,
}
"""What no column should hold that nothing reads; the role that would read it is `ROLE_OF`."""
ROLE_OF = {"links or paths of photos": "image", "GTINs": "product_id", "long text": "description"}


def kind_of(cells: Sequence[str]) -> str:
    """Return which of KINDS a column holds, "" for none."""
    return next((kind for kind, test in KINDS.items() if test(cells)), "")
