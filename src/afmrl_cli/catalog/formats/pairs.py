"""Attributes that stand in one cell, or in columns of names and of values, as attributes of their own.

additional_attributes        size=S,material=Cotton|Linen
product_detail               General:Material:Steel,General:Capacity:500 ml
Feature (Name:Value:...)     Material:Tin:1:0
RelationshipDetails          Size=S|Color=Red
Option1 Name, Option1 Value  Color, Navy
specs                        {"Material": "Steel"}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..column_names import words_of
from ..gaps import filled
from ..name_forms import forms, plain
from ..table import Cell, Row, Table, as_cell, one_text

PAIR_COLUMNS = words_of(
    "additional_attributes attributes attribute custom_attributes features feature specifications specification "
    "specs spec properties property product_detail product_details relationship_details variation_details "
    "item_specifics options option variant variation variant_options variations_details attrs attr "
    "technical_details pairs param params parameters characteristics characteristic eigenschaften merkmale "
    "caracteristiques caracteristicas caratteristiche kenmerken egenskaper configurator_options property_values "
    "product_features product_specifications product_specification product_attributes filter_attributes cechy "
    "parametry характеристики параметры"
)
STEMS = re.compile(
    r"option|attribute?|variation|variant|property|feature|spec|merkmal|eigenschaft|filter|characteristic|atribut|"
    r"caracteristica|proprietes?|opcion"
)
NAME_WORDS = {"name", "title", "key", "label", "nom", "nombre", "nome", "naam", "names"}
VALUE_WORDS = words_of("value values val description choice choices wert werte valeur valeurs valor valore waarde")
MARK = re.compile(r"^\[[A-Za-z]{1,3}\]")
"""BigCommerce's kind of an option: [S]Size=Small."""
COMPOUND = re.compile(r"(variation|attribut|merkmal|option|eigenschaft)s?(name|wert)(?:name)?(?![a-z])")
OXID = {"oxvarname": "variant_name", "oxvarselect": "variant_value"}
SEPARATORS = ("\n", "||", "|", ";", ",")
BEFORE_KEY = re.compile(r",(?=[^,=:|]{1,40}=)")
MOST_KEY = 40
ONLY_ONE = {"default title", "default", "standard", "regular"}
"""What shops write for the variant of a product that has no others."""
MOST_NESTED = 4


@dataclass(frozen=True)
class Splitter:
    """Which columns become attributes: of pairs, and of names beside those of values."""

    pairs: tuple[int, ...]
    options: tuple[tuple[int, int], ...]
    lists: frozenset[int]
    """Columns of values that hold several between commas."""

    @classmethod
    def find(cls, names: Sequence[str], rows: Sequence[Row]) -> Splitter:
        """Find them by the columns' names, and for pairs also by what they hold in `rows`."""
        pairs = tuple(
            i for i, name in enumerate(names) if forms(name).bare in PAIR_COLUMNS or forms(name).plain in PAIR_COLUMNS
        )
        pairs = tuple(i for i in pairs if _all_pairs([one_text(row.cells[i]) for row in rows]))
        blobs = tuple(
            i for i in range(len(names)) if i not in pairs and _all_objects([one_text(row.cells[i]) for row in rows])
        )
        options = tuple(_option_columns(names))
        lists = frozenset(value for _, value in options if "values" in plain(names[value]).split("_"))
        return cls(pairs + blobs, options, lists)

    def table(self, table: Table) -> Table:
        """Return `table` without these columns, their attributes in each row's `more`."""
        if not self.pairs and not self.options:
            return table
        hidden = {*self.pairs, *(i for pair in self.options for i in pair)}
        kept = [i for i in range(len(table.names)) if i not in hidden]

        def rows() -> Iterator[Row]:
            """Yield the rows, one after the other."""
            keys: dict[int, str] = {}  # an option's name may stand in a product's first row only
            for row in table.rows:
                yield Row(row.number, [row.cells[i] for i in kept], {**row.more, **self._attributes(row.cells, keys)})

        return Table(tuple(table.names[i] for i in kept), rows(), table.layout, own_attributes=True)

    def _attributes(self, cells: Sequence[Cell], keys: dict[int, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for i in self.pairs:
            found.update(pairs_in(cells[i]))
        for name, value in self.options:
            keys[name] = one_text(cells[name]) or keys.get(name, "")
            key, text = keys[name], filled(one_text(cells[value]))
            if "|" in key and key.count("|") == text.count("|"):  # Size | Colour, M | Red
                names = (part.strip() for part in key.split("|"))
                found.update(zip(names, (part.strip() for part in text.split("|")), strict=True))
            elif key and text and text.lower() not in ONLY_ONE:
                found[key] = _several(text, commas=value in self.lists)
        return found


def _option_columns(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    stems: dict[tuple[str, str], int] = {}
    values: dict[tuple[str, str], int] = {}
    for i, name in enumerate(names):
        if forms(name).last in ("name", "title", "description"):  # of the product: product_attributes.name
            continue
        words = re.findall(r"[^\W\d_]+|\d+", COMPOUND.sub(r"\1_\2", OXID.get(plain(name), plain(name))))
        number = next((word for word in words if word.isdigit()), "")
        for kinds, found in ((NAME_WORDS, stems), (VALUE_WORDS, values)):
            if not kinds.isdisjoint(words):
                stem = " ".join(word for word in words if word not in kinds and word not in ("s", number))
                if STEMS.search(stem):
                    found.setdefault((stem, number), i)
    for key, i in stems.items():
        if key in values and values[key] != i:
            yield i, values[key]


def _all_pairs(cells: Sequence[str]) -> bool:
    held = [cell for cell in cells if filled(cell) and cell.lower() not in ONLY_ONE]
    return bool(held) and sum(bool(pairs_in(cell)) for cell in held) >= 0.8 * len(held)


def _all_objects(cells: Sequence[str]) -> bool:
    held = [cell for cell in cells if filled(cell)]
    objects = bool(held) and all(cell[:1] + cell[-1:] == "{}" or cell[:2] == "[{" for cell in held)
    return objects and sum(bool(pairs_in(cell)) for cell in held) >= 0.8 * len(held)


def pairs_in(cell: Cell) -> dict[str, str]:
    """Return the attributes that a cell holds, {} when it holds none; several values stand between |."""
    if not isinstance(cell, str):
        found: dict[str, str] = {}
        for part in cell:
            for key, value in pairs_in(part).items():
                found[key] = f"{found[key]}|{value}" if key in found else value
        return found
    text = cell.strip()
    if text[:1] in "[{":
        try:
            return pairs_of(json.loads(text))
        except (ValueError, RecursionError):
            pass
    return _written_pairs(text)


def pairs_of(value: Any, depth: int = 0) -> dict[str, str]:
    """Return the attributes in an object, or in a list of objects with a name and a value, as JSON and XML have
    them.
    """
    if isinstance(value, Mapping):
        named = _named_value(value)
        return _fields(value, depth) if named is None else named
    found: dict[str, str] = {}
    if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        for part in value:
            if (named := _named_value(part)) is None:
                return {}
            for key, text in named.items():
                found[key] = f"{found[key]}|{text}" if key in found else text
    return found


def _fields(record: Mapping[str, Any], depth: int) -> dict[str, str]:
    """Return the texts in an object and in the objects in it, by their keys."""
    found: dict[str, str] = {}
    for key, part in record.items():
        nested = isinstance(part, Mapping) or (
            isinstance(part, list) and any(isinstance(each, dict | list) for each in part)
        )
        if nested and depth < MOST_NESTED:
            found.update(pairs_of(part, depth + 1))
        elif not nested:
            text = filled(one_text(as_cell(part)))
            if text and len(str(key)) <= MOST_KEY:
                found[str(key)] = text
    return found


KEY_FIELDS = (
    *(
        "name",
        "key",
        "label",
        "attribute_name",
        "attribute",
        "code",
        "attribute_id",
        "title",
        "fname",
        "param_name",
    ),
    "option",
)
VALUE_FIELDS = ("value", "values", "val", "attribute_value", "fvalue", "option_value", "#text")


def _named_value(record: Mapping[str, Any]) -> dict[str, str] | None:
    """Return {"Color": "Red"} of {"name": "Color", "value": "Red"}; None when `record` is no such object."""
    at = {plain(str(key)) if key != "#text" else key: part for key, part in record.items()}
    key = next((at[name] for name in KEY_FIELDS if isinstance(at.get(name), str)), None)
    value = next((at[name] for name in VALUE_FIELDS if name in at), None)
    if isinstance(value, Mapping):  # of commercetools: {"key": "white", "label": "White"}
        value = next((value[name] for name in ("label", "name", "value", "key") if value.get(name)), None)
    if key is None or value is None or isinstance(value, Mapping):
        return None
    text = filled(one_text(as_cell(value)))
    return {key.strip(): text} if text and key.strip() else {}


def _written_pairs(text: str) -> dict[str, str]:
    """Return the attributes of `a=b,c=d|e`, `a:b:1:0, c:d`, `section:a:b`, `a=b|c=d;e`, `a: b; c: d`."""
    if "=" not in text and ":" not in text:
        return {}
    between = "=" if "=" in text else ":"
    pieces = next((parts for parts in (_pieces(text, mark) for mark in SEPARATORS) if _all_hold(parts, between)), None)
    if pieces is None:
        pieces = BEFORE_KEY.split(text) if between == "=" else [text]
    found: dict[str, str] = {}
    for piece in pieces:
        key, value = _pair(piece, between)
        if not key or len(key) > MOST_KEY or "//" in key:
            return {}
        if value := filled(_several(value)):
            found[key] = f"{found[key]}|{value}" if key in found else value
    if {"Name", "Value"} <= found.keys():  # BigCommerce: Type=Rectangles|Name=Color|Value=Black
        return dict(zip(found["Name"].split("|"), found["Value"].split("|"), strict=False))
    return found


def _pieces(text: str, mark: str) -> list[str]:
    return [part.strip() for part in text.split(mark) if part.strip()]


def _all_hold(parts: Sequence[str], between: str) -> bool:
    """Tell whether each of several parts is one pair, with no other mark in its key."""
    keys = [part.partition(between)[0] for part in parts]
    whole = all(between in part and (between == ":" or part.count("=") == 1) for part in parts)
    return len(parts) > 1 and whole and not any(mark in key for key in keys for mark in ",;|\n")


def _pair(piece: str, between: str) -> tuple[str, str]:
    piece = MARK.sub("", piece.strip().strip('"')).strip()
    if between == "=":
        key, _, value = piece.partition("=")
        return key.strip(), value.strip().strip('"')
    parts = [part.strip() for part in piece.split(":")]
    if len(parts) == 3 and not parts[2].isdecimal():  # of Google: section:name:value
        return parts[1], parts[2]
    if len(parts) > 2 and all(part.isdecimal() for part in parts[2:]):  # of PrestaShop: name:value:position:customised
        return parts[0], parts[1]
    return parts[0], ":".join(parts[1:])


def _several(text: str, *, commas: bool = False) -> str:
    """Return values between ; and | (and `commas`) as between |."""
    parts = [part.strip() for part in re.split("[;|,]" if commas else "[;|]", text) if part.strip()]
    return "|".join(parts) if len(parts) > 1 else text
