"""Records with parts inside, of JSON and XML, as flat rows: columns, attributes, and a row for each variant.

{"brand": {"name": "X"}}                            column brand.name
{"images": [{"url": "a"}, {"url": "b"}]}            column images, a list
{"attributes": [{"name": "Color", "value": "Red"}]} attribute Color
{"title": "Tee", "variants": [{"sku": "T-S"}]}      a row for T-S, with the title
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ...settings import CatalogSettings
from ..bounds import column_names
from ..column_names import words_of
from ..columns import GROUP, forms, holds_images, is_known, known_names, plain
from ..photo_cells import ADDRESSES
from ..problems import Problem, clipped
from ..table import Cell, Report, Row, Rows, Table, as_cell, one_text, too_long
from .pairs import PAIR_COLUMNS, pairs_of

HEAD_RECORDS = 1000
VARIANTS = {"variants", "variations", "skus", "children", "child_products", "items", "offers", "variant"}
MOST_NESTED = 4
MOST_VARIANTS = 5000
CONTAINERS = words_of(
    "details data info product item general common content fields article_details product_details attributes basic "
    "node product_data master texts translations"
)
"""Objects around a product's own columns."""
LOCALE = re.compile(r"([a-z]{2})([-_][A-Za-z]{2})?|x[-_]default|default", re.IGNORECASE)
FIRST_LOCALES = ("x-default", "x_default", "default", "en", "en-us", "en_us", "en-gb", "en_gb")
NAMES_OF = ("name", "title", "label", "value", "#text")

Record = Mapping[str, Any]
Flat = tuple[dict[str, Cell], dict[str, str]]
"""Cells by column, and attributes."""


def records_table(records: Iterator[tuple[int, Record]], settings: CatalogSettings, report: Report) -> Table:
    """Numbered records with names of their own as a table; columns are those of the first 1,000 rows."""
    flat = ((row, cells, more) for row, record in records for cells, more in rows_of(record))
    first = list(islice(flat, HEAD_RECORDS))
    names, rare = column_names(cells for _, cells, _ in first)
    if rare:
        message = f"{len(rare):,} columns that hardly any row has are not read"
        report(Problem("late column", 0, message, column=clipped(rare[0], 40)))

    def rows() -> Rows:
        """The rows, one after the other."""
        known = {*names, *rare}
        for part in (first, flat):
            for row, record, more in part:
                for name in record.keys() - known:
                    known.add(name)
                    if known_names([name]):
                        message = f"{name!r} first stands here and is not read"
                        report(Problem("late column", row, message, column=clipped(name, 40)))
                cells = [record.get(name, "") for name in names]
                if problem := too_long(cells, names, row, settings.max_field_chars):
                    report(problem)
                else:
                    yield Row(row, cells, more)

    return Table(tuple(names), rows(), own_attributes=any(more for _, _, more in first))


def rows_of(record: Record) -> Iterator[Flat]:
    """`record` flat, or each of its variants with what it lacks taken from `record`."""
    name = next((name for name in record if plain(name) in VARIANTS and _are_variants(record[name])), "")
    cells, more = flat({key: value for key, value in record.items() if key != name})
    if not name:
        yield cells, more
        return
    group = _number(cells)
    for variant in record[name][:MOST_VARIANTS]:
        own, own_more = flat(variant)
        chosen = _chosen(more, own)
        inherited = {
            key: cell
            for key, cell in cells.items()
            if key not in own and not (holds_images(key) and any(map(holds_images, own))) and not _is_number(key)
        }
        for key in own.keys() & cells.keys() & {"title", "name"}:  # a variant is often called by its option alone
            whole, part = one_text(cells[key]), one_text(own[key])
            if whole and part.casefold() != "default title":
                own[key] = part if whole.casefold() in part.casefold() else f"{whole} {part}"
        yield {**inherited, **own, GROUP: group}, {**chosen, **own_more}


def _chosen(more: Mapping[str, str], own: Mapping[str, Cell]) -> dict[str, str]:
    """The parent's attributes, of lists of options the one that the variant has in one of its cells."""
    texts = {one_text(cell) for cell in own.values()}
    found = dict(more)
    for key, value in more.items():
        if len(here := texts.intersection(value.split("|"))) == 1:
            found[key] = next(iter(here))
    return found


def _are_variants(value: Any) -> bool:
    """Whether `value` is a list of objects with numbers of their own."""
    objects = isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)
    return objects and all(any(_is_number(str(key)) for key in part) for part in value)


def _is_number(name: str) -> bool:
    return plain(name) in (
        "id",
        "sku",
        "gtin",
        "ean",
        "upc",
        "barcode",
        "variant_id",
        "sku_id",
        "item_id",
        "product_id",
    )


def _number(cells: Mapping[str, Cell]) -> str:
    return next((text for name in cells if _is_number(name) and (text := one_text(cells[name]))), "")


def flat(record: Record) -> Flat:
    """The columns and the attributes of `record`, what is nested taken apart."""
    cells: dict[str, Cell] = {}
    more: dict[str, str] = {}
    for name, value in record.items():
        _add(str(name), value, cells, more, 0)
    return cells, more


def _add(name: str, value: Any, cells: dict[str, Cell], more: dict[str, str], depth: int) -> None:
    written = plain(name.rsplit(".", 1)[-1])
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping) and not holds_images(name):
        value = value[0]
    if not isinstance(value, Mapping | list) or depth >= MOST_NESTED:
        cells[name] = as_cell(value)
    elif holds_images(name) and (photos := _photos(value)):
        cells[name] = tuple(photos)
    elif isinstance(value, Mapping):
        _add_object(name, written, value, cells, more, depth)
    elif _holds_pairs(name) and (pairs := pairs_of(value)):
        more.update(pairs)
    elif value and all(isinstance(part, Mapping) for part in value):
        _add_objects(name, value, cells, more)
    else:
        cells[name] = as_cell(value)


def _add_object(
    name: str, written: str, value: Record, cells: dict[str, Cell], more: dict[str, str], depth: int
) -> None:
    if all(LOCALE.fullmatch(str(key)) for key in value) and not any(
        isinstance(part, Mapping) for part in value.values()
    ):
        by_locale = {str(key).lower(): part for key, part in value.items() if part not in (None, "", [])}
        chosen = next((by_locale[key] for key in FIRST_LOCALES if key in by_locale), next(iter(by_locale.values()), ""))
        cells[name] = as_cell(chosen)
    elif _holds_pairs(name) and (pairs := pairs_of(value)):
        more.update(pairs)
    else:
        for key, part in value.items():
            inside = name if key in ("#text", "value") else str(key) if written in CONTAINERS else f"{name}.{key}"
            _add(inside, part, cells, more, depth + 1)


def _add_objects(name: str, value: list[Any], cells: dict[str, Cell], more: dict[str, str]) -> None:
    """A list of objects: attributes when they are names with values, else what they are called."""
    if not is_known(name) and (pairs := pairs_of(value)):
        more.update(pairs)
        return
    texts = [_called(part) for part in value]
    cells[name] = tuple(filter(None, texts)) if any(texts) else as_cell(value)


def _holds_pairs(name: str) -> bool:
    return not PAIR_COLUMNS.isdisjoint(forms(name.rsplit(".", 1)[-1])[:3])


def _called(part: Record) -> str:
    at = {plain(str(key)) if key != "#text" else key: value for key, value in part.items()}
    return next((one_text(as_cell(at[key])) for key in NAMES_OF if at.get(key)), "")


def _photos(value: Any, depth: int = 0) -> list[str]:
    """The links and paths in what stands for photos: texts, lists, objects with a url, and these inside of others."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if depth > MOST_NESTED:
        return []
    if isinstance(value, list):
        kind = next((part.get("view-type") for part in value if isinstance(part, Mapping)), None)
        return [
            photo
            for part in value
            if not isinstance(part, Mapping) or part.get("view-type") == kind  # Salesforce: the same photos in sizes
            for photo in _photos(part, depth + 1)
        ]
    if isinstance(value, Mapping):
        for key in (*ADDRESSES, "#text"):
            if isinstance(found := value.get(key), str) and found.strip():
                return [found.strip()]
        return [
            photo for part in value.values() if isinstance(part, list | Mapping) for photo in _photos(part, depth + 1)
        ]
    return []
