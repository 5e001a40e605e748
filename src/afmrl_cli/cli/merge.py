"""`afmrl merge`: what several processes have made, each its shard, becomes one store."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from ..store.lock import writer_lock
from .check import check_and_show
from .embed import hybrid_weights, show_vectors, vectors_document
from .fetch_images import fetch_group, join_fetched
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
    from ..catalog.check_shard import check_group, checked_photos
    from ..retrieval.embed_shard import embed_group, join_vectors

    work, out, failed = session.work, session.out, None
    document: dict[str, Any] = {"fetch-images": None, "attributes": None, "embed": None, "check": None}
    with out, writer_lock(work.folder.store, "afmrl merge", lend=True):
        fetched, attributes, vectors = fetch_group(session), attribute_group(work), embed_group(work)
        checked = check_group(work.folder, work.settings)
        groups = [group for group in (fetched, attributes, vectors, checked) if group]
        if not groups:
            raise DataError(f"{work.folder.store}: no shards to merge", "make them: `afmrl embed --shard 0/8`")
        for group in groups:
            shards = {"shards": len(group.folders)}
            if group is fetched:
                document["fetch-images"] = shards | join_fetched(session, group)
            elif group is attributes:
                texts = join_attributes(work, group)
                document["attributes"] = shards | {"texts": texts}
                out.text(f"{texts:,} attribute texts of {len(group.folders)} shards")
            elif group is vectors:
                summary = join_vectors(work, group)
                weights = hybrid_weights(session)
                document["embed"] = shards | vectors_document(summary, weights)
                show_vectors(session, summary, weights)
            else:
                known = checked_photos(work.folder, group)
                found, failed = check_and_show(session, known=known)
                document["check"] = shards | found
            group.remove()
    out.document("afmrl.merge/1", document)
    if failed:
        raise failed
