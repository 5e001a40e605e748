"""Labels from a file of their own: identity, variants, categories, attributes that the catalog itself does not show.

    id,product_id,group_id,color
    s1,p1,g1,red

The first column that is named like a listing's number (id, sku, ...) says which listing a line is about. Columns named
like an identity or a group are read as such (gtin, style_id, ...), all others are labels under their own name, without
`attr_`. They decide: queries, relevant products, classes and slices go by them, and nothing of them becomes text.
Placeholders (N/A, 0 as a GTIN) are no labels, as in the catalog, and numbers have the catalog's normal form.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from ..catalog.codes import code, holds_gtins, identity, lost_digits
from ..catalog.column_names import COMMON
from ..catalog.formats.delimited import find_delimiter
from ..catalog.gaps import filled
from ..catalog.name_forms import plain
from ..catalog.problems import Problem, clipped
from ..catalog.table import Report
from ..errors import DataError


def read_labels(path: Path, products: Collection[str], report: Report) -> dict[str, dict[str, str]]:
    """Read labels by listing id; empty cells and placeholders are no labels.

    `products` are the ids that exist. An identity that a spreadsheet has rounded goes to `report` and is none.
    Raises DataError with file and line for a file that can't be read, has no column with ids or none with labels, names
    an unknown listing, or the same one twice.
    """
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    header = next(reader, [])
    names = [_label_name(name) for name in header]
    gtins = any(holds_gtins(plain(name)) for name in header if _label_name(name) == "product_id")
    if "id" not in names or len(names) < 2:
        raise DataError(f"{path}: no column with listing ids and labels", "such as: id,product_id,group_id,color")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are read as {clipped(twice, 80)}", "leave one of them out")
    found: dict[str, dict[str, str]] = {}
    for cells in reader:
        where = f"{path}:{reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise DataError(f"{where}: {len(cells)} cells, not {len(names)}")
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
        id = code(row.pop("id", ""))
        if id not in products:
            raise DataError(
                f"{where}: unknown listing {clipped(id, 80) or '(none)'}", "is this the labels file of this catalog?"
            )
        if id in found:
            raise DataError(f"{where}: listing {clipped(id, 80)} stands twice")
        row["product_id"] = identity(row.get("product_id", ""), gtins=gtins)
        if lost_digits(row["product_id"], strict=False):
            message = f"{row.pop('product_id')} is no identity: a spreadsheet has rounded it"
            report(Problem("lost digits", reader.line_num, message, listing=id))
        found[id] = {name: text for name, cell in row.items() if (text := filled(cell))}
    if not found:
        raise DataError(f"{path}: no labels", "a line per listing")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error


def _label_name(column: str) -> str:
    name = plain(column)
    for role in ("id", "product_id", "group_id"):
        if name in COMMON[role]:
            return role
    return column.strip().casefold().removeprefix("attr_")
