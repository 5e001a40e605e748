"""Retrieval systems. Each gives a run: a ranking of the gallery for every query that it can read.

Which scores tie, and in what order ties stand, is for `scores.best_first` to say, of vectors and of words alike; tied
products have one score, so that a written run file (six decimals) holds the very ranking that was scored. At most
`depth` products are ranked. A system that can't read a query (BM25 without text, colours without photo, either one
where photo and words together say what is wanted) ranks nothing, and how many queries it could read is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import read_stored
from ..catalog.fingerprints import photo_hash
from ..catalog.pictures import opened
from ..catalog.problems import Problems
from ..models.embed_input import Encoder, Item, for_composed
from ..retrieval.bm25 import fit_bm25, tokenize
from ..retrieval.cache import VectorCache
from ..retrieval.encode import Input, encode_missing
from ..retrieval.histogram import mean_histogram
from ..retrieval.index import exact_search
from ..retrieval.vectors import Vectors
from ..scores import best_first
from ..settings import Settings
from ..store.files import hash_json
from ..workspace import Workspace
from .fusion import FusionWeight, Pair, tuned_fusion
from .metrics import Run
from .ranked import Ranked
from .task import COMPOSED, Document, Query, Task, groups_of
from .trec import SCORE_DECIMALS

CACHED_VECTORS = 200_000
COLOR_HISTOGRAM = "color-histogram-1"
EMBEDDER, VISION_ENCODER = "embedder", "vision-encoder"
"""The first row, by what embeds."""
TUNED_BY = "ndcg@10"
"""By which metric the weights of a fusion are chosen; mAP with coarse."""


Side = Literal["products", "queries", "composed queries"]
COMPOSED_SIDE: Side = "composed queries"


@dataclass(frozen=True)
class SystemRun:
    """The answers of one system; `readable` are the ids of the queries that it could read. `vectors` [n, d] are those
    of the listings `ids`, for systems that have any.
    """

    system: str
    run: Run
    readable: frozenset[str]
    id: str = ""
    ids: tuple[str, ...] = ()
    vectors: NDArray[np.float32] | None = field(default=None, repr=False)
    fusion: tuple[FusionWeight, ...] = ()
    hybrid: tuple[Any, ...] = ()
    """The weights of a hybrid search, `hybrid.HybridWeight`."""


@dataclass(frozen=True)
class RetrievalSystem:
    """A model that turns queries and listings into vectors. `stored` are those of an embedded catalog."""

    name: str
    id: str
    load: Callable[[], Encoder]
    text: bool = True
    photos: bool = True
    query_instruction: str = ""
    target_instruction: str = ""
    stored: Vectors | None = None
    attributes: Mapping[str, str] | None = None
    """Stored attribute texts by fingerprint, added to the queries; None: a model that reads no attributes."""

    def encode(
        self, work: Workspace, inputs: Sequence[Input], side: Side, problems: Problems
    ) -> dict[str, NDArray[np.float32]]:
        """Encode all inputs of which something can be read, by key; those that are cached are not encoded again.

        Composed queries have a cache of their own: a two-sided embedder reads the very same input otherwise there.
        """
        instruction = self.target_instruction if side == "products" else self.query_instruction
        dimension = 0 if self.stored is None else self.stored.matrix.shape[1]
        name, load = f"cache-{self.id}-{hash_json(instruction)[:8]}", self.load
        if side == COMPOSED_SIDE:
            name, load = f"{name}-composed", lambda: for_composed(self.load())
        cache = VectorCache(work.folder.embeddings / name, dimension)
        encode_missing(work, inputs, cache, load, instruction, problems, f"{self.name}: {side}")
        found = {wanted.key: np.array(cache.get(wanted.key)) for wanted in inputs if wanted.key in cache}
        cache.prune(CACHED_VECTORS)
        return found


@dataclass(frozen=True)
class Encoded:
    """What a system has read of a task: the `documents` with their vectors, `matrix` [n, d], and the queries each with
    its vector. Without either there is nothing to rank.
    """

    documents: list[Document]
    matrix: NDArray[np.float32]
    queries: list[tuple[Query, NDArray[np.float32]]]


def vector_run(task: Task, system: RetrievalSystem, work: Workspace, problems: Problems) -> SystemRun:
    """Rank by the inner product of query and product vectors; see `encode_task`. Queries that the system can compare
    with no listing are left out.
    """
    return rank_encoded(encode_task(task, system, work, problems), system, work.settings.eval.depth)


def rank_encoded(encoded: Encoded, system: RetrievalSystem, depth: int) -> SystemRun:
    """Rank what a system has read of a task."""
    if not encoded.documents or not encoded.queries:
        return SystemRun(system.name, {}, frozenset(), system.id)
    run = _rank_vectors(encoded.queries, encoded.documents, encoded.matrix, depth)
    ids = tuple(document.id for document in encoded.documents)
    return SystemRun(system.name, run, frozenset(run), system.id, ids, encoded.matrix)


def encode_task(task: Task, system: RetrievalSystem, work: Workspace, problems: Problems) -> Encoded:
    """Return the vectors of a task's queries and gallery.

    Stored vectors are used where they are of the product as the task shows it; others (changed since `afmrl embed`, a
    photo held out) are encoded and cached. Listings and queries of which the system can read nothing are left out.
    """
    stored = {key: row for row, key in enumerate(system.stored.listings.column("key"))} if system.stored else {}
    inputs = {d.id: _document_input(d, system) for d in task.documents}
    missing = [wanted for wanted in inputs.values() if wanted is not None and wanted.key not in stored]
    fresh = system.encode(work, missing, "products", problems)
    shown = [
        (d, wanted.key)
        for d in task.documents
        if (wanted := inputs[d.id]) and (wanted.key in stored or wanted.key in fresh)
    ]
    encoded = _encode_queries(task.queries, system, work, problems)
    keys = [key for _, key in shown]
    matrix = _matrix(keys, stored, system.stored, fresh) if keys else np.zeros((0, 1), dtype=np.float32)
    return Encoded([document for document, _ in shown], matrix, encoded)


def _encode_queries(
    queries: Sequence[Query], system: RetrievalSystem, work: Workspace, problems: Problems
) -> list[tuple[Query, NDArray[np.float32]]]:
    """Return the queries of which the system can read something, in their order, each with its vector."""
    found: dict[str, NDArray[np.float32]] = {}
    for side in ("queries", COMPOSED_SIDE):
        of_side = [query for query in queries if (query.kind == COMPOSED) == (side == COMPOSED_SIDE)]
        inputs = {query.id: wanted for query in of_side if (wanted := _query_input(query, system)) is not None}
        made = system.encode(work, list(inputs.values()), side, problems) if inputs else {}
        found |= {id: made[wanted.key] for id, wanted in inputs.items() if wanted.key in made}
    return [(query, found[query.id]) for query in queries if query.id in found]


def _document_input(document: Document, system: RetrievalSystem) -> Input | None:
    row, product = document.row, document.product
    text, attributes = (row.text, row.attributes) if system.text else ("", "")
    images = product.images if system.photos else ()
    if system.attributes is not None:
        item = Item(text, images, attributes)
        return None if item.empty else Input(row.key, item, product.id, product.row)
    return _input(document.id, text, images)


def _query_input(query: Query, system: RetrievalSystem) -> Input | None:
    if query.kind == COMPOSED and not (system.text and system.photos):
        return None
    text = query.text if system.text else ""
    stored = system.attributes
    attributes = ""
    if stored is not None and system.text:
        attributes = query.attributes or stored.get(query.fingerprint, "")
    return _input(query.id, text, query.images if system.photos else (), attributes)


def _input(name: str, text: str, images: Sequence[Path], attributes: str = "") -> Input | None:
    if not (text or images or attributes):
        return None
    return Input(query_key(text, images, attributes), Item(text, tuple(images), attributes), name)


def query_key(text: str, images: Sequence[Path], attributes: str = "") -> str:
    """Return what a query's vector is made from, but for the model and the instruction; an unreadable photo counts
    as one.
    """
    photos = [photo_hash(path) if path.is_file() else "unreadable" for path in images]
    return hash_json(["query", text, attributes, photos])


def _matrix(
    keys: Sequence[str], rows: Mapping[str, int], stored: Vectors | None, fresh: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return vectors [n, d] of `keys`, from the stored ones where they are there."""
    if stored is None:
        return np.stack([fresh[key] for key in keys])
    where = np.array([rows.get(key, -1) for key in keys], dtype=np.int64)
    matrix: NDArray[np.float32] = np.array(stored.matrix[where])
    for place in np.flatnonzero(where < 0):
        matrix[place] = fresh[keys[int(place)]]
    return matrix


def bm25_run(task: Task, depth: int) -> SystemRun:
    """Rank by BM25 over product texts; only products that share a word with the query are ranked."""
    texts = {query.id: tokenize(query.text) for query in task.queries if query.text and query.kind != COMPOSED}
    return _lexical_run("bm25", task, [tokenize(document.row.text) for document in task.documents], texts, depth)


def bm25_attributes_run(task: Task, attributes: Mapping[str, str], depth: int) -> SystemRun:
    """Rank by BM25 over stored attribute values alone (`attributes` by fingerprint).

    A query without attributes of its own can't be read, a listing without any is not ranked.
    """
    documents = [_value_words(attributes.get(document.row.fingerprint, "")) for document in task.documents]
    words = {query.id: _value_words(attributes.get(query.fingerprint, "")) for query in task.queries}
    readable = {id: values for id, values in words.items() if values}
    return _lexical_run("bm25-attributes", task, documents, readable, depth)


def _value_words(text: str) -> list[str]:
    return [word for value in read_stored(text).values() for word in tokenize(value)]


def _lexical_run(
    name: str, task: Task, documents: Sequence[Sequence[str]], words: Mapping[str, list[str]], depth: int
) -> SystemRun:
    if not any(documents):  # a gallery of photos: all would be "not found", as if it had searched
        return SystemRun(name, {}, frozenset())
    corpus = fit_bm25(documents)
    ids = [document.id for document in task.documents]
    places = {id: row for row, id in enumerate(ids)}
    run: dict[str, Ranked] = {}
    for query in task.queries:
        if query.id not in words:
            continue
        scores = corpus.scores(words[query.id])
        scores[[places[id] for id in query.exclude if id in places]] = 0
        if query.within is not None:
            scores[[row for row, id in enumerate(ids) if id not in query.within]] = 0
        rows = np.flatnonzero(scores > 0)
        order, found = best_first(scores[rows], depth, rows)
        run[query.id] = Ranked(ids, order, found.astype(np.float64).round(SCORE_DECIMALS))
    return SystemRun(name, run, frozenset(run))


class Colors:
    """The histogram as an encoder, so that it shares the cache and the care for broken photos."""

    id = COLOR_HISTOGRAM
    texts_cut = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return colours [n, 512] of the photos of each item."""
        return np.stack([mean_histogram([opened(i) for i in item.images if not isinstance(i, Path)]) for item in items])


def histogram_run(task: Task, work: Workspace, problems: Problems) -> SystemRun:
    """Rank by the colours of the photos; products without a readable photo are not ranked."""
    return vector_run(task, RetrievalSystem("colors", COLOR_HISTOGRAM, Colors, text=False), work, problems)


def fusion_run(
    first: SystemRun, second: SystemRun, task: Task, validation: Pair | None, settings: Settings
) -> SystemRun:
    """Return the runs of two systems as one, weighted as other queries say: those of `validation`, else the
    other half.
    """
    if not first.readable or not second.readable:
        return SystemRun("fusion", {}, frozenset())
    chosen = settings.eval
    metric = "map" if task.label else TUNED_BY
    run, weights = tuned_fusion(pair_of(first, second, task), validation, metric, chosen.min_grade, chosen.depth)
    return SystemRun("fusion", run, first.readable | second.readable, fusion=tuple(weights))


def pair_of(first: SystemRun, second: SystemRun, task: Task) -> Pair:
    """Return the rankings of two systems for the queries of `task`."""
    queries = [query.id for query in task.queries]
    qrels = {query: task.qrels[query] for query in queries}
    return Pair(first.run, second.run, qrels, dict(zip(queries, groups_of(task, queries), strict=True)))


def _rank_vectors(
    encoded: Sequence[tuple[Query, NDArray[np.float32]]],
    documents: Sequence[Document],
    matrix: NDArray[np.float32],
    depth: int,
) -> dict[str, Ranked]:
    ids = [document.id for document in documents]
    places = {id: row for row, id in enumerate(ids)}
    by_gallery: dict[frozenset[str] | None, list[tuple[Query, NDArray[np.float32]]]] = {}
    for query, vector in encoded:
        by_gallery.setdefault(query.within, []).append((query, vector))
    run: dict[str, Ranked] = {}
    for within, part in by_gallery.items():
        chosen = None if within is None else np.array([places[id] for id in ids if id in within], dtype=np.int64)
        if chosen is not None and not len(chosen):
            continue
        spare = max(len(query.exclude) for query, _ in part)
        scores, rows = exact_search(matrix, np.stack([vector for _, vector in part]), depth + spare, chosen)
        for (query, _), found, where in zip(part, scores, rows, strict=True):
            out = [places[id] for id in query.exclude if id in places]
            keep = ~np.isin(where, out) if out else slice(None)
            if not found.any():
                continue  # a text among photos, of an encoder that has no common space: all would be tied at 0
            best = found[keep][:depth].astype(np.float64).round(SCORE_DECIMALS)
            run[query.id] = Ranked(ids, where[keep][:depth], best)
    return {query.id: run[query.id] for query, _ in encoded if query.id in run}
