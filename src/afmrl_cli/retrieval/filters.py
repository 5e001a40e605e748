"""`key=value` filters over listings, for `afmrl search --filter` and `afmrl eval --gallery`.

A key is id, brand, category, product_id, group_id or one of the retailer's own columns (`color` and `attr_color`
alike), whatever its case. Values are compared without case: the category by its beginning (`Women` holds `Women/Tops`),
all else as a whole, where a cell that lists several values (`Mesh|Nylon`) holds each of them. Values of one key are
alternatives; different keys must all hold.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from ..catalog.product import Product
from ..errors import UsageError

Filters = Mapping[str, Sequence[str]]
LIST_SEPARATOR = "|"


def parse_filters(written: Iterable[str], flag: str) -> dict[str, list[str]]:
    """Parse filters: `["brand=Luma", "brand=Acme"]` -> {"brand": ["luma", "acme"]}; UsageError naming `flag` for
    anything else.
    """
    filters: dict[str, list[str]] = {}
    for pair in written:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"{flag} {pair}: not of the form key=value", f"for example {flag} brand=Luma")
        filters.setdefault(field_name(key), []).append(value.strip().casefold())
    return filters


def fields_of(product: Product) -> dict[str, str]:
    """Return what a listing can be filtered by; the retailer's own columns never hide the standard ones."""
    fields = {field_name(key): value for key, value in product.given.items()}
    fields |= {"id": product.id, "brand": product.brand, "category": product.category}
    fields |= {"product_id": product.product_id or "", "group_id": product.group_id or ""}
    return fields


def passes(fields: Mapping[str, str], filters: Filters) -> bool:
    """Check whether a listing with these fields (of `fields_of`) passes all filters."""
    return all(_holds(key, fields.get(key, ""), wanted) for key, wanted in filters.items())


def check_keys(filters: Filters, known: Iterable[str], flag: str) -> None:
    """Raise UsageError when a filter's key is no field of any listing; `known` are the keys that occur."""
    names = sorted(known)
    for key in filters:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names[:20])}"
            raise UsageError(f"{flag} {key}=...: the catalog has no column {key}", hint)


def field_name(key: str) -> str:
    """Return what a column is called in filters and labels."""
    return key.strip().casefold().removeprefix("attr_")


def _holds(key: str, value: str, wanted: Sequence[str]) -> bool:
    value = value.strip().casefold()
    if key == "category":
        return any(value.startswith(prefix) for prefix in wanted)
    return value in wanted or any(part.strip() in wanted for part in value.split(LIST_SEPARATOR))
