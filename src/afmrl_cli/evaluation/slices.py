"""Metrics by slice: where is it good, where not?

    type            what the queries file calls the query
    photos          whether the query has photos
    answer-photos   whether a relevant product shows photos
    variants           how many variants the relevant products have in the gallery
    anything else   a label of the relevant product: category, brand, lang, an attribute

A slice goes by the first relevant product of a query (in the gallery's order), so that queries typed by a person have a
category, too. Slices of a few queries differ by luck: read the interval, not the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..intervals import interval
from .compare import table_of
from .task import Document, Query, Task

ALL = ("type", "photos", "answer-photos", "variants", "category", "brand", "lang")
LARGEST = 20
NO_VALUE, OTHERS = "(none)", "(others)"


def check_slices(task: Task, wanted: Sequence[str]) -> list[str]:
    """Return the slices that `wanted` means; "all" stands for those that occur. UsageError for one that no
    listing has.
    """
    keys: list[str] = []
    known = {key for document in task.documents for key, value in document.labels.items() if value}
    for key in wanted:
        key = key.strip().casefold().removeprefix("attr_")
        if key == "all":
            keys += [each for each in ALL if each in known or each in ALL[:4]]
        elif key in known or key in ALL[:4]:
            keys.append(key)
        else:
            raise UsageError(f"--slices {key}: no such label", f"known: {', '.join([*ALL[:4], *sorted(known)][:24])}")
    return list(dict.fromkeys(keys))


def slice_values(task: Task, key: str, variants: Mapping[str, frozenset[str]], level: int) -> dict[str, str]:
    """Return the value of slice `key` for every query."""
    by_id = {document.id: document for document in task.documents}

    def value(query: Query) -> str:
        """Return the slice that `query` belongs to, "" for none."""
        right = [by_id[id] for id, grade in task.qrels[query.id].items() if grade >= level]
        if key == "type":
            return query.kind or NO_VALUE
        if key == "photos":
            return "with photos" if query.images else "without photos"
        if key == "answer-photos":
            return "with photos" if any(document.product.images for document in right) else "without photos"
        if key == "variants":
            return _number(len(variants.get(query.id, ())))
        return _label(right, key)

    return {query.id: value(query) for query in task.queries}


def _label(right: Sequence[Document], key: str) -> str:
    return (right[0].labels.get(key, "").strip() or NO_VALUE) if right else NO_VALUE


def _number(variants: int) -> str:
    return str(variants) if variants < 3 else "3 to 5" if variants < 6 else "6 or more"


def sliced(
    values: Mapping[str, str],
    per_query: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, str],
    confidence: float,
) -> list[dict[str, Any]]:
    """Return metrics of each value, the one with most queries first; beyond the largest twenty they are joined."""
    queries: dict[str, list[str]] = {}
    for query in next(iter(per_query.values())):
        queries.setdefault(values[query], []).append(query)
    ordered = sorted(queries, key=lambda value: (-len(queries[value]), value))
    for small in ordered[LARGEST:]:
        queries.setdefault(OTHERS, []).extend(queries[small])
    rows = []
    for value in [*ordered[:LARGEST], *([OTHERS] if OTHERS in queries else [])]:
        table = table_of(per_query, queries[value])
        ends = interval(table, [groups[query] for query in queries[value]], confidence)
        rows.append(
            {
                "value": value,
                "queries": len(queries[value]),
                "metrics": dict(zip(per_query, table.mean(axis=0).tolist(), strict=True)),
                "intervals": dict(zip(per_query, ends.T.tolist(), strict=True)),
            }
        )
    return rows
