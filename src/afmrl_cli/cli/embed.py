"""`afmrl embed`: vectors of all products, and an index."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import setting
from .options import Session, in_session, tell_embedder, warn_of_plain_http, warn_of_two_faiss

if TYPE_CHECKING:
    from ..retrieval.embed import EmbedSummary
    from ..retrieval.weights import HybridWeights


@in_session(
    setting("embed.enrich"),
    setting("embed.index"),
    setting("embed.dimensions"),
    setting("embed.vectors"),
    setting("embed.batch_size"),
    setting("embed.endpoint", metavar="URL"),
    setting("embed.endpoint_model", "--model", metavar="NAME"),
    setting("model.preset"),
    setting("model.embedder", metavar="NAME"),
    writes=True,
)
def embed(
    session: Session, force: Annotated[bool, typer.Option("--force", help="Compute all vectors anew.")] = False
) -> None:
    """Compute each product's vector and build the index; only new and changed products cost anything.

    Interrupted, the same command goes on where it was. The key for an endpoint is read from AFMRL_API_KEY.

    Example: afmrl embed catalog.csv --enrich both
    """

    from ..evaluation.hybrid_weights import bring_weights_up_to_date
    from ..retrieval.embed import embed_catalog

    tell_embedder(session)
    warn_of_two_faiss(session)
    warn_of_plain_http(session, session.settings.embed.endpoint)
    with session.out:
        summary = embed_catalog(session.work, force=force)
        weights = None
        if session.settings.search.hybrid != "no":
            weights = bring_weights_up_to_date(session.work, force=force)
    _show(session, summary, weights)


def _show(session: Session, summary: EmbedSummary, weights: HybridWeights | None) -> None:
    from ..models.backends import reads_text

    out = session.out
    hybrid = {kind: dict(each) for kind, each in weights.by_kind.items()} if weights else None
    out.document("afmrl.embed/1", {**asdict(summary), "hybrid": hybrid})
    if summary.without_attributes:
        out.note(f"{summary.without_attributes:,} products have no stored attributes: run `afmrl attributes` first")
    done = f"{summary.encoded:,} vectors computed" if summary.changed else "nothing changed"
    out.text(f"{summary.products:,} products by {summary.embedder}: {done} in {summary.seconds:.1f} s")
    if summary.encoded and summary.seconds >= 1:
        out.text(f"  {summary.encoded / summary.seconds:.1f} a second, loading and indexing included")
    if summary.removed:
        out.text(f"  {summary.removed:,} products are no longer in the catalog")
    if summary.left_out:
        nothing = "neither text nor a photo that can be read"
        if not reads_text(session.settings):
            nothing = "no photo that can be read, and the vision encoder reads nothing else"
        out.text(f"  {summary.left_out:,} products left out: {nothing}")
    out.text(f"  index: {summary.index}, recall@10 {summary.index_recall:.3f}")
    if summary.vectors != "fp32":
        out.text(f"  stored as {summary.vectors}: recall@10 {summary.vectors_recall:.3f} against fp32")
    if summary.dimensions_recall is not None:
        out.text(
            f"  first {summary.dimension} numbers: recall@10 {summary.dimensions_recall:.3f} against whole vectors"
        )
    if weights:
        for kind in weights.tuned:
            shares = ", ".join(f"{part} {weight:g}" for part, weight in weights.of(kind).items())
            out.text(f"  hybrid search, {kind}: {shares} ({weights.words(kind)})")
    out.text(f"  {summary.folder}")
