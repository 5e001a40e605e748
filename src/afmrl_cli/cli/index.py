"""`afmrl index`: the stored vectors in another engine, kept up to date, or as files that others load."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import guarded
from .options import Session, in_session, is_plain_and_far, tell_embedder

if TYPE_CHECKING:
    from ..index.push import PushSummary

index = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Push vectors and listings into Qdrant, or export them as files."
)
To = Annotated[
    str, typer.Option("--to", metavar="PLACE", help="A folder, or a server: http://127.0.0.1:6333/collections/NAME.")
]


def push(
    session: Session,
    to: To,
    force: Annotated[bool, typer.Option("--force", help="Even where most of what is there would be removed.")] = False,
) -> None:
    """Push the stored vectors, with what filters go by, into Qdrant: in a folder, or on a server.

    Only new and changed products are sent, those that are gone are removed. Another embedder's vectors are filled in
    beside, and then take the place of the old ones at once. Interrupted, the same command goes on. The key for a server
    is read from AFMRL_INDEX_KEY.

    Example: afmrl index push my-shop --to /srv/index
    """
    from ..index.place import open_engine
    from ..index.push import push_index

    tell_embedder(session)
    warn_of_plain_key(session, to)
    with session.out, open_engine(to, "afmrl index push", session.folder.root) as engine:
        summary = push_index(session.work, engine, force=force)
    session.out.document("afmrl.index-push/1", asdict(summary))
    _show(session, summary)


def _show(session: Session, summary: PushSummary) -> None:
    out, (low, high) = session.out, summary.interval
    done = (
        f"{summary.sent:,} sent, {summary.removed:,} removed" if summary.sent or summary.removed else "nothing changed"
    )
    out.text(f"{summary.products:,} products by {summary.embedder}: {done} in {summary.seconds:.1f} s")
    if summary.replaced:
        out.text(f"  in place of the vectors of {summary.replaced}")
    of = f"95 % interval {low:.3f} to {high:.3f}, " if summary.queries < summary.products else ""
    out.text(f"  recall@10 {summary.recall:.3f} against exact search ({of}{summary.queries:,} stored vectors)")
    disk = f"{summary.bytes / 2**20:,.1f} MiB, " if summary.bytes is not None else ""
    out.text(f"  {disk}{summary.index}")


def warn_of_plain_key(session: Session, place: str) -> None:
    """Warn before the key of an index goes where others can read it."""
    from ..index.engine import INDEX_KEY_VARIABLE

    if is_plain_and_far(place) and os.environ.get(INDEX_KEY_VARIABLE):
        session.out.warn(f"the key in {INDEX_KEY_VARIABLE} goes over plain http to another machine: use https")


def export(
    session: Session,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to write; an earlier export is replaced.")],
) -> None:
    """Write vectors.npy and listings.parquet, as LanceDB, pgvector, Milvus and OpenSearch load them.

    Example: afmrl index export my-shop --to exported
    """
    from ..index.export import export_index

    with session.out:
        summary = export_index(session.work, to)
    session.out.document("afmrl.index-export/1", asdict(summary))
    size = f"{summary.bytes / 2**20:,.1f} MiB"
    session.out.text(f"{summary.products:,} products by {summary.embedder}, {summary.dimension} numbers each, {size}")
    session.out.text(f"  {summary.folder}")


index.command("push")(guarded(in_session()(push)))
index.command("export")(guarded(in_session()(export)))
