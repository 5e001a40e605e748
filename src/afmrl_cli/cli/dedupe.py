"""`afmrl dedupe`: which listings are the same product."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .flags import setting
from .options import Session, in_session, tell_embedder, warn_of_two_faiss

if TYPE_CHECKING:
    from ..dedupe.run import Result
    from ..retrieval.vectors import Vectors

SHOWN = 20


@in_session(
    setting("dedupe.precision"),
    setting("dedupe.threshold"),
    setting("dedupe.rerank"),
    setting("dedupe.verdicts", metavar="FILE", repeat=True, from_here=True),
    writes=True,
)
def dedupe(
    session: Session,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the pairs as CSV, to be filled in by people.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the pairs side by side, with pictures.")
    ] = None,
) -> None:
    """Find listings that are the same product, by their vectors, text, codes, attributes, prices and photos.

    Shown is what the catalog's product_id does not say already. Known identities and verdicts teach the score and give
    precision and recall on held-out listings; without them scores are weighed by hand.

    Example: afmrl dedupe --out review.csv --html review.html; then afmrl dedupe --verdicts review.csv
    """
    from ..dedupe.outputs import check_files, keep, write_table
    from ..dedupe.page import write_page
    from ..dedupe.run import find_duplicates
    from ..store.lock import writer_lock

    work = session.work
    check_files(work, out, html)
    vectors = _vectors(session)
    with session.out, writer_lock(work.folder.store, "afmrl dedupe"):
        result = find_duplicates(work, vectors)
        place = keep(work, result)
    if out:
        write_table(out, result)
    if html:
        write_page(html, result, session.folder.catalog.name, session.settings.catalog)
    _show(session, result, {"run": place, "out": out, "html": html})


def _vectors(session: Session) -> Vectors | None:
    """Return the stored vectors; None, with a note, when the catalog has none at all."""
    from ..retrieval.vectors import CURRENT, load_vectors, stale_products

    if not any(session.folder.embeddings.glob(f"*/{CURRENT}")):
        session.out.note("no vectors: compared by text, codes, attributes and photos only; `afmrl embed` makes them")
        return None
    warn_of_two_faiss(session)
    tell_embedder(session)
    vectors = load_vectors(session.work)
    if stale := stale_products(session.work, vectors):
        session.out.note(f"{stale:,} products are new, changed or gone since `afmrl embed`: run it again")
    return vectors


def _show(session: Session, result: Result, files: Mapping[str, Path | None]) -> None:
    from ..dedupe.outputs import SCHEMA, calibration_words, document

    out, content = session.out, result.content
    out.document(SCHEMA, {"catalog": session.folder.catalog, **document(result), "files": files})
    products = result.listings.products
    rows = []
    for found in result.pairs[:SHOWN]:
        one, other = (products[row] for row in found.pair)
        evidence = found.evidence
        sides = [f"{one.id}\n{other.id}", f"{one.title}\n{other.title}"]
        alike = ", ".join(
            f"{name} {value:.2f}"
            for name, value in (
                ("vectors", evidence.vector),
                ("photos", evidence.photo),
                ("text", evidence.text),
                ("reranker", evidence.reranker),
            )
            if value is not None
        )
        rows.append(
            [found.group + 1 if found.group >= 0 else "-", round(found.score, 3), *sides, alike, evidence.conflicts]
        )
    if rows:
        out.table(["group", "score", "id", "title", "alike", "different"], rows)
    if len(result.pairs) > SHOWN:
        out.text(f"... and {len(result.pairs) - SHOWN:,} more: --out, --html or --json shows all")
    _measured(session, content)
    pairs, groups = ("" if len(found) == 1 else "s" for found in (result.pairs, result.groups))
    kind = f"probable duplicate{pairs}" if content["precision_reached"] else f"pair{pairs} to review"
    count = (
        f"{len(result.pairs):,} {kind} in {len(result.groups):,} group{groups} among {content['listings']:,} listings"
    )
    out.words(f"{count}; scores from {content['threshold']:.3f} ({content['threshold_by']})")
    out.words(f"  {calibration_words(content)}")
    if content["known"]["same_in_catalog"]:
        out.words(f"  {content['known']['same_in_catalog']:,.0f} pairs were known before and are not among them")
    if content["variants_left_out"]:
        out.words(f"  {content['variants_left_out']:,} pairs left out: variants of one style (group_id)")
    for file in files.values():
        if file:
            out.text(f"  {file}")


def _measured(session: Session, content: Mapping[str, Any]) -> None:
    held_out = content["held_out"]
    if not held_out:
        if content["fitted"]:
            session.out.note("no precision and recall: too few known duplicates are among the held-out listings")
        return
    rows = [
        [f"{point['threshold']:.2f}", *(round(point[name], 3) for name in ("precision", "recall", "f1"))]
        for point in held_out["curve"]
    ]
    session.out.table(["threshold", "precision", "recall", "F1"], rows, "on held-out listings with known identities")
    at = held_out["at_threshold"]
    session.out.text(
        f"  at {at['threshold']:.3f}: precision {_share(at, 'precision')}, recall {_share(at, 'recall')} of "
        f"{held_out['same']:g} known pairs (compared were {held_out['candidate_recall']:.3f} of them)"
    )


def _share(at: Mapping[str, Any], name: str) -> str:
    low, high = at[f"{name}_interval"]
    return f"{at[name]:.3f} ({low:.3f} to {high:.3f})"
