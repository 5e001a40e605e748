"""Filters and exclusions as conditions of Qdrant, in the form of its REST interface.

A filter is translated by what the index knows of its keys (`card.Card.keys`); what the engine lets through is what
`retrieval.filters` lets through: see `points`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..attributes.parse import InvalidAttributes, parse_attributes
from ..errors import UsageError
from ..retrieval.filters import Bound, Filters, check_units, known_filters
from ..retrieval.opened import named_column
from .points import CATEGORY, NUMBERS, TAGS, Key, number_field, tag

Condition = dict[str, Any]
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def condition_of(filters: Filters, without: Sequence[tuple[str, str]], keys: Mapping[str, Key]) -> Condition | None:
    """Return what listings have to fulfil that pass `filters` and have none of the pairs `without` (of `unwished`);
    None where they say nothing. UsageError for keys that no listing has, and for a bound that can't be compared.
    """
    must: list[Condition] = []
    for key, wanted in known_filters(filters, keys, "--filter").items():
        check_units(key, wanted, keys[key].examples.values(), "--filter")
        if values := [each for each in wanted if isinstance(each, str)]:
            must.append(has_value(key, values))
        must += [_within(key, each, keys[key]) for each in wanted if isinstance(each, Bound)]
    must_not = [has_value(key, [value]) for key, value in without]
    made = {name: each for name, each in (("must", must), ("must_not", must_not)) if each}
    return made or None


def has_value(key: str, values: Sequence[str]) -> Condition:
    """Return the condition that a listing has one of `values`, in lower case."""
    if key != CATEGORY:
        return {"key": TAGS, "match": {"any": [tag(key, value) for value in values]}}
    return {"should": [{"key": TAGS, "match": {"prefix": tag(key, value)}} for value in values]}


def _within(key: str, bound: Bound, known: Key) -> Condition:
    fields = [number_field(key, unit) for unit in known.examples if not bound.unit or unit == bound.unit]
    each = [{"key": f"{NUMBERS}.{name}", "range": {_RANGES[bound.sign]: bound.number}} for name in fields]
    return each[0] if len(each) == 1 else {"should": each}


def unwished(without: Sequence[str], keys: Mapping[str, Key]) -> Iterator[tuple[str, str]]:
    """Yield key and value, in lower case, of what `--not` says. UsageError for words, which the engine does not search,
    and for keys that no listing has.
    """
    for wish in without:
        try:
            pairs = parse_attributes(wish if ":" in wish else wish.replace("=", ": ", 1))
        except InvalidAttributes:
            hint = "name a key, as in --not 'pattern: floral', or search without --index"
            raise UsageError(f"--not {wish}: an index is not searched for words", hint) from None
        for key, value in pairs.items():
            yield named_column(keys, key, value), value.casefold()
