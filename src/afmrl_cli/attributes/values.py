"""The catalog's own attributes with their values, from all of its rows: what `afmrl init` proposes as the schema.

A column named attr_* is always a key, since it is a label: with its values when they are few, else open. Other columns
and the attributes that rows bring are keys when they have few different values in words that come again; counters,
prices, links, types and texts are none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from ..catalog.columns import ColumnMap
from ..catalog.gaps import filled
from ..catalog.markup import plain_text
from ..catalog.table import Row, one_text
from .parse import MAX_KEY_CHARS, MAX_VALUE_CHARS, clean_value
from .schema import folded

MOST_KEYS, MOST_VALUES = 8, 30
"""Keys that are no attr_ columns, and values of one key that are listed."""
MOST_CHARS = 30
COUNTED_VALUES = 200
"""Different values of a key that are kept; one with more is open, or none."""
MOST_COUNTED = 300
NO_ATTRIBUTE = re.compile(
    r"(price|cost|stock|qty|quantity|inventory|status|publish|visib|url|link|date|tax|shipping|weight|position|gift|"
    r"seo|alt|tag|availab|condition|policy|tracker|fulfil|rating|review|sold|compare|sale|split|parent|mpn|lang|count|"
    r"website|store|enabled|active|online|display|layout|template|action|currency|handle|slug|sku|version|family|"
    r"attribute_set|created|updated|index|number|sort|order|image|photo|image|picture|thumb|swatch|"
    r"(^|[ _.-])(id|no|nr|type|types|code|key|hash|ref|row)($|[ _.-])|I[dD]$|type$|Type)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProposedKey:
    """A key of the proposed schema: its values, the most frequent first (none: any), and whether cells hold several."""

    values: list[str]
    multiple: bool


@dataclass
class _Counts:
    label: bool
    spelled: dict[str, str] = field(default_factory=dict)
    values: Counter[str] = field(default_factory=Counter)
    several: bool = False
    open: bool = False


class SchemaValues:
    """Counts the values of attributes in bounded memory; then proposes keys."""

    def __init__(self, columns: ColumnMap) -> None:
        self._columns = columns
        self._counts: dict[str, _Counts] = {}
        self._keys: dict[str, str] = {}  # folded -> as first written
        self.rows = 0

    def add(self, row: Row) -> None:
        """Count the attributes of `row`."""
        self.rows += 1
        for i, key in self._columns.given:
            if text := one_text(row.cells[i]):
                self._add(key, text, label=self._columns.names[i] != key)
        for key, text in row.more.items():
            self._add(key, text, label=False)

    def _add(self, key: str, text: str, *, label: bool) -> None:
        if not (text := filled(plain_text(text))):
            return
        if (counts := self._counts.get(key)) is None:
            if (not label and NO_ATTRIBUTE.search(key)) or len(self._counts) >= MOST_COUNTED:
                return
            counts = self._counts[key] = _Counts(label)
        if counts.open:
            return
        parts = [clean for part in text.split("|") if (clean := clean_value(part))]
        counts.several |= len(parts) > 1
        # A text can't be listed as a value.
        counts.open = any(len(part) > MAX_VALUE_CHARS for part in parts)
        counts.open |= not counts.label and any(len(part) > MOST_CHARS for part in parts)
        for part in parts:
            counts.values[counts.spelled.setdefault(folded(part), part)] += 1
        counts.open |= len(counts.values) > COUNTED_VALUES

    def keys(self) -> dict[str, ProposedKey]:
        """Return the proposed keys: labels in the catalog's order, then the others, the most often filled first."""
        found: dict[str, ProposedKey] = {}
        seen: set[str] = set()
        labels = [key for key, counts in self._counts.items() if counts.label]
        others = sorted(
            (key for key, counts in self._counts.items() if not counts.label and _worth(counts)),
            key=lambda key: -self._counts[key].values.total(),
        )
        for key in labels + others[:MOST_KEYS]:
            if folded(key) not in seen and _writable(key):
                seen.add(folded(key))
                found[key] = _proposed(self._counts[key])
        return found


def _worth(counts: _Counts) -> bool:
    """Check whether a column is an attribute by its values: few, in words, and each again and again."""
    values = counts.values
    worded = sum(any(char.isalpha() for char in value) for value in values)
    repeated = values.total() >= 2 * len(values) or len(values) <= MOST_VALUES // 4
    flags = {folded(value) for value in values} <= {"yes", "no", "y", "n", "true", "false", "0", "1"}
    return not counts.open and 2 <= len(values) <= MOST_VALUES and worded >= len(values) / 2 and repeated and not flags


def _proposed(counts: _Counts) -> ProposedKey:
    values = [value for value, _ in counts.values.most_common()]
    if counts.open or len(values) > MOST_VALUES:
        return ProposedKey([], counts.several)
    if not any("," in value for value in values):
        return ProposedKey(values, counts.several)
    parts = Counter[str]()
    for value in values:
        parts.update({part.strip() for part in value.split(",")} - {""})
    spelled = {folded(part): part for part in reversed(list(parts))}
    if len(spelled) <= MOST_VALUES and sum(count > 1 for count in parts.values()) >= len(parts) / 2:
        return ProposedKey(list(reversed(spelled.values())), True)
    # Commas stand inside of values, so several of them could not be separated.
    return ProposedKey([] if counts.several else values, counts.several)


def _writable(key: str) -> bool:
    return key[:1].isalnum() and len(key) <= MAX_KEY_CHARS and not re.search(r"[;:\n\r\x00-\x1f\x7f]", key)
