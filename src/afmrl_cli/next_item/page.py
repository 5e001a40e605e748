"""An evaluation of recommenders as one HTML file that needs no network: its tables, and some questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import read_products
from ..retrieval.page import Pictures, render
from ..store.files import writing
from ..workspace import Workspace
from .measure import Measurement
from .metrics import identity
from .tables import all_tables, remarks

EXAMPLES, HISTORY, TITLE_CHARS = 12, 6, 90


def write_page(file: Path, measured: Measurement, work: Workspace) -> None:
    """Write the evaluation to `file`, atomically; customers are not named, not even by hash."""
    content = measured.content
    chosen = _examples(measured, content["seed"])
    wanted = {listing for case in chosen for listing in (*case["history"], *case["shown"], case["target"])}
    catalog = read_products(work.folder, work.settings.catalog, Problems())
    products = {each.id: each for each in catalog if each.id in wanted}
    pictures = Pictures(work.settings.catalog)
    page = render(
        "eval-recommender.html",
        content=content,
        tables=[
            {"title": title, "columns": columns, "rows": [[_cell(cell) for cell in row] for row in rows]}
            for title, columns, rows in all_tables(content, wide=True)
        ],
        remarks=[*remarks(content), *content["notes"]],
        cases=[_case(case, products, pictures) for case in chosen],
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")


def _cell(cell: object) -> str:
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def _examples(measured: Measurement, seed: int) -> list[dict[str, Any]]:
    """Return some questions, sampled at random, with what the main system shows for each."""
    histories, ranked = measured.histories, measured.ranked[measured.content["main"]]
    order = sorted(range(len(measured.questions)), key=lambda row: identity(measured.questions[row], histories, seed))
    found = []
    for row in order[:EXAMPLES]:
        question = measured.questions[row]
        names = histories.ids
        found.append(
            {
                "history": [names[place] for place in question.history[-HISTORY:]],
                "before": max(0, len(question.history) - HISTORY),
                "shown": [names[place] for place in ranked.shown[row] if place >= 0],
                "target": names[question.target],
                "rank": float(ranked.full.mean[row]),
                "never": bool(ranked.full.never[row]),
            }
        )
    return found


def _case(case: dict[str, Any], products: Mapping[str, Product], pictures: Pictures) -> dict[str, Any]:
    def card(listing: str) -> dict[str, str | bool]:
        """Return what is shown of a listing."""
        product = products[listing]
        text = " ".join((product.title or listing).split())
        return {
            "id": listing,
            "text": text if len(text) <= TITLE_CHARS else text[: TITLE_CHARS - 1] + "…",
            "picture": pictures.of(product.images),
            "right": listing == case["target"],
        }

    return {
        **case,
        "history": [card(listing) for listing in case["history"]],
        "shown": [card(listing) for listing in case["shown"]],
        "target": card(case["target"]),
    }
