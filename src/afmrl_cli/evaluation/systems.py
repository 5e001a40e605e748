"""Who answers a task: the embedder and the two baselines. Each gives a run: a ranking of the gallery for every query.

Scores are rounded to six decimals before anything is ranked, so that exact twins tie (matrix products differ in the
eighth place with a row's position) and a written run file holds the very ranking that was scored. At most `depth`
products are ranked. A baseline that can't read a query (BM25 without text, colours without photo) answers nothing, and
how many queries it could read is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..catalog.product import enriched_text
from ..listener import Listener
from ..models.embed_input import Item
from ..retrieval.bm25 import build_bm25, tokenize
from ..retrieval.cache import VectorCache
from ..retrieval.encode import Encoder, Input, encode_missing
from ..retrieval.histogram import mean_histogram
from ..retrieval.index import exact_search
from ..retrieval.vectors import Vectors
from ..settings import Settings
from ..store.files import hash_file, hash_json
from ..store.folder import CatalogFolder
from .protocols import Document, Query, Task
from .trec import SCORE_DECIMALS

CACHED_VECTORS = 200_000
COLOR_HISTOGRAM = "color-histogram-1"


@dataclass(frozen=True)
class SystemRun:
    """The answers of one system; `readable` are the ids of the queries that it could read."""

    system: str
    run: dict[str, list[tuple[str, float]]]
    readable: frozenset[str]


@dataclass(frozen=True)
class Kitchen:
    """What every encoding system needs: the catalog's folder, settings, and where to tell problems and progress."""

    folder: CatalogFolder
    settings: Settings
    problems: Problems
    listener: Listener

    def vectors(
        self, inputs: Sequence[Input], name: str, load: Callable[[], Encoder], instruction: str, what: str
    ) -> dict[str, NDArray[np.float32]]:
        """Vectors by key of all inputs of which something can be read, from the cache `name` where it holds them."""
        cache = VectorCache(self.folder.embeddings / f"cache-{name}-{hash_json(instruction)[:8]}")
        encode_missing(
            inputs,
            cache,
            load,
            instruction=instruction,
            catalog=self.settings.catalog,
            batch_size=self.settings.eval.batch_size,
            max_images=self.settings.model.max_images,
            problems=self.problems,
            listener=self.listener,
            what=what,
        )
        found = {wanted.key: np.array(cache.get(wanted.key)) for wanted in inputs if wanted.key in cache}
        cache.prune(CACHED_VECTORS)
        return found


def embedder_run(
    task: Task, vectors: Vectors, load: Callable[[], Encoder], attributes: dict[str, str], kitchen: Kitchen
) -> SystemRun:
    """Rank by the inner product of query and product vectors.

    Stored vectors are used where they are of the product as the task shows it; others (changed since `afmrl embed`, a
    photo held out) are encoded and cached. `attributes` are stored texts by fingerprint, added to the queries.
    """
    embed, embedder = kitchen.settings.embed, vectors.manifest["embedder"]
    stored = {key: row for row, key in enumerate(vectors.listings.column("key"))}
    missing = [document for document in task.documents if document.row.key not in stored]
    inputs = [Input(d.row.key, enriched_text(d.row.text, d.row.attributes), d.product) for d in missing]
    fresh = kitchen.vectors(inputs, embedder, load, embed.target_instruction, "embedding products")
    documents = [d for d in task.documents if d.row.key in stored or d.row.key in fresh]
    rows = np.array([stored.get(d.row.key, -1) for d in documents], dtype=np.int64)
    matrix = np.array(vectors.matrix[rows])
    for place in np.flatnonzero(rows < 0):
        matrix[place] = fresh[documents[place].row.key]
    texts = {query.id: enriched_text(query.text, attributes.get(query.fingerprint, "")) for query in task.queries}
    keys = {query.id: query_key(texts[query.id], query.images) for query in task.queries}
    wanted = [Input.of_query(keys[q.id], q.id, texts[q.id], q.images) for q in task.queries]
    asked = kitchen.vectors(wanted, embedder, load, embed.query_instruction, "embedding queries")
    questions = [(query, asked[keys[query.id]]) for query in task.queries if keys[query.id] in asked]
    run = _rank_vectors(questions, documents, matrix, kitchen.settings.eval.depth)
    return SystemRun("embedder", run, frozenset(run))


def query_key(text: str, images: Sequence[Path]) -> str:
    """What a query's vector is made from, but for the model and the instruction; an unreadable photo counts as one."""
    return hash_json(["query", text, [hash_file(path) if path.is_file() else "unreadable" for path in images]])


def bm25_run(task: Task, depth: int) -> SystemRun:
    """Rank by BM25 over product texts; only products that share a word with the query are ranked."""
    corpus = build_bm25([tokenize(document.row.text) for document in task.documents])
    ids = np.array([document.product.id for document in task.documents])
    run: dict[str, list[tuple[str, float]]] = {}
    readable = [query for query in task.queries if query.text]
    for query in readable:
        scores = corpus.scores(tokenize(query.text)).round(SCORE_DECIMALS)
        rows = np.flatnonzero(scores > 0)
        order = rows[np.lexsort((rows, -scores[rows]))][: depth + len(query.exclude)]
        found = [(str(ids[row]), float(scores[row])) for row in order if str(ids[row]) not in query.exclude]
        run[query.id] = found[:depth]
    return SystemRun("bm25", run, frozenset(run))


def histogram_run(task: Task, kitchen: Kitchen) -> SystemRun:
    """Rank by the colours of the photos; products without a readable photo are not ranked."""

    class Colors:
        """The histogram as an encoder, so that it shares the cache and the care for broken photos."""

        id = COLOR_HISTOGRAM

        def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
            return np.stack([mean_histogram([i for i in item.images if not isinstance(i, Path)]) for item in items])

    def inputs(owners: Sequence[tuple[str, Sequence[Path]]]) -> list[Input]:
        return [Input.of_query(query_key("", images), name, "", images) for name, images in owners if images]

    documents = inputs([(document.product.id, document.product.images) for document in task.documents])
    queries = inputs([(query.id, query.images) for query in task.queries])
    vectors = kitchen.vectors([*documents, *queries], COLOR_HISTOGRAM, Colors, "", "colours")
    by_product = {wanted.product.id: vectors[wanted.key] for wanted in documents if wanted.key in vectors}
    by_query = {wanted.product.id: vectors[wanted.key] for wanted in queries if wanted.key in vectors}
    shown = [document for document in task.documents if document.product.id in by_product]
    questions = [(query, by_query[query.id]) for query in task.queries if query.id in by_query]
    if not shown or not questions:
        return SystemRun("colors", {}, frozenset())
    matrix = np.stack([by_product[document.product.id] for document in shown])
    run = _rank_vectors(questions, shown, matrix, kitchen.settings.eval.depth)
    return SystemRun("colors", run, frozenset(run))


def _rank_vectors(
    questions: Sequence[tuple[Query, NDArray[np.float32]]],
    documents: Sequence[Document],
    matrix: NDArray[np.float32],
    depth: int,
) -> dict[str, list[tuple[str, float]]]:
    if not questions:
        return {}
    spare = max(len(query.exclude) for query, _ in questions)
    scores, rows = exact_search(matrix, np.stack([vector for _, vector in questions]), depth + spare)
    run: dict[str, list[tuple[str, float]]] = {}
    for (query, _), found, where in zip(questions, scores, rows, strict=True):
        ranked = [
            (documents[row].product.id, round(float(score), SCORE_DECIMALS))
            for score, row in zip(found, where, strict=True)
        ]
        run[query.id] = [pair for pair in ranked if pair[0] not in query.exclude][:depth]
    return run
