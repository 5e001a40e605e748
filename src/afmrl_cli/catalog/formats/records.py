"""Records with parts inside, of JSON and XML, as flat rows: columns, attributes, and a row for each variant.

{"brand": {"name": "X"}}                            column brand.name
{"images": [{"url": "a"}, {"url": "b"}]}            column images, a list
{"attributes": [{"name": "Color", "value": "Red"}]} attribute Color
{"attributes": {"title": "Tee", "gtin": "..."}}     columns title and gtin
{"title": "Tee", "variants": [{"sku": "T-S"}]}      a row for T-S, with the title (nested.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ...settings import CatalogSettings
from ..bounds import column_names
from ..column_names import words_of
from ..columns import is_known, known_names
from ..name_forms import forms, plain
from ..photo_cells import address_of, is_photo
from ..photo_columns import holds_images
from ..problems import Problem, clipped
from ..table import Cell, Report, Row, Rows, Table, as_cell, one_text, too_long
from .nested import Flat, Record, variants_of
from .pairs import PAIR_COLUMNS, pairs_of

HEAD_RECORDS = 1000
MOST_NESTED = 6
CONTAINERS = words_of(
    "details data info product item general common content fields article_details product_details attributes basic "
    "node product_data master master_data current texts translations"
)
"""Objects around a product's own columns."""
LOCALE = re.compile(r"([a-z]{2})([-_][A-Za-z]{2})?|x[-_]default|default", re.IGNORECASE)
FIRST_LOCALES = ("x-default", "x_default", "default", "en", "en-us", "en_us", "en-gb", "en_gb")
LANGUAGE_KEYS = {"language", "lang", "locale", "language_tag", "language_code", "locale_code"}
NAMES_OF = ("name", "title", "label", "value", "#text")


def records_table(records: Iterator[tuple[int, Record]], settings: CatalogSettings, report: Report) -> Table:
    """Return numbered records with names of their own as a table; columns are those of the first 1,000 rows."""
    flat_rows = ((row, cells, more) for row, record in records for cells, more in rows_of(record))
    first = list(islice(flat_rows, HEAD_RECORDS))
    names, rare = column_names(cells for _, cells, _ in first)
    if rare:
        message = f"{len(rare):,} columns that hardly any row has are not read"
        report(Problem("late column", 0, message, column=clipped(rare[0], 40)))

    def rows() -> Rows:
        """Yield the rows, one after the other."""
        known = {*names, *rare}
        for part in (first, flat_rows):
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
    """Return `record` flat, or each of its variants with what it lacks taken from `record`."""
    return variants_of(record, flat)


def flat(record: Record) -> Flat:
    """Return the columns and the attributes of `record`, what is nested taken apart."""
    cells: dict[str, Cell] = {str(name): "" for name, value in record.items() if not isinstance(value, Mapping | list)}
    more: dict[str, str] = {}
    for name, value in record.items():
        _add(str(name), value, cells, more, 0)
    return cells, more


def _add(name: str, value: Any, cells: dict[str, Cell], more: dict[str, str], depth: int) -> None:
    written = plain(name.rsplit(".", 1)[-1])
    if isinstance(value, list) and (by_language := _by_language(value)):
        value = by_language
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
        return
    own = _holds_pairs(name) and known_names([str(key) for key in value]) > 1  # JSON:API: a product's columns
    if _holds_pairs(name) and not own and (pairs := pairs_of(value)):
        more.update(pairs)
        return
    if photos := _photos_by_content([value]):
        cells[name] = photos
        return
    for key, part in value.items():
        inside = name if key in ("#text", "value") else str(key) if own or written in CONTAINERS else f"{name}.{key}"
        if inside in cells and inside != name:  # of a thing that belongs to the product, such as its category's id
            inside = f"{name}.{key}"
        _add(inside, part, cells, more, depth + 1)


def _add_objects(name: str, value: list[Any], cells: dict[str, Cell], more: dict[str, str]) -> None:
    """Add a list of objects: attributes when they are names with values, photos when each holds one, else what they are
    called.
    """
    if not is_known(name) and (pairs := pairs_of(value)):
        more.update(pairs)
    elif photos := _photos_by_content(value):
        cells[name] = photos
    else:
        texts = [_called(part) for part in value]
        cells[name] = tuple(filter(None, texts)) if any(texts) else as_cell(value)


def _by_language(value: list[Any]) -> dict[str, Any]:
    """Return {"en": ["..."], "de": [...]} of a list of objects that say their language; {} when it is none."""
    found: dict[str, Any] = {}
    for part in value:
        at = {plain(str(key)): text for key, text in part.items()} if isinstance(part, Mapping) else {}
        language = next((at[key] for key in LANGUAGE_KEYS if key in at), "")
        text = next((at[key] for key in ("value", "text", "content", "name", "label") if at.get(key)), None)
        if not isinstance(language, str) or not LOCALE.fullmatch(language) or text is None:
            return {}
        found.setdefault(language, []).append(text)
    return {key: texts[0] if len(texts) == 1 else texts for key, texts in found.items()}


def _holds_pairs(name: str) -> bool:
    return not PAIR_COLUMNS.isdisjoint(forms(name.rsplit(".", 1)[-1])[:3])


def _called(part: Record) -> str:
    at = {plain(str(key)) if key != "#text" else key: value for key, value in part.items()}
    return next((one_text(as_cell(at[key])) for key in NAMES_OF if at.get(key)), "")


def _photos_by_content(parts: list[Any]) -> tuple[str, ...]:
    """Return the photos of objects that each hold the address of one, whatever they are called; () when they don't."""
    found = [address_of(part) if isinstance(part, Mapping) else "" for part in parts]
    return tuple(filter(is_photo, found)) if all(found) and any(map(is_photo, found)) else ()


def _photos(value: Any, depth: int = 0) -> list[str]:
    """Return the links and paths in what stands for photos: texts, lists, objects with a url, and these inside of
    others.
    """
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
        if found := address_of(value):
            return [found]
        return [
            photo for part in value.values() if isinstance(part, list | Mapping) for photo in _photos(part, depth + 1)
        ]
    return []
