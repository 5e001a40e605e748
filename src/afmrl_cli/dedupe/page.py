"""Probable duplicates side by side as one HTML file that needs no network: photos, what is the same, what is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..catalog.product import Product
from ..retrieval.page import Pictures, render
from ..settings import CatalogSettings
from ..store.files import writing
from .outputs import calibration_words
from .run import CONFIRMED, TO_REVIEW, Found, Result

MOST_PAIRS = 200
TEXT_CHARS = 300


def write_page(file: Path, result: Result, catalog: str, settings: CatalogSettings) -> None:
    """Write the first MOST_PAIRS pairs to `file`, atomically; those of one group stand together."""
    shown = in_groups(result.pairs)[:MOST_PAIRS]
    pictures = Pictures(settings)
    page = render(
        "dedupe.html",
        catalog=catalog,
        content=result.content,
        calibration=calibration_words(result.content),
        to_review=TO_REVIEW,
        pairs=[side_by_side(found, result.listings.products, pictures) for found in shown],
        sizes=[len(rows) for rows in result.groups],
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")


def in_groups(pairs: Sequence[Found]) -> list[Found]:
    """Return the pairs, those of a group beside the group's best; within that as they were."""
    first: dict[int, int] = {}
    for at, found in enumerate(pairs):
        if found.group >= 0:
            first.setdefault(found.group, at)
    order = sorted(range(len(pairs)), key=lambda at: (first.get(pairs[at].group, at), at))
    return [pairs[at] for at in order]


def side_by_side(found: Found, products: Sequence[Product], pictures: Pictures) -> dict[str, Any]:
    """Return what the page shows of a pair."""
    evidence = found.evidence
    sides = []
    for at, row in enumerate(found.pair):
        product = products[row]
        sides.append(
            {
                "id": product.id,
                "title": product.title,
                "text": _short(product.description),
                "product_id": product.product_id or "",
                "price": f"{evidence.prices[at]:g}" if evidence.prices else "",
                "picture": pictures.of(product.images),
                "words": evidence.other_words[at],
            }
        )
    return {
        "score": found.score,
        "status": found.status,
        "confirmed": found.status == CONFIRMED,
        "photos": any(side["picture"] for side in sides),
        "group": found.group + 1 if found.group >= 0 else None,
        "sides": sides,
        "evidence": evidence,
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else line[: TEXT_CHARS - 1] + "…"
