"""Triplets as one HTML file to look through: reference, wish and target, with what differs and what is shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..retrieval.page import Pictures, render
from ..settings import CatalogSettings
from ..store.files import writing
from .change import marked
from .records import Record
from .run import Made
from .store import Triplet
from .windows import WINDOWS, hashed

MOST_SHOWN = 150


def shown(triplets: Iterable[Triplet], seed: int) -> list[Triplet]:
    """Return at most MOST_SHOWN at random, as many of each window as there are."""
    best: dict[str, list[tuple[int, int, Triplet]]] = {window: [] for window in WINDOWS}
    for number, each in enumerate(triplets):
        held = best[each.window]
        held.append((hashed(seed, "page", each.reference, each.target), number, each))
        if len(held) >= 2 * MOST_SHOWN:
            held.sort()
            del held[MOST_SHOWN:]
    chosen: list[Triplet] = []
    for left, window in zip(range(len(WINDOWS), 0, -1), sorted(WINDOWS, key=lambda name: len(best[name])), strict=True):
        chosen += [each for *_, each in sorted(best[window])[: (MOST_SHOWN - len(chosen)) // left]]
    return sorted(chosen, key=lambda each: WINDOWS.index(each.window))


def write_page(file: Path, made: Made, triplets: Sequence[Triplet], catalog: str, settings: CatalogSettings) -> None:
    """Write `triplets` to `file`, atomically."""
    pictures = Pictures(settings)
    by_id = {record.id: record for record in made.records.rows}

    def side(record: Record, each: Triplet, target: bool) -> dict[str, Any]:
        """Return what the page shows of a listing."""
        attributes = [
            (key, each.changed[key][target] if different else value, different)
            for key, value, different in marked([k for k, _ in record.pairs.values()], record, each.changed)
        ]
        return {
            "id": record.id,
            "title": record.title,
            "picture": pictures.of(record.images),
            "attributes": attributes,
        }

    page = render(
        "triplets.html",
        catalog=catalog,
        content=made.manifest,
        triplets=[
            {"triplet": each, "sides": [side(by_id[each.reference], each, False), side(by_id[each.target], each, True)]}
            for each in triplets
        ],
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")
