"""Which listing of the catalog a name in an order means: by id, SKU, product number, group, then title.

What is counted is always a listing. Where a name means several (a GTIN or a group that variants share), it is the
first of them by id. A title is asked only in order exports, whose lines may have no SKU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..catalog.codes import code, identity
from ..catalog.column_names import COMMON
from ..catalog.name_forms import plain
from ..catalog.product import Product

SKUS = frozenset(COMMON["id"])
"""Names of own columns that number listings, too, where another one is the id."""
VARIANT = " - "
"""Before the options in Shopify's `Lineitem name`."""


@dataclass
class ItemIndex:
    """Listings by their names, each table from name to id."""

    listings: int = 0
    tables: dict[str, dict[str, str]] = field(
        default_factory=lambda: {how: {} for how in ("id", "sku", "product_id", "group_id", "other case", "title")}
    )

    @classmethod
    def of(cls, products: Iterable[Product]) -> ItemIndex:
        """Return the index of `products`."""
        index = cls()
        sku_columns: dict[str, bool] = {}
        for product in products:
            index.listings += 1
            index._put("id", product.id, product.id)
            index._put("other case", product.id.casefold(), product.id)
            for key, value in product.given.items():
                if sku_columns.setdefault(key, plain(key) in SKUS):
                    index._put("sku", code(value), product.id)
            if product.product_id:
                index._put("product_id", product.product_id, product.id)
            if product.group_id:
                index._put("group_id", code(product.group_id), product.id)
            if product.title:
                index._put("title", _folded(product.title), product.id)
        return index

    def _put(self, how: str, name: str, listing: str) -> None:
        table = self.tables[how]
        if name and (name not in table or listing < table[name]):
            table[name] = listing

    def find(self, name: str, *, titles: bool = False) -> tuple[str, str] | None:
        """Return (listing, by what it was found); None where the catalog does not know the name."""
        for how, key in (
            ("id", name),
            ("sku", name),
            ("product_id", identity(name, gtins=False)),
            ("group_id", name),
            ("other case", name.casefold()),
        ):
            if listing := self.tables[how].get(key):
                return listing, how
        if titles:
            whole = _folded(name)
            table = self.tables["title"]
            if listing := table.get(whole) or table.get(whole.rpartition(VARIANT)[0]):
                return listing, "title"
        return None


def _folded(title: str) -> str:
    return " ".join(title.casefold().split())
