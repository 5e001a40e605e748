"""The report as one HTML file that needs no network: tables, comparisons, and the worst queries with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..retrieval.page import Pictures, render
from ..settings import Settings
from ..store.files import writing
from .metrics import ranked_ids
from .report import Report
from .tables import more_tables, remarks, systems_table
from .task import Document, Query

WORST, SHOWN, RIGHT = 24, 4, 2
TEXT_CHARS = 160


def write_page(file: Path, report: Report, settings: Settings) -> None:
    """Write the report to `file`, atomically. Photos that can't be opened are missing on the page, which says so."""
    content = report.content
    tables = [systems_table(content), *more_tables(content)]
    page = render(
        "eval.html",
        content=content,
        tables=[{"title": title, "columns": columns, "rows": _cells(rows)} for title, columns, rows in tables],
        remarks=remarks(content),
        worst=_worst(report, settings),
    )
    with writing(file) as temporary:
        temporary.write_text(page, "utf-8")


def _cells(rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]


def worst_queries(report: Report) -> list[str]:
    """Return queries from the worst: by reciprocal rank, then nDCG, then id. Those found first are not among them."""
    ranks, gains = report.per_query["mrr"], report.per_query["ndcg@10"]
    return sorted((query for query in ranks if ranks[query] < 1), key=lambda query: (ranks[query], gains[query], query))


def _worst(report: Report, settings: Settings) -> list[dict[str, Any]]:
    by_id = {document.id: document for document in report.task.documents}
    queries = {query.id: query for query in report.task.queries}
    pictures = Pictures(settings.catalog)
    return [_case(queries[id], report, by_id, settings, pictures) for id in worst_queries(report)[:WORST]]


def _case(
    query: Query, report: Report, by_id: Mapping[str, Document], settings: Settings, pictures: Pictures
) -> dict[str, Any]:
    ids = ranked_ids(report.own.get(query.id, ()))
    grades, variants = report.task.qrels[query.id], report.variants.get(query.id, frozenset())
    right = {id for id, grade in grades.items() if grade >= settings.eval.min_grade}
    places = {id: rank for rank, id in enumerate(ids, 1)}

    def card(id: str) -> dict[str, Any]:
        """Return what is shown of the listing `id`."""
        document = by_id[id]
        kind = "right" if id in right else "variant" if id in variants else "wrong"
        text = document.product.title or document.row.text
        rank = places.get(id)
        return {
            "id": id,
            "kind": kind,
            "rank": rank,
            "text": _short(text),
            "picture": pictures.of(document.product.images),
        }

    best = sorted(right, key=lambda id: (places.get(id, len(ids) + 1), id))
    return {
        "id": query.id,
        "text": _short(query.title or query.text),
        "pictures": [picture for path in query.images[:2] if (picture := pictures.of([path]))],
        "found": [card(id) for id in ids[:SHOWN]],
        "right": [card(id) for id in best[:RIGHT] if places.get(id, SHOWN + 1) > SHOWN],
        "right_count": len(right),
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else line[: TEXT_CHARS - 1] + "…"
