"""`key=value`, `price<100` and `price>=20` over listings, for `afmrl search --filter` and `afmrl eval --gallery`.

A key is id, brand, category, product_id, group_id or one of the retailer's own columns (`color` and `attr_color`
alike), whatever its case. Values are compared without case: the category by its beginning (`Women` holds `Women/Tops`),
all else as a whole, where a cell that lists several values (`Mesh|Nylon`) holds each of them. Values of one key are
alternatives; different keys must all hold, and so must all bounds. `price` is what is shown as the price, where no
column is called so.

A bound compares numbers (`catalog.amounts`) of one unit: `weight<2kg` lets no `900 g` through, and `weight<2` is an
error where the cells are of several units.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..catalog.amounts import read_amount
from ..catalog.product import Product
from ..errors import UsageError

LIST_SEPARATOR = "|"
PRICE = "price"
PRICES = ("sale_price", "price", "preis", "prix", "precio", "pris", "regular_price", "variant_price")
"""Columns in which shops give it, the first that is filled counts."""
UNITS_NAMED = 6
KNOWN_NAMED = 20
VALUES_NAMED = 8
MOST_COMPARED = 50_000
_FORM = re.compile(r"([^<>=]+)(<=|>=|<|>|=)(.*)", re.DOTALL)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number must be: `sign` is <, <=, > or >=; of `unit` in lower case ("": of the one that the cells have)."""

    sign: str
    number: float
    unit: str = ""

    def holds(self, key: str, cell: str) -> bool:
        """Check whether a cell, or one of the values that it lists, is a number within the bound."""
        return any(self._holds(*read_amount(part, price=is_price(key))) for part in cell.split(LIST_SEPARATOR))

    def _holds(self, number: float, unit: str) -> bool:
        same = not self.unit or unit == self.unit
        return same and not math.isnan(number) and _SIGNS[self.sign](number, self.number)


Wanted = str | Bound
Filters = Mapping[str, Sequence[Wanted]]


def parse_filters(written: Iterable[str], flag: str) -> dict[str, list[Wanted]]:
    """Parse filters: `["brand=Luma", "price<100"]` -> {"brand": ["luma"], "price": [Bound("<", 100)]}; UsageError
    naming `flag` for anything else.
    """
    filters: dict[str, list[Wanted]] = {}
    for pair in written:
        found = _FORM.fullmatch(pair.strip())
        key, sign, value = (part.strip() for part in found.groups()) if found else ("", "", "")
        if not key or not value:
            raise UsageError(f"{flag} {pair}: not of the form key=value", f"for example {flag} brand=Luma")
        filters.setdefault(field_name(key), []).append(
            value.casefold() if sign == "=" else _bound(pair, key, sign, value, flag)
        )
    return filters


def _bound(pair: str, key: str, sign: str, value: str, flag: str) -> Bound:
    number, unit = read_amount(value, price=is_price(field_name(key)))
    if math.isnan(number):
        raise UsageError(f"{flag} {pair}: {value} is no number", f"for example {flag} 'price<100'")
    return Bound(sign, number, unit)


def fields_of(product: Product) -> dict[str, str]:
    """Return what a listing can be filtered by; the retailer's own columns never hide the standard ones."""
    fields = {field_name(key): value for key, value in product.given.items()}
    fields |= {"id": product.id, "brand": product.brand, "category": product.category}
    fields |= {"product_id": product.product_id or "", "group_id": product.group_id or ""}
    return fields


def passes(fields: Mapping[str, str], filters: Filters) -> bool:
    """Check whether a listing with these fields (of `fields_of`) passes all filters."""
    return all(holds(key, fields.get(key, ""), wanted) for key, wanted in filters.items())


def holds(key: str, cell: str, wanted: Sequence[Wanted]) -> bool:
    """Check whether a cell passes what is `wanted` of its key: one of the values, and all of the bounds."""
    values = [each for each in wanted if isinstance(each, str)]
    bounds = [each for each in wanted if isinstance(each, Bound)]
    return (not values or has_one(key, cell, values)) and all(bound.holds(key, cell) for bound in bounds)


def has_one(key: str, cell: str, values: Sequence[str]) -> bool:
    """Check whether a cell is, or lists, one of the `values`, which are in lower case."""
    cell = cell.strip().casefold()
    if key == "category":
        return any(cell.startswith(prefix) for prefix in values)
    return cell in values or any(part.strip() in values for part in cell.split(LIST_SEPARATOR))


def known_filters(filters: Filters, known: Iterable[str], flag: str) -> Filters:
    """Return `filters` by the keys that occur, `known`: `price` is another one where shops call it otherwise. Raises
    UsageError when a key is no field of any listing.
    """
    names = sorted(known)
    price = next((name for name in PRICES if name in names), PRICE)
    filters = {price if key == PRICE and key not in names else key: wanted for key, wanted in filters.items()}
    for key in filters:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names[:KNOWN_NAMED])}"
            raise UsageError(f"{flag} {key}=...: the catalog has no column {key}", hint)
    return filters


def near_values(wanted: str, values: Iterable[str]) -> str:
    """Return what to say of a value that no listing has: which it may have meant, else which there are."""
    spelled = {value.strip().casefold(): value.strip() for cell in values for value in cell.split(LIST_SEPARATOR)}
    spelled.pop("", None)
    close = difflib.get_close_matches(wanted, list(spelled)[:MOST_COMPARED], n=2, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(spelled[each] for each in close)}?"
    return f"there are {', '.join(list(spelled.values())[:VALUES_NAMED])}" if spelled else "the column is empty"


def check_units(key: str, wanted: Sequence[Wanted], cells: Iterable[str], flag: str) -> None:
    """Raise UsageError for a bound without a unit over cells of several, and for one that no cell has."""
    bounds = [each for each in wanted if isinstance(each, Bound)]
    if not bounds:
        return
    parts = (part for cell in cells for part in cell.split(LIST_SEPARATOR))
    amounts = (read_amount(part, price=is_price(key)) for part in parts)
    units = list(dict.fromkeys(unit for number, unit in amounts if not math.isnan(number)))
    if not units:
        raise UsageError(f"{flag} {key}{bounds[0].sign}...: the column {key} holds no numbers", "filter by a value")
    named = ", ".join(unit or "no unit" for unit in units[:UNITS_NAMED])
    for bound in bounds:
        written = f"{flag} {key}{bound.sign}{bound.number:g}{bound.unit}"
        if not bound.unit and len(units) > 1:
            example = f"{flag} '{key}{bound.sign}{bound.number:g}{next(filter(None, units))}'"
            raise UsageError(f"{written}: the column {key} is in several units: {named}", f"name one: {example}")
        if bound.unit and bound.unit not in units:
            raise UsageError(f"{written}: no {key} is in {bound.unit}", f"there are: {named}")


def field_name(key: str) -> str:
    """Return what a column is called in filters and labels."""
    return key.strip().casefold().removeprefix("attr_")


def is_price(key: str) -> bool:
    """Tell whether a column of this name holds prices."""
    return key in PRICES or key.endswith("price")
