"""A listing as a point of the index: its number, its print, and what is stored beside its vector.

    number     the first 63 bits of SHA-256 of the listing's id; the point's id
    print      the first 63 bits of SHA-256 of all that the point holds: the same print, nothing to send
    tags       "key=value" in lower case, of each cell and of each part of one that lists several
    numbers    by key and unit, the numbers of the cells: what a bound compares

Tags and numbers are made so that a filter in the engine lets through what `retrieval.filters` lets through. Departures:
a bound does not see numbers in cells of more than LONGEST_AMOUNT characters, nor in ids, brands and categories.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attributes.schema import folded
from ..catalog.amounts import read_amount
from ..errors import DataError
from ..retrieval.filters import LIST_SEPARATOR, is_price
from ..retrieval.lexicon import attribute_pairs
from ..retrieval.listings import Listing, row_bytes

TAGS, NUMBERS, PRINT = "tags", "numbers", "print"
CATEGORY = "category"
LONGEST_TAG, LONGEST_AMOUNT = 200, 40
NO_AMOUNTS = frozenset(("id", "product_id", "group_id", "brand", CATEGORY))
KNOWN_CELLS, LONGEST_CELL = 20, 40
"""Of each key as many cells are remembered, for "did you mean"."""
_PLAIN = re.compile(r"(?!.*__)[a-z0-9_]+")
Numbers = NDArray[np.uint64]


def number_of(id: str) -> int:
    """Return the number of the listing with this id."""
    return int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def numbers_of(ids: Iterable[str]) -> Numbers:
    """Return the numbers of listings [n]. DataError for two listings of one number."""
    numbers = np.fromiter(map(number_of, ids), dtype=np.uint64)
    if len(np.unique(numbers)) < len(numbers):
        raise DataError("two listings have the same number in the index", "one of their ids has to change")
    return numbers


def print_of(listing: Listing, attributes: str, vector: NDArray[Any]) -> int:
    """Return the print of a listing with its attribute text and its vector [d] as it is stored."""
    whole = hashlib.sha256(f"{vector.dtype.str}\n{len(attributes)}\n{attributes}\n".encode("utf-8", "surrogatepass"))
    whole.update(vector.tobytes())
    whole.update(row_bytes(listing))
    return int.from_bytes(whole.digest()[:8], "big") >> 1


def cells_of(fields: Mapping[str, str], attributes: str) -> dict[str, str]:
    """Return what a listing can be filtered by: its filled fields, and of generated attributes those whose keys have no
    filled field.
    """
    cells = {key: cell for key, value in fields.items() if (cell := value.strip())}
    written: dict[str, list[str]] = {}
    for key, value in attribute_pairs(attributes):
        written.setdefault(folded(key), []).append(value)
    return {key: LIST_SEPARATOR.join(values) for key, values in written.items()} | cells


def tag(key: str, value: str) -> str:
    """Return the tag of a value in lower case; long ones are hashed, but those of categories, which are found by their
    beginning.
    """
    if len(value) > LONGEST_TAG and key != CATEGORY:
        value = "#" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{key}={value}"


def tags_of(cells: Mapping[str, str]) -> list[str]:
    """Return the tags of a listing's cells."""
    found: dict[str, None] = {}
    for key, cell in cells.items():
        whole = cell.casefold()
        found[tag(key, whole)] = None
        if key != CATEGORY and LIST_SEPARATOR in whole:
            found |= {tag(key, part): None for part in map(str.strip, whole.split(LIST_SEPARATOR)) if part}
    return list(found)


@functools.lru_cache(maxsize=1 << 16)
def amounts_of(key: str, cell: str) -> tuple[tuple[str, float], ...]:
    """Return units and numbers of a cell, () for none."""
    if key in NO_AMOUNTS or len(cell) > LONGEST_AMOUNT:
        return ()
    read = (read_amount(part, price=is_price(key)) for part in cell.split(LIST_SEPARATOR))
    return tuple((unit, number) for number, unit in read if not math.isnan(number))


def number_field(key: str, unit: str) -> str:
    """Return the name under NUMBERS of the numbers of a key in a unit, which may hold any characters."""
    name = f"{key}__{unit}" if unit else key
    if _PLAIN.fullmatch(key) and (not unit or _PLAIN.fullmatch(unit)):
        return name
    return "x" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def payload_of(listing: Listing, attributes: str, print_: int) -> dict[str, Any]:
    """Return what is stored beside a listing's vector."""
    fields: dict[str, str] = json.loads(listing.fields)
    cells, numbers = cells_of(fields, attributes), dict[str, list[float]]()
    for key, cell in cells.items():
        for unit, number in amounts_of(key, cell):
            numbers.setdefault(number_field(key, unit), []).append(number)
    return {
        "id": listing.id,
        PRINT: f"{print_:016x}",
        "title": listing.title,
        "text": listing.text,
        "images": listing.images,
        "attributes": attributes,
        "fields": {key: value for key, value in fields.items() if value.strip()},
        TAGS: tags_of(cells),
        NUMBERS: numbers,
    }


def listing_of(payload: Mapping[str, Any]) -> tuple[Listing, str]:
    """Return the listing that a point stands for, and its attribute text; KeyError or TypeError where the payload is
    none of ours.
    """
    fields = {str(key): str(value) for key, value in payload["fields"].items()}
    images = [str(name) for name in payload["images"]]
    id, title, text = (str(payload[name]) for name in ("id", "title", "text"))
    return Listing(id, "", "", "", title, text, images, json.dumps(fields)), str(payload["attributes"])


@dataclass
class Key:
    """What is known of one key of an index: some of its `cells`, and a cell of each unit (`examples`)."""

    cells: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)
    filled: int = 0
    """Listings with a number."""

    def see(self, key: str, cell: str) -> None:
        """Take note of a cell."""
        if len(self.cells) < KNOWN_CELLS and len(cell) <= LONGEST_CELL and cell not in self.cells:
            self.cells.append(cell)
        amounts = amounts_of(key, cell)
        self.filled += bool(amounts)
        for unit, _ in amounts:
            if unit not in self.examples:
                self.examples[unit] = cell
