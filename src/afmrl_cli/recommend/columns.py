"""Which column of the interactions is what: by setting, by common names, and by what order exports are known by.

Shopify: `Name` numbers the orders, each row is one line of an order, and most of an order's fields stand in its first
row only. WooCommerce's plugins: a row for each line, or an order in one row with its lines in `line_item_1`, ...
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from ..catalog.content import Sample, share
from ..catalog.name_forms import forms, plain
from ..errors import DataError
from ..recommend_settings import InteractionColumns
from .column_names import EMAIL_FIRST, KNOWN
from .private import harmless, is_private_column, looks_private
from .times import UNREADABLE, Clock

CHOSEN = ("customer", "item", "time", "event", "quantity", "order", "status")
"""Roles that settings can name."""
ROLES = (*CHOSEN, "cancelled", "refunded")
NEEDED = ("customer", "item", "time")
SHOPIFY = {
    "order": ("name", "order_id"),
    "customer": ("email", "customer_id", "phone"),
    "item": ("lineitem_sku", "lineitem_name"),
    "time": ("created_at", "paid_at"),
    "quantity": ("lineitem_quantity",),
    "status": ("financial_status",),
    "cancelled": ("cancelled_at",),
}
LINE_ITEMS = re.compile(r"line_items?(_\d+)?|lineitems?(_\d+)?|products?_?items?|order_items")
BILLING = re.compile(r"(^|_)(billing|shipping)(_|$)")
MOST_ITEM_COLUMNS = 4


@dataclass(frozen=True)
class ColumnMap:
    """The columns of one file by their position. `line_items` hold several lines of an order in one cell; `private`
    are names of columns that look like personal data; `layout` says whose export it is, "" for a plain table."""

    names: tuple[str, ...]
    roles: dict[str, tuple[int, ...]]
    line_items: tuple[int, ...]
    private: tuple[str, ...]
    layout: str

    def read_as(self) -> dict[str, list[str]]:
        """Map each role that was found to the names of its columns."""
        found = {role: [harmless(self.names[i]) for i in positions] for role, positions in self.roles.items()}
        return found | ({"line items": [self.names[i] for i in self.line_items]} if self.line_items else {})


def find_columns(names: Sequence[str], settings: InteractionColumns, file: Path, sample: Sample) -> ColumnMap:
    """Find out which column is what. Raises DataError where customer, item or time are missing, or a setting names a
    column that is not there.
    """
    if any(looks_private(name) for name in names):
        raise DataError(f"{file}: row 1 holds personal data", "the first row must hold the column names")
    layout = _layout(names)
    roles = {
        role: tuple(_position(name, names, role, file) for name in wanted)
        for role in CHOSEN
        if (wanted := getattr(settings, role))
    }
    line_items: tuple[int, ...] = ()
    if layout == "woocommerce" and "item" not in roles:
        line_items = tuple(i for i, name in enumerate(names) if _holds_lines(name, sample.cells[i]))
    open_roles = [role for role in ROLES if role not in roles and not (role == "item" and line_items)]
    if layout == "shopify":
        _by_export(roles, open_roles, names)
    else:
        for role in open_roles:
            free = [i for i in range(len(names)) if i not in {j for found in roles.values() for j in found}]
            if found := _by_names(role, names, free, orders=has_orders(names)):
                roles[role] = found
    missing = [role for role in NEEDED if role not in roles and not (role == "item" and line_items)]
    if missing:
        if any(name and Clock(UTC).read(name, 1) != UNREADABLE for name in names):
            raise DataError(f"{file}: row 1 holds no column names but data", "the first row must hold the column names")
        columns = ", ".join(harmless(name) for name in names if name)[:400]
        hint = f'name it in afmrl.toml: [recommend.columns] {missing[0]} = ["..."]'
        raise DataError(f"{file}: no {missing[0]} column; the columns are: {columns}", hint)
    private = tuple(name for i, name in enumerate(names) if name and _is_private(i, name, roles, sample))
    return ColumnMap(tuple(names), roles, line_items, private, layout)


def has_orders(names: Sequence[str]) -> bool:
    """Tell whether a column numbers orders."""
    return not {plain(name) for name in names}.isdisjoint(KNOWN["order"])


def _layout(names: Sequence[str]) -> str:
    known = {plain(name) for name in names}
    if not known.isdisjoint(SHOPIFY["order"]) and not known.isdisjoint(SHOPIFY["item"]):
        return "shopify"
    orders = has_orders(names)
    billing = any(BILLING.search(name) for name in known)
    lines = any(re.fullmatch(r"line_items?(_\d+)?", name) for name in known)
    return "woocommerce" if orders and (lines or billing) else ""


def _by_export(roles: dict[str, tuple[int, ...]], open_roles: Sequence[str], names: Sequence[str]) -> None:
    """Fill `open_roles` by Shopify's column names."""
    at = {plain(name): i for i, name in reversed(list(enumerate(names)))}
    for role in open_roles:
        if found := tuple(at[name] for name in SHOPIFY.get(role, ()) if name in at):
            roles[role] = found


def _holds_lines(name: str, cells: Sequence[str]) -> bool:
    """Tell whether a column holds lines of an order as `name:Shirt|sku:A-1|quantity:2`."""
    called = LINE_ITEMS.fullmatch(plain(name)) is not None
    return called and (not cells or share(cells, lambda cell: ":" in cell and "|" in cell) > 0)


def _by_names(role: str, names: Sequence[str], free: Sequence[int], *, orders: bool) -> tuple[int, ...]:
    """Return the columns of `free` whose names tell that they hold `role`, the surest first: for items up to four,
    for customers and times up to two, of which the second fills gaps of the first.
    """
    known = EMAIL_FIRST if role == "customer" and orders else KNOWN[role]
    rank = {name: place for place, name in enumerate(known)}
    found = []
    for i in free:
        written = forms(names[i])
        for level, form in enumerate((written.plain, written.bare, written.last)):
            if form in rank and not (level and form in ("time", "date", "type", "item", "user", "state", "order")):
                found.append((rank[form], level, i))
                break
    positions = tuple(i for _, _, i in sorted(found))
    most = {"item": MOST_ITEM_COLUMNS, "time": 2 if orders else 1, "customer": 2 if orders else 1}
    return positions[: most.get(role, 1)]


def _position(name: str, names: Sequence[str], role: str, file: Path) -> int:
    alike = [i for i, other in enumerate(names) if other == name] or [
        i for i, other in enumerate(names) if other and plain(other) == plain(name)
    ]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1, cutoff=0.5)
    nearest = next((each for each in names if close and each.lower() == close[0]), "")
    columns = ", ".join(harmless(each) for each in names if each)[:400]
    hint = f"did you mean {nearest}?" if nearest else f"the columns are: {columns}"
    raise DataError(f"{file}: recommend.columns.{role} names {name!r}, which is no column of it", hint)


def _is_private(i: int, name: str, roles: dict[str, tuple[int, ...]], sample: Sample) -> bool:
    """Tell whether column `i` looks like personal data; of what is read only a customer's column can."""
    read = {j for role, positions in roles.items() if role != "customer" for j in positions}
    return i not in read and is_private_column(name, sample.cells[i])
