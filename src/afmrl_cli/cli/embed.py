"""`afmrl embed`: vectors of all products, and an index."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .options import CatalogArgument, Json, Quiet, Session, Set, Verbose, start, warn_of_two_faiss

if TYPE_CHECKING:
    from ..retrieval.embed import EmbedSummary


def embed(
    catalog: CatalogArgument = None,
    enrich: Annotated[
        str | None, typer.Option(help="Which side gets attribute text: none, query or both.", show_default=False)
    ] = None,
    index: Annotated[str | None, typer.Option(help="auto, flat, hnsw or ivf.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Products at a time.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="Models: nano, paper or qwen3.", show_default=False)] = None,
    embedder: Annotated[str | None, typer.Option(help="Hub name or folder of a Qwen-VL.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute all vectors anew.")] = False,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    set_: Set = None,
) -> None:
    """Compute each product's vector and build the index; only new and changed products cost anything.

    Interrupted, the same command goes on where it was.

    Example: afmrl embed catalog.csv --enrich both
    """
    flags = {
        "embed.enrich": enrich,
        "embed.index": index,
        "embed.batch_size": batch_size,
        "model.preset": preset,
        "model.embedder": embedder,
    }
    session = start(
        catalog,
        json_mode=json_mode,
        quiet=quiet,
        verbose=verbose,
        set_=set_,
        flags=flags,
        roles=("embedder",),
        writes=True,
    )

    from ..retrieval.embed import embed_catalog

    warn_of_two_faiss(session)
    with session.out:
        summary = embed_catalog(session.work, force=force)
    _show(session, summary)


def _show(session: Session, summary: EmbedSummary) -> None:
    out = session.out
    out.document("afmrl.embed/1", asdict(summary))
    if summary.without_attributes:
        out.note(f"{summary.without_attributes:,} products have no stored attributes: run `afmrl attributes` first")
    done = f"{summary.encoded:,} vectors computed" if summary.changed else "nothing changed"
    out.text(f"{summary.products:,} products by {summary.embedder}: {done} in {summary.seconds:.1f} s")
    if summary.encoded and summary.seconds >= 1:
        out.text(f"  {summary.encoded / summary.seconds:.1f} a second, loading and indexing included")
    if summary.removed:
        out.text(f"  {summary.removed:,} products are no longer in the catalog")
    if summary.left_out:
        out.text(f"  {summary.left_out:,} products left out: neither text nor a readable photo")
    out.text(f"  index: {summary.index}, recall@10 {summary.index_recall:.3f}")
    out.text(f"  {summary.folder}")
