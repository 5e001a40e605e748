"""`afmrl merge`: what several processes have made, each its shard, becomes one store."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from ..store.lock import writer_lock
from .embed import hybrid_weights, show_vectors, vectors_document
from .flags import setting
from .options import Session, in_session


@in_session(
    setting("embed.enrich"),
    setting("embed.index"),
    setting("embed.dimensions"),
    setting("embed.vectors"),
    setting("model.preset"),
    setting("model.generator", metavar="NAME"),
    setting("model.embedder", metavar="NAME"),
    writes=True,
)
def merge(session: Session) -> None:
    """Join what processes with --shard have made into the store, as if one process had made all of it.

    Shards that are missing, not done, or made with other settings, models or another catalog are refused, and nothing
    is changed. Interrupted, the same command goes on.

    Example: afmrl merge my-shop
    """
    from ..attributes.shards import attribute_group, join_attributes
    from ..retrieval.embed_shard import embed_group, join_vectors

    work, out = session.work, session.out
    document: dict[str, Any] = {"attributes": None, "embed": None}
    with out, writer_lock(work.folder.store, "afmrl merge", lend=True):
        attributes, vectors = attribute_group(work), embed_group(work)
        if not (attributes or vectors):
            raise DataError(f"{work.folder.store}: no shards to merge", "make them: `afmrl embed --shard 0/8`")
        if attributes:
            texts = join_attributes(work, attributes)
            attributes.remove()
            document["attributes"] = {"shards": len(attributes.folders), "texts": texts}
            out.note(f"{texts:,} attribute texts of {len(attributes.folders)} shards joined")
        if vectors:
            summary = join_vectors(work, vectors)
            weights = hybrid_weights(session)
            vectors.remove()
            document["embed"] = {"shards": len(vectors.folders), **vectors_document(summary, weights)}
            out.note(f"vectors of {len(vectors.folders)} shards joined")
            show_vectors(session, summary, weights)
    out.document("afmrl.merge/1", document)
