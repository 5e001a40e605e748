"""Shopify's product CSV, as its help pages describe it, with the column names of before and since 2025.

A product takes several rows with the same handle: one a variant, and more for photos beyond those. Only the first has
the product's own cells (title, body, vendor, ...). Here every variant becomes a row with all cells: its own photo
first, then the product's photos that are no other variant's, in the order of `Image Position`; its options (`Option1
Name`: Color, `Option1 Value`: Navy) and metafields become attributes of these names. Its id is the SKU, without one the
handle and the options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..name_forms import plain
from ..problems import Problem
from ..table import Cell, Report, Row, Rows, Table, one_text

HANDLES = ("handle", "url_handle")
SKUS = ("variant_sku", "sku")
PHOTOS = ("image_src", "product_image_url")
VARIANT_PHOTOS = ("variant_image", "variant_image_url")
MARKS = {"option1_name", "option1_value", "variant_sku", "variant_price", *PHOTOS}
OWN = re.compile(
    r"variant_.*|option\d_(value|linked_to)|sku|barcode|price.*|compare_at_price.*|cost_per_item|inventory.*|weight.*"
    r"|unit_price.*|continue_selling.*|charge_tax|tax_code|requires_shipping|fulfillment_service|image_.*"
    r"|product_image_url"
)
"""Columns of the variant or the photo; all others are the product's and stand in its first row only."""
METAFIELD = re.compile(r"(.+) \((?:product|variant)\.metafields\.[^()]+\)")
"""A column of an attribute: Fabric (product.metafields.shopify.fabric), several values between "; "."""
MOST_ROWS = 5000
"""Of one handle. (Shopify allows 2,048 variants and 250 photos.)"""


def is_shopify(names: Sequence[str]) -> bool:
    """Tell whether a table with these columns is a Shopify product export."""
    known = {plain(name) for name in names}
    return "title" in known and not known.isdisjoint(HANDLES) and not known.isdisjoint(MARKS)


def shopify_layout(table: Table, report: Report) -> Table:
    """Return `table` with a whole row for each variant."""
    names = table.names
    rows = table.rows
    if not {plain(name) for name in names} & set(SKUS):
        names = (*names, "Variant SKU")
        rows = (Row(row.number, [*row.cells, ""]) for row in table.rows)
    export = _Export(names)
    return Table(tuple(names[i] for i in export.kept), _rows(rows, export, report), "shopify", own_attributes=True)


class _Export:
    """Where the columns are."""

    def __init__(self, names: Sequence[str]) -> None:
        at = {plain(name): i for i, name in reversed(list(enumerate(names)))}
        first = {key: next((at[n] for n in known if n in at), -1) for key, known in
                 {"handle": HANDLES, "sku": SKUS, "photo": PHOTOS, "own photo": VARIANT_PHOTOS}.items()}  # fmt: skip
        self.handle, self.sku = first["handle"], first["sku"]
        self.photo, self.own_photo = first["photo"], first["own photo"]
        self.title = at.get("title", -1)
        self.place = at.get("image_position", -1)
        self.category, self.type = at.get("product_category", -1), at.get("type", -1)
        self.options = [
            (at[f"option{k}_name"], at[f"option{k}_value"])
            for k in (1, 2, 3)
            if f"option{k}_name" in at and f"option{k}_value" in at
        ]
        self.variant = [i for i in (self.sku, *(value for _, value in self.options), at.get("variant_price", -1),
                                    at.get("price", -1), at.get("variant_barcode", -1), at.get("barcode", -1))
                        if i >= 0]  # fmt: skip
        self.shared = [i for i, name in enumerate(names) if not OWN.fullmatch(plain(name))]
        self.fields = {i: found[1] for i, name in enumerate(names) if (found := METAFIELD.fullmatch(name))}
        hidden = {i for pair in self.options for i in pair} | {self.own_photo, self.place, *self.fields}
        self.kept = [i for i in range(len(names)) if i not in hidden]
        if self.photo < 0 <= self.own_photo:
            self.kept.append(self.own_photo)


def _groups(rows: Rows, handle: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and (one_text(row.cells[handle]) != one_text(group[0].cells[handle]) or len(group) >= MOST_ROWS):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _rows(rows: Rows, export: _Export, report: Report) -> Rows:
    for group in _groups(rows, export.handle):
        first = list(group[0].cells)
        handle = one_text(first[export.handle])
        if handle and not one_text(first[export.title]):
            message = f"the first row of {handle!r} has no title: rows of a handle must follow each other"
            report(Problem("row apart", group[0].number, message, listing=handle))
        for row in group[1:]:
            for i in export.shared:
                first[i] = first[i] or row.cells[i]
        if export.category >= 0 and export.type >= 0:
            first[export.category] = first[export.category] or first[export.type]
        photos = _photos(group, export)
        variants = [row for row in group if any(one_text(row.cells[i]) for i in export.variant)] or group[:1]
        others = {photo for row in variants if (photo := _own_photo(row, export))}
        for row in variants:
            yield _variant(row, first, handle, photos, others, export)


def _variant(
    row: Row, first: Sequence[Cell], handle: str, photos: Sequence[str], others: set[str], export: _Export
) -> Row:
    cells = list(row.cells)
    for i in export.shared:
        cells[i] = cells[i] or first[i]
    if export.category >= 0:
        cells[export.category] = first[export.category]
    options: dict[str, str] = {}
    fields = {key: one_text(cells[i]).replace("; ", "|") for i, key in export.fields.items()}
    for name, value in export.options:
        text = one_text(cells[value])
        if text and text.lower() != "default title":
            options[one_text(first[name]) or f"option {len(options) + 1}"] = text
    if export.sku >= 0 and not one_text(cells[export.sku]):
        cells[export.sku] = "-".join([handle, *options.values()]) if handle else ""
    own = _own_photo(row, export)
    mine = [photo for photo in photos if photo not in others]
    at = export.photo if export.photo >= 0 else export.own_photo
    if at >= 0:
        cells[at] = tuple(dict.fromkeys([own, *mine] if own else (mine or photos)))
    own_fields = {key: text for key, text in fields.items() if text and key not in options}
    return Row(row.number, [cells[i] for i in export.kept], {**options, **own_fields})


def _own_photo(row: Row, export: _Export) -> str:
    return one_text(row.cells[export.own_photo]) if export.own_photo >= 0 else ""


def _photos(group: Sequence[Row], export: _Export) -> list[str]:
    """Return the product's photos in the order of their positions, then of their rows."""
    if export.photo < 0:
        return []
    found = []
    for i, row in enumerate(group):
        if photo := one_text(row.cells[export.photo]):
            place = one_text(row.cells[export.place]) if export.place >= 0 else ""
            found.append((int(place) if place.isdecimal() and len(place) < 9 else 1 << 30, i, photo))
    return [photo for _, _, photo in sorted(found)]
