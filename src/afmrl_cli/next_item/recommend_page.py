"""Recommendations as one HTML file: the history's photos, what is recommended, and why. The customer is not in it."""

from __future__ import annotations

from pathlib import Path

from ..retrieval.page import Pictures, render
from ..store.files import writing
from ..workspace import Workspace
from .recommending import Recommendation
from .tastes import tastes_in_words

MOST_SHOWN = 12


def write_page(file: Path, found: Recommendation, work: Workspace) -> None:
    """Write recommendations to `file`, atomically."""
    small, history = Pictures(work.settings.catalog), found.history
    page = render(
        "recommend.html",
        catalog=work.folder.catalog.name,
        count=len(history),
        taste=tastes_in_words(found.tastes),
        history=[{"name": each.name, "picture": small.of(each.images)} for each in history[:MOST_SHOWN]],
        products=[{"product": each, "picture": small.of(each.listing.images)} for each in found.products],
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")
