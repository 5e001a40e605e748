"""`afmrl embed`: vectors of all products, and an index."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..store.lock import writer_lock
from ..store.shards import Shard, parse_shard
from .flags import AddressOption, EngineOption, ShardOption, WorkersOption, setting
from .options import Session, engine_of, in_session, tell_embedder, warn_of_plain_http, warn_of_two_faiss

if TYPE_CHECKING:
    from ..engine.ray_data import Engine
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
    session: Session,
    force: Annotated[bool, typer.Option("--force", help="Compute all vectors anew.")] = False,
    shard: ShardOption = None,
    engine: EngineOption = None,
    address: AddressOption = "",
    workers: WorkersOption = None,
) -> None:
    """Compute each product's vector and build the index; only new and changed products cost anything.

    Interrupted, the same command goes on where it was. The key for an endpoint is read from AFMRL_API_KEY.

    Example: afmrl embed catalog.csv --enrich both
    """

    part = parse_shard(shard) if shard else None
    if part and force:
        raise UsageError("--shard and --force exclude each other", "remove the shards' folder in .afmrl/shards instead")
    by = engine_of(engine, address, workers, shard=shard, force=force)
    tell_embedder(session)
    warn_of_two_faiss(session)
    warn_of_plain_http(session, session.settings.embed.endpoint)
    if part:
        _embed_shard(session, part)
        return
    if by:
        _embed_by(session, by)
        return
    from ..retrieval.embed import embed_catalog

    with session.out:
        summary = embed_catalog(session.work, force=force)
        weights = hybrid_weights(session, force=force)
    session.out.document("afmrl.embed/1", vectors_document(summary, weights))
    show_vectors(session, summary, weights)


def _embed_shard(session: Session, shard: Shard) -> None:
    from ..retrieval.embed_shard import embed_shard

    with session.out as out:
        summary = embed_shard(session.work, shard)
    out.document("afmrl.embed-shard/1", asdict(summary))
    out.text(
        f"shard {shard}: {summary.products:,} products by {summary.embedder}, {summary.encoded:,} vectors computed in "
        f"{summary.seconds:.1f} s; `afmrl merge` joins the shards"
    )


def _embed_by(session: Session, engine: Engine) -> None:
    from ..engine.ray_data import run_shards
    from ..engine.worker import Job
    from ..retrieval.embed_shard import ShardSummary, embed_group, join_vectors
    from ..retrieval.vectors import vectors_folder

    work, began = session.work, time.monotonic()
    with session.out as out:
        made = run_shards(Job("embed", work.folder, work.settings), vectors_folder(work).name, engine, out)
        with writer_lock(work.folder.store, "afmrl merge", lend=True):
            group = embed_group(work)
            assert group is not None
            summary = join_vectors(work, group)
            weights = hybrid_weights(session)
            group.remove()
    parts = [each for each in made if isinstance(each, ShardSummary)]
    encoded, seconds = sum(each.encoded for each in parts), sum(each.seconds for each in parts)
    summary = replace(summary, encoded=encoded, seconds=time.monotonic() - began)
    shards = {"shards": len(parts), "worker_seconds": seconds}
    out.document("afmrl.embed/1", vectors_document(summary, weights) | shards)
    show_vectors(session, summary, weights)


def hybrid_weights(session: Session, *, force: bool = False) -> HybridWeights | None:
    """Choose the weights of hybrid search for new vectors; None where they are as they were, or are not wanted."""
    from ..evaluation.hybrid_weights import bring_weights_up_to_date

    return bring_weights_up_to_date(session.work, force=force) if session.settings.search.hybrid != "no" else None


def vectors_document(summary: EmbedSummary, weights: HybridWeights | None) -> dict[str, Any]:
    """Return what --json says of vectors."""
    hybrid = {kind: dict(each) for kind, each in weights.by_kind.items()} if weights else None
    return {**asdict(summary), "hybrid": hybrid}


def show_vectors(session: Session, summary: EmbedSummary, weights: HybridWeights | None) -> None:
    """Show what is stored now."""
    from ..models.backends import reads_text

    out = session.out
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
