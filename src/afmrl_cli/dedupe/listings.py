"""What is compared of the listings: text, codes, attributes, prices, photos, vectors, in columns over all listings.

Rows are numbers from 0 in the catalog's order. A key of the retailer's own columns is a code when its name says so
(mpn, ean, ...), a price when it says that, and an attribute when its values repeat: what is another one in nearly
every row (links, numbers, free text) says nothing about being the same. Generated attributes stand beside them under
their own keys; where both have a key, the retailer's value counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import read_stored
from ..attributes.views import open_views, text_to_show
from ..catalog.amounts import read_price
from ..catalog.fingerprints import UNREADABLE
from ..catalog.name_forms import plain
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import count_rows, read_products
from ..workspace import Workspace
from .variants import facts_of

_CODES = (
    "mpn gtin gtin13 gtin_13 ean ean13 ean_13 ean_code upc barcode isbn model_number model_no part_number part_no "
    "manufacturer_part_number manufacturer_sku herstellernummer article_number artikelnummer"
)
CODES = frozenset(_CODES.split())
PRICES = ("sale_price", "price", "preis", "prix", "precio", "pris", "regular_price")
MOST_PHOTOS = 4
LONGEST_VALUE = 60
REPEATS = 2.0
"""Filled cells for each different value, from which a column describes rather than numbers its rows."""
EVERY = 1000


@dataclass(frozen=True)
class ListingColumns:
    """Columns over n listings; `photos` are content hashes, at most MOST_PHOTOS each, `photo_paths` where they lie."""

    products: list[Product]
    photos: list[tuple[str, ...]]
    photo_paths: dict[str, Path]
    attributes: dict[str, list[str]]
    """key -> value of each listing, "" for none."""
    codes: list[frozenset[str]]
    """Of the columns that hold codes, as `KEY=value`."""
    prices: NDArray[np.float64]
    """NaN where there is none."""
    facts: list[frozenset[str]]
    """Sizes and colours, as `kind=value`."""

    def __len__(self) -> int:
        return len(self.products)


def load_listings(work: Workspace, problems: Problems) -> ListingColumns:
    """Read the whole catalog, with the stored attributes where any were ever generated here."""
    products: list[Product] = []
    photos: list[tuple[str, ...]] = []
    paths: dict[str, Path] = {}
    total = count_rows(work.folder, work.settings.catalog)
    with open_views(work, None) as views:
        for product in read_products(work.folder, work.settings.catalog, problems):
            products.append(product)
            hashes = [(views.fingerprinter.hash_of(path), path) for path in product.images[:MOST_PHOTOS]]
            paths.update((content, path) for content, path in hashes if content != UNREADABLE)
            photos.append(tuple(dict.fromkeys(content for content, _ in hashes if content != UNREADABLE)))
            if len(products) % EVERY == 0:
                work.listener.progress("reading", len(products), total)
        generated: list[dict[str, str]] = [{}] * len(products)
        if views.database.attribute_sources() and work.source_on_disk is not None:
            views.source = work.source_on_disk
            generated = [read_stored(text_to_show(row)) for _, _, row in views.stored(products)]
    return ListingColumns(
        products,
        photos,
        paths,
        describe(products, generated),
        [_codes(product.given) for product in products],
        np.array([_price(product.given) for product in products], dtype=np.float64),
        [facts_of(product, pairs) for product, pairs in zip(products, generated, strict=True)],
    )


def describe(products: Sequence[Product], generated: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return attributes by key: the retailer's columns that describe, brand and category, and generated attributes."""
    rows: list[dict[str, str]] = []
    for product, pairs in zip(products, generated, strict=True):
        row = {plain(key): value for key, value in pairs.items()}
        row |= {plain(key): value for key, value in product.given.items() if len(value) <= LONGEST_VALUE}
        row |= {"brand": product.brand, "category": product.category}
        rows.append({key: _folded(value) for key, value in row.items() if value.strip()})
    filled = Counter(key for row in rows for key in row)
    different = Counter(key for key, _ in {pair for row in rows for pair in row.items()})
    keys = [
        key
        for key in sorted(filled)
        if filled[key] >= REPEATS * different[key] and not is_code(key) and key not in PRICES and different[key] > 1
    ]
    return {key: [row.get(key, "") for row in rows] for key in keys}


def is_code(key: str) -> bool:
    """Check whether a column of this name numbers products: MPN, EAN, ..."""
    return plain(key) in CODES


def _folded(value: str) -> str:
    return " ".join(value.casefold().split())


def _codes(given: Mapping[str, str]) -> frozenset[str]:
    found = ((plain(key), re.sub(r"[\W_]+", "", value).lower().lstrip("0")) for key, value in given.items())
    return frozenset(f"{key}={code}" for key, code in found if key in CODES and len(code) >= 4)


def _price(given: Mapping[str, str]) -> float:
    by_key = {plain(key): value for key, value in given.items()}
    return next((price for key in PRICES if (price := read_price(by_key.get(key, ""))) > 0), np.nan)
