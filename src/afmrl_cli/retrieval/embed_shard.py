"""A shard of the vectors: `afmrl embed --shard i/n` computes those of its products, `afmrl merge` joins all of them.

A shard keeps its vectors in the chunks that a killed `afmrl embed` goes on from, so that merging is `afmrl embed`
itself with the chunks of all shards at hand: what it writes is what one process would have written.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..attributes.views import open_views
from ..catalog.problems import Problems
from ..store.files import TEMPORARY_PREFIX, naming
from ..store.shards import DATABASE, Group, Shard, complete_group, facts_of, open_shard, shards_there
from ..workspace import Workspace
from .cache import VectorCache
from .colors import encode_colors, usable_colors, wants_colors
from .embed import EmbedSummary, embed_catalog, encode_products, enriching_source, with_fit
from .histogram import FINE
from .listings import Listings
from .vectors import LISTINGS, open_current, vectors_folder


@dataclass(frozen=True)
class ShardSummary:
    """What `embed_shard` did: `encoded` of the shard's `products` now, `left_out` have nothing that can be read."""

    embedder: str
    shard: str
    folder: Path
    products: int
    encoded: int
    left_out: int
    without_attributes: int
    seconds: float


def embed_shard(work: Workspace, shard: Shard) -> ShardSummary:
    """Compute the vectors of the shard's products that neither it nor the store has. Raises as `open_shard` and
    `embed_catalog` do.
    """
    started = time.monotonic()
    work = with_fit(work, together=True)
    place, source, problems = vectors_folder(work), enriching_source(work), Problems()
    with open_shard(work.folder, "embed", place.name, shard, _facts(work)) as opened:
        work = work.in_shard(opened)
        with open_views(work, source) as views, naming(opened.folder):
            before = open_current(place)
            cache = VectorCache(opened.vectors, 0 if before is None else before.matrix.shape[1])
            there = len(cache)
            with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=opened.folder) as scratch:
                file = Path(scratch) / LISTINGS
                seen, empty = encode_products(work, views, cache, before, file, problems)
                if wants_colors(work):
                    known = before.listings.column("key") if before and usable_colors(before) else ()
                    encode_colors(work, Listings(file), VectorCache(opened.colors, FINE), set(known))
    problems.tell(work.listener)
    views.tell(work.listener)
    return ShardSummary(
        embedder=work.embedder_id,
        shard=str(shard),
        folder=opened.folder,
        products=len(seen.keys),
        encoded=len(cache) - there,
        left_out=sum(key in empty for key in seen.keys),
        without_attributes=seen.without_attributes if source is not None else 0,
        seconds=time.monotonic() - started,
    )


def embed_group(work: Workspace) -> Group | None:
    """Return the complete shards of the settings' embedder, None where nothing was embedded in shards. Raises as
    `complete_group` does.
    """
    if not shards_there(work.folder, "embed"):
        return None
    return complete_group(work.folder, "embed", vectors_folder(work).name, _facts(work))


def join_vectors(work: Workspace, group: Group) -> EmbedSummary:
    """Make the version of the vectors that one process would have made. Raises as `embed_catalog` does."""
    with work.database() as database:  # whose hashes of photos need not be computed again
        database.join([folder / DATABASE for folder in group.folders])
    return embed_catalog(work, shards=group)


def _facts(work: Workspace) -> dict[str, Any]:
    source = enriching_source(work)
    more = {"attributes": asdict(source)} if source is not None else {}
    return facts_of(work.folder, work.settings, "embed", **more)
