"""The first results of a query, read again in pairs with it, and put into another order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..catalog.pictures import image_loader, load_photos
from ..catalog.problems import Problems
from ..models.embed_input import Item
from ..scores import best_first
from ..settings import Settings
from ..workspace import Workspace
from .listings import Listing

if TYPE_CHECKING:
    from ..models.reranker import Reranker


@dataclass(frozen=True)
class Reranked:
    """The places of the candidates, best first, with their fused scores in this order, and for each candidate, in the
    order that was given, the probability that it is the query's product, and the scores of both orders [n, 2].
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    both: NDArray[np.float64]


def rerank(reranker: Reranker, query: Item, candidates: Sequence[Item], cosines: NDArray[np.floating]) -> Reranked:
    """Read `query` in pairs with each of `candidates`, whose photos are loaded (`with_photos`), and order these by the
    scores fused with the embedder's `cosines`; ties keep the order that is given.
    """
    from ..models.reranker import fuse, probabilities

    scores = reranker.score([(query, candidate) for candidate in candidates])
    fused = fuse(scores, cosines, reranker.weight)
    order, _ = best_first(fused, len(fused))
    return Reranked(order, fused[order], probabilities(scores), scores)


def cost(both: NDArray[np.float64], seconds: float) -> tuple[dict[str, float], str]:
    """Return what reading pairs took and how far their two orders [n, 2] lie apart: for documents, and in words."""
    from ..models.reranker import position_bias

    bias, rate = position_bias(both), len(both) / max(seconds, 1e-9)
    summary = {"pairs": len(both), "seconds": seconds, **bias}
    words = (
        f"{len(both):,} pairs, both orders of each, in {seconds:.1f} s ({rate:.1f} products a second); the orders "
        f"differ by {bias['position_bias']:.2f} logits, and give another verdict in {bias['flipped']:.1%}"
    )
    return summary, words


def with_photos(item: Item, name: str, reranker: Reranker, settings: Settings, problems: Problems) -> Item:
    """Return `item` with those of its photos loaded that the reranker reads; `name` is shown of one that can't be
    opened.
    """
    paths = [image for image in item.images if isinstance(image, Path)]
    if len(paths) < len(item.images):  # a query's photos, which are opened
        return item
    found = load_photos(paths, image_loader(reranker, settings.catalog), settings.model.generator_images)
    found.report(name, 0, settings.catalog, problems)
    return replace(item, images=tuple(found.photos), attributes="")


def rerank_first(
    work: Workspace, query: Item, listings: Sequence[Listing], cosines: NDArray[np.floating]
) -> tuple[NDArray[np.int64], list[float], dict[str, float]]:
    """Return the places of `listings` [n] in the reranker's order, the probability of each, in that order, that it is
    the query's product, and what that took, which is noted, too. `cosines` [n] are the embedder's. Raises ModelError
    without a reranker.
    """
    settings, problems, reranker = work.settings, Problems(), work.reranker()
    if not listings:
        return np.empty(0, dtype=np.int64), [], cost(np.empty((0, 2)), 0.0)[0]
    began = time.monotonic()
    root = work.folder.root
    items = [with_photos(listing_item(each, root), each.id, reranker, settings, problems) for each in listings]
    shown = with_photos(query, "the query", reranker, settings, problems)
    problems.tell(work.listener)
    found = rerank(reranker, shown, items, cosines)
    summary, words = cost(found.both, time.monotonic() - began)
    work.listener.note(f"reranked by {reranker.id}: {words}")
    return found.order, [float(found.probabilities[place]) for place in found.order], summary


def listing_item(listing: Listing, root: Path) -> Item:
    """Return what a model reads of a stored listing."""
    return Item(listing.text, tuple(root / name for name in listing.images))
