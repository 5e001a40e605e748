"""Google Merchant Center feeds (TSV and XML, after Google's product data specification).

Columns have names that every catalog may have (`item_group_id`, `additional_image_link`, ...; see columns.py). What is
Google's own: `gtin` is the identity, and without one `brand` and `mpn` together, as Google identifies products; a
category is the shop's `product_type`, else `google_product_category`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..name_forms import plain
from ..table import Row, Rows, Table, one_text

MARKS = {"id", "title"}
ONE_OF = {"image_link", "additional_image_link", "google_product_category", "item_group_id", "availability", "mpn"}


def is_google(names: Sequence[str]) -> bool:
    """Tell whether a table with these columns is a Merchant Center feed."""
    known = {plain(name) for name in names}
    return known >= MARKS and len(known & ONE_OF) > 1


def google_layout(table: Table) -> Table:
    """Return `table` with empty cells of `gtin` filled by brand and MPN, and of `product_type` by Google's category, if
    that is a name and no number.
    """
    at = {plain(name): i for i, name in enumerate(table.names)}
    names = table.names if "gtin" in at else (*table.names, "gtin")
    gtin = at.get("gtin", len(table.names))

    def rows() -> Rows:
        """Yield the rows, one after the other."""
        for number, cells, more in table.rows:
            filled = list(cells) + [""] * (len(names) - len(cells))
            brand, mpn = (one_text(filled[at[name]]) if name in at else "" for name in ("brand", "mpn"))
            if brand and mpn and not one_text(filled[gtin]):
                filled[gtin] = f"{brand} {mpn}"
            if "product_type" in at and "google_product_category" in at and not filled[at["product_type"]]:
                named = one_text(filled[at["google_product_category"]])
                filled[at["product_type"]] = "" if named.isdecimal() else named
            yield Row(number, filled, more)

    return Table(names, rows(), "google", own_attributes=table.own_attributes)
