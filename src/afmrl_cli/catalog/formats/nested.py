"""Variants inside of a record, as rows of their own that take from it what they lack.

{"id": 7, "title": "Tee", "variants": [{"sku": "T-S", "image_id": 2}], "images": [{"id": 2, "src": "a"}, ...]}
{"masterVariant": {"sku": "T-W"}, "variants": [{"sku": "T-B"}]}                 the first of them stands apart
{"configs": [{"color": "red", "simples": [{"sku": "T-S"}, {"sku": "T-M"}]}]}    variants of variants
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..columns import GROUP
from ..name_forms import forms, is_container, plain
from ..photo_columns import holds_images
from ..table import Cell, one_text

VARIANTS = {"variants", "variations", "skus", "children", "child_products", "items", "offers", "variant"}
LAST_WORDS = {"variants", "variations", "skus", "simples", "configs"}
"""Names of lists of variants, and last words of such names: product_simples."""
NUMBER_WORDS = {"variant", "sku", "item", "product", "merchant", "simple", "config"}
NUMBERS = {"id", "sku", "gtin", "ean", "upc", "barcode", "asin"}
"""Last words of the names of numbers, behind words that say of what."""
MOST_VARIANTS = 5000
MOST_LEVELS = 4

Record = Mapping[str, Any]
Flat = tuple[dict[str, Cell], dict[str, str]]
"""Cells by column, and attributes."""


def variants_of(record: Record, flat: Callable[[Record], Flat], level: int = 0) -> Iterator[Flat]:
    """Yield `record`, as `flat` gives it, or each of its variants with what it lacks taken from `record`."""
    path = _variants_at(record)
    if not path or level >= MOST_LEVELS:
        yield flat(record)
        return
    *above, name = path
    inner: Any = record
    for step in above:
        inner = inner[step]
    apart = [key for key, part in inner.items() if _last_word(key) == "variant" and isinstance(part, Mapping)]
    variants = [*(inner[key] for key in apart), *inner[name]][:MOST_VARIANTS]
    cells, more = flat(_without(record, above, {name, *apart}))
    group = _number(cells)
    for variant in variants:
        for own, own_more in variants_of({**variant, **_own_photos(record, variant)}, flat, level + 1):
            inherited = {
                key: cell
                for key, cell in cells.items()
                if key not in own and not (holds_images(key) and any(map(holds_images, own))) and not _is_number(key)
            }
            chosen = _chosen(more, own)
            for key in own.keys() & cells.keys() & {"title", "name"}:  # a variant is often called by its option alone
                own[key] = _whole_title(one_text(cells[key]), one_text(own[key]))
            yield {**inherited, **own, GROUP: group or one_text(own.get(GROUP, ""))}, {**chosen, **own_more}


def _variants_at(record: Record, depth: int = 0) -> tuple[str, ...]:
    """Return the way to the list of variants in `record`, through objects around a product's own columns; ()
    for none.
    """
    for name, value in record.items():
        alone = len(record) == 1 and not depth  # Salsify: [{"header": {...}}, {"products": [...]}]
        if (alone or plain(str(name)) in VARIANTS or _last_word(name) in LAST_WORDS) and _are_variants(value):
            return (name,)
    for name, value in record.items():
        inner = isinstance(value, Mapping) and is_container(plain(str(name))) and depth < MOST_LEVELS
        if inner and (inside := _variants_at(value, depth + 1)):
            return (name, *inside)
    return ()


def _without(record: Record, above: list[str], names: set[str]) -> dict[str, Any]:
    """Return `record` without `names` in the object that `above` leads to."""
    if not above:
        return {key: value for key, value in record.items() if key not in names}
    return {**record, above[0]: _without(record[above[0]], above[1:], names)}


def _are_variants(value: Any) -> bool:
    """Tell whether `value` is a list of objects with numbers of their own and more (not only references), or with such
    lists in them.
    """
    objects = isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)
    if not objects or not any(len(part) > 1 for part in value):
        return False
    return all(any(_is_number(str(key)) for key in part) or _variants_at(part) for part in value)


def _last_word(name: object) -> str:
    return plain(str(name)).rsplit("_", 1)[-1]


def _is_number(name: str) -> bool:
    """Tell whether a column of this name numbers a product or a variant, and not its image or its category."""
    words = forms(name.rsplit(".", 1)[-1]).bare.split("_")
    return words[-1] in NUMBERS and NUMBER_WORDS.issuperset(words[:-1])


def _number(cells: Mapping[str, Cell]) -> str:
    return next((text for name in cells if _is_number(name) and (text := one_text(cells[name]))), "")


def _whole_title(whole: str, part: str) -> str:
    """Return the title of a variant called `part` of a product called `whole`."""
    if not whole or part.casefold() == "default title":
        return whole or part
    return part if whole.casefold() in part.casefold() else f"{whole} {part}"


def _own_photos(record: Record, variant: Record) -> dict[str, Any]:
    """Return the photos of `record` that are the variant's, its own first, then those of no variant; {} when they don't
    say whose they are.
    """
    key = next((key for key in record if holds_images(str(key)) and isinstance(record[key], list)), "")
    photos = [part for part in record[key] if isinstance(part, Mapping)] if key else []
    if not any(isinstance(photo.get("variant_ids"), list) and photo["variant_ids"] for photo in photos):
        return {}
    own = [photo for photo in photos if variant.get("id") in (photo.get("variant_ids") or ())]
    return {key: own + [photo for photo in photos if not photo.get("variant_ids")]} if own else {}


def _chosen(more: Mapping[str, str], own: Mapping[str, Cell]) -> dict[str, str]:
    """Return the parent's attributes, of lists of options the one that the variant has in one of its cells."""
    texts = {one_text(cell) for cell in own.values()}
    found = dict(more)
    for key, value in more.items():
        if len(here := texts.intersection(value.split("|"))) == 1:
            found[key] = next(iter(here))
    return found
