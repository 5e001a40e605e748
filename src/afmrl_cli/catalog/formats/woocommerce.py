"""WooCommerce's product CSV, as its import schema describes it, with English or translated column names (woo_names.py).

A `variable` product has rows of type `variation` that name it as `Parent` (its SKU, or `id:12`). Here a variation
becomes a listing, and takes from the parent what it has no cells of its own for; a parent with variations is no listing
itself, one without comes at the end. `Attribute 1 name` and its value become an attribute of that name; of several
categories the deepest path counts. The id is the SKU, without one the number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..columns import GROUP
from ..problems import Problem
from ..table import Cell, Report, Row, Rows, Table, one_text
from .woo_names import english

MARKS = {"type", "name"}
ONE_OF = {"visibility_in_catalog", "is_featured", "in_stock", "parent", "attribute_1_name", "regular_price"}
COMMA = re.compile(r"(?<!\\),\s*")
INHERITED = ("name", "description", "short_description", "categories", "tags", "brands", "images")


def is_woocommerce(names: Sequence[str]) -> bool:
    """Tell whether a table with these columns is a WooCommerce export."""
    known = {english(name) for name in names}
    return known >= MARKS and not known.isdisjoint({"sku", "id"}) and len(known & ONE_OF) > 1


def woocommerce_layout(table: Table, report: Report) -> Table:
    """Return `table` with whole rows for variations, and a column that joins them."""
    export = _Export(table.names)
    names = tuple(table.names[i] for i in export.kept)
    return Table((*names, GROUP), _rows(table.rows, export, report), "woocommerce", own_attributes=True)


class _Export:
    """Where the columns are."""

    def __init__(self, names: Sequence[str]) -> None:
        self.at = {english(name): i for i, name in reversed(list(enumerate(names)))}
        self.attributes = [
            (i, self.at[f"{name[:-5]}_value_s"])
            for name, i in self.at.items()
            if re.fullmatch(r"attribute_\d+_name", name) and f"{name[:-5]}_value_s" in self.at
        ]
        self.id = self.at.get("sku", self.at.get("id", -1))
        hidden = {i for name, i in self.at.items() if re.fullmatch(r"attribute_\d+_.*", name)}
        hidden |= {self.at[name] for name in ("id", "short_description") if name in self.at} - {self.id}
        if "description" not in self.at and "short_description" in self.at:
            hidden.discard(self.at["short_description"])
        self.kept = [i for i in range(len(names)) if i not in hidden]

    def text(self, cells: Sequence[Cell], name: str) -> str:
        return one_text(cells[self.at[name]]) if name in self.at else ""


def _rows(rows: Rows, export: _Export, report: Report) -> Rows:
    parents: dict[str, Row] = {}  # by SKU and by id:NUMBER
    waiting: dict[int, Row] = {}  # parents without a variation so far, by row number
    for row in rows:
        cells = [_plain_cell(cell) for cell in row.cells]
        number = export.text(cells, "id")
        kinds = {kind.strip().lower() for kind in export.text(cells, "type").split(",")}
        if not one_text(cells[export.id]) and number:
            cells[export.id] = number
        row = Row(row.number, cells)
        if "variation" in kinds:
            named = export.text(cells, "parent")
            parent = parents.get(named)
            if parent:
                waiting.pop(parent.number, None)
            else:
                message = f"its parent {named!r} does not stand before it" if named else "it names no parent"
                report(Problem("row apart", row.number, message, listing=one_text(cells[export.id])))
            yield _listing(row, parent, export)
        elif "variable" in kinds:
            parents[one_text(cells[export.id])] = waiting[row.number] = row
            if number:
                parents[f"id:{number}"] = row
        else:
            yield _listing(row, None, export)
    for row in waiting.values():
        yield _listing(row, None, export)


def _listing(row: Row, parent: Row | None, export: _Export) -> Row:
    cells = list(row.cells)
    if parent:
        for name in INHERITED:
            if name in export.at:
                cells[export.at[name]] = cells[export.at[name]] or parent.cells[export.at[name]]
    if not export.text(cells, "description") and "description" in export.at:
        cells[export.at["description"]] = export.text(cells, "short_description")
    if "categories" in export.at:
        paths = _parts(export.text(cells, "categories"))
        cells[export.at["categories"]] = max(paths, key=lambda path: path.count(">"), default="")
    if "images" in export.at:
        cells[export.at["images"]] = tuple(_parts(export.text(cells, "images")))
    attributes = {}
    for key_at, values_at in export.attributes:
        if (key := one_text(cells[key_at])) and (parts := _parts(one_text(cells[values_at]))):
            attributes[key] = "|".join(parts)
    group = one_text(parent.cells[export.id]) if parent else ""
    return Row(row.number, [*(cells[i] for i in export.kept), group], attributes)


def _parts(text: str) -> list[str]:
    return [part.strip().replace("\\,", ",") for part in COMMA.split(text) if part.strip()]


def _plain_cell(cell: Cell) -> str:
    """Return a cell without what the export writes against spreadsheets: \\n for a line break, ' before a formula."""
    text = one_text(cell)
    if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@"):
        text = text[1:]
    return text.replace("\\n", "\n") if "\\n" in text else text
