"""Retrieval of what a customer may want next: histories, sources, and their fused ranking.

`make_retrieval` is a function of the histories' parts: sources learn from the training part, weights are fitted on the
validation part, the test part is not touched. For other parts give it histories with other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from ..catalog.problems import Problems
from ..catalog.read import read_products
from ..errors import DataError, ModelError
from ..recommend.customers import recommend_folder
from ..recommend.run import find_interactions, load_interactions
from ..recommend.split import split_interactions
from ..retrieval.vectors import Vectors, load_vectors
from ..store.files import hash_json, read_object, write_json
from ..workspace import Workspace
from .fused import PRIOR, Fused, Weights, fit_weights
from .histories import Histories, Recommender, make_histories, no_histories
from .neighbours import Neighbours
from .popularity import Popularity, RecentPopularity
from .repeats import Had
from .similar import ListingVectors, last_item, whole_history

VERSION = 3
"""Of the way in which weights are fitted: another one fits them anew."""
WEIGHTS = "weights.json"


Lock = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Retrieval:
    """`recommenders` are the single sources in the order of tables, those of likeness only where there are `vectors`;
    `fused` ranks by all of them."""

    histories: Histories
    vectors: ListingVectors | None
    recommenders: Sequence[Recommender]
    fused: Fused


def make_sources(histories: Histories, vectors: ListingVectors | None) -> list[Recommender]:
    """Return what ranks listings by itself, learnt from the training part; without vectors those that need none."""
    similar = [last_item(vectors), whole_history(vectors)] if vectors else []
    return [
        Popularity(histories),
        RecentPopularity(histories),
        *similar,
        Neighbours(histories),
        Had(len(histories.ids)),
    ]


def make_retrieval(histories: Histories, vectors: ListingVectors | None, weights: Weights | None = None) -> Retrieval:
    """Return the retrieval over `histories`; weights are fitted where none are given."""
    sources = make_sources(histories, vectors)
    weights = weights or fit_weights(histories, sources)
    return Retrieval(histories, vectors, sources, Fused(sources, weights, len(histories.ids)))


def learnt_from_all(histories: Histories) -> Histories:
    """Return the histories with every row for training: for recommending, where nothing is measured."""
    return replace(histories, part=np.zeros_like(histories.part))


def open_retrieval(work: Workspace, lock: Lock = nullcontext) -> Retrieval:
    """Return the retrieval of the stored interactions and vectors; its weights are stored, too.

    The caller holds the store's lock, or gives `lock`, which is then held only where something is to be written. Raises
    DataError where there are no interactions.
    """
    ids = [product.id for product in read_products(work.folder, work.settings.catalog, Problems())]
    return retrieval_over(work, ids, lock)


def retrieval_over(work: Workspace, ids: Sequence[str], lock: Lock = nullcontext) -> Retrieval:
    """Return the retrieval as `open_retrieval` does, over the catalog's listings `ids`, which were read before."""
    loaded = find_interactions(work)
    if loaded is None:
        with lock():
            loaded = load_interactions(work)
    split = split_interactions(loaded.interactions, work.settings.recommend)
    histories = make_histories(loaded.interactions, split, ids)
    vectors = open_vectors(work, ids)
    fingerprint = _fingerprint(histories, vectors)
    weights = _stored_weights(work, fingerprint)
    retrieval = make_retrieval(histories, vectors, weights)
    if weights is None:
        fitted = retrieval.fused.weights
        content = {"fingerprint": fingerprint, "weights": dict(fitted.by_source), "questions": fitted.questions}
        with lock():
            write_json(recommend_folder(work.folder) / WEIGHTS, {**content, "seal": hash_json(content)[:16]})
    return retrieval


def retrieval_of_nobody(work: Workspace, ids: Sequence[str]) -> Retrieval:
    """Return the retrieval of a catalog without interactions: by likeness to a history. Raises ModelError without
    vectors.
    """
    return make_retrieval(no_histories(ids), _vectors_of(load_vectors(work), ids))


def open_vectors(work: Workspace, ids: Sequence[str]) -> ListingVectors | None:
    """Return the stored vectors of the listings `ids`; None, with a warning, where there are none."""
    try:
        vectors = _vectors_of(load_vectors(work), ids)
    except ModelError as error:
        work.listener.warn(f"{error}: nothing is recommended by likeness ({error.hint})")
        return None
    if without := int((vectors.row < 0).sum()):
        work.listener.note(f"{without:,} of {len(ids):,} listings have no vector: run `afmrl embed`")
    return vectors


def _vectors_of(vectors: Vectors, ids: Sequence[str]) -> ListingVectors:
    made_by = hash_json([vectors.manifest["embedder"], vectors.manifest["data"], vectors.manifest["count"]])
    return ListingVectors.of(vectors.matrix, vectors.ids, ids, made_by)


def _fingerprint(histories: Histories, vectors: ListingVectors | None) -> str:
    """Return what the weights were made from."""
    digest = sha256()
    for array in (histories.customer, histories.item, histories.seconds, histories.part):
        digest.update(np.ascontiguousarray(array).tobytes())
    return hash_json([VERSION, digest.hexdigest(), list(histories.ids), vectors.made_by if vectors else ""])


def _stored_weights(work: Workspace, fingerprint: str) -> Weights | None:
    """Return the stored weights; None where there are none, they are damaged, or made from something else."""
    path = recommend_folder(work.folder) / WEIGHTS
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = read_object(path)
        seal = content.pop("seal", "")
        if seal != hash_json(content)[:16] or content["fingerprint"] != fingerprint:
            return None
        weights = {name: float(content["weights"][name]) for name in PRIOR if name in content["weights"]}
        return Weights(weights, int(content["questions"]))
    except (DataError, KeyError, TypeError, ValueError):
        return None  # fitted again
