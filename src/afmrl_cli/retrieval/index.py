"""FAISS: which vectors lie nearest. Flat (exact), HNSW or IVF, by setting; scores are inner products of unit vectors.

Flat up to `embed.flat_limit` vectors: a query over 100,000 takes milliseconds and nothing is ever missed. Above, HNSW
unless IVF is asked for (IVF builds much faster, HNSW answers better). An approximate index is tuned when it is built:
its effort per query is doubled until it returns at least 98 % of the true ten nearest of a sample of the catalog's own
vectors, and what it reaches is told (`recall`): on near-twin products it can be far below what a manual promises.

A filter never loses results: a filtered search is exact over the rows that pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..store.files import writing

Kind = Literal["flat", "hnsw", "ivf"]
HNSW_LINKS = 32
HNSW_BUILD_EFFORT = 80
POINTS_PER_CELL = 39  # FAISS's own lower bound for training an IVF cell
RECALL_AIM = 0.98
SAMPLE = 200
ADD_ROWS = 65_536
QUERY_ROWS = 256


@dataclass(frozen=True)
class Index:
    """A built index. `recall` is recall@10 against exact search on a sample, 1.0 for flat; `effort` is efSearch of
    HNSW or nprobe of IVF, 0 for flat.
    """

    kind: Kind
    effort: int
    recall: float
    faiss: Any


def choose_kind(wanted: Literal["auto", "flat", "hnsw", "ivf"], count: int, flat_limit: int) -> Kind:
    """The kind of index for `count` vectors."""
    if wanted != "auto":
        return wanted
    return "flat" if count <= flat_limit else "hnsw"


def build_index(matrix: NDArray[np.float32], kind: Kind, seed: int = 0) -> Index:
    """Index the rows of `matrix` [n, d] (may be memory-mapped); n is at least 1."""
    import faiss

    count, dimension = matrix.shape
    if kind == "flat":
        index: Any = faiss.IndexFlatIP(dimension)
        _add(index, matrix)
        return Index("flat", 0, 1.0, index)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_EFFORT
        _add(index, matrix)
        first, last = 32, 1024
    else:
        cells = max(1, min(int(4 * math.sqrt(count)), count // POINTS_PER_CELL))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, cells, faiss.METRIC_INNER_PRODUCT)
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(count, size=min(count, 256 * cells), replace=False))
        index.cp.min_points_per_centroid = 1  # `cells` is already small enough; FAISS would print a warning
        index.train(np.ascontiguousarray(matrix[rows]))
        _add(index, matrix)
        first, last = min(16, cells), cells
    return _tune(index, kind, matrix, first, last, seed)


def _add(index: Any, matrix: NDArray[np.float32]) -> None:
    for start in range(0, len(matrix), ADD_ROWS):
        index.add(np.ascontiguousarray(matrix[start : start + ADD_ROWS], dtype=np.float32))


def _tune(index: Any, kind: Kind, matrix: NDArray[np.float32], first: int, last: int, seed: int) -> Index:
    rows = np.sort(np.random.default_rng(seed).choice(len(matrix), size=min(SAMPLE, len(matrix)), replace=False))
    queries = np.ascontiguousarray(matrix[rows])
    k = min(10, len(matrix))
    scores, _ = exact_search(matrix, queries, k)
    effort = first
    while True:
        _set_effort(index, kind, effort)
        found, _ = index.search(queries, k)
        # By score, not by row: of exact twins either one is a right answer.
        recall = float(np.mean(found >= scores[:, -1:] - 1e-6))
        if recall >= RECALL_AIM or effort >= last:
            return Index(kind, effort, recall, index)
        effort = min(2 * effort, last)


def _set_effort(index: Any, kind: Kind, effort: int) -> None:
    if kind == "hnsw":
        index.hnsw.efSearch = effort
    elif kind == "ivf":
        index.nprobe = effort


def save_index(index: Index, path: Path) -> None:
    """Write the index, atomically."""
    import faiss

    with writing(path) as temporary, temporary.open("wb") as file:
        # Through Python's own file, so that a full disk is an OSError and not a text inside a FAISS exception.
        faiss.write_index(index.faiss, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def load_index(path: Path, kind: Kind, effort: int, recall: float, count: int, dimension: int) -> Index:
    """Read an index back; `count` and `dimension` are what it must hold. ModelError when it is missing or damaged."""
    import faiss

    hint = "run `afmrl embed --force` to build it again"
    if not path.is_file():
        raise ModelError(f"{path}: the index is missing", hint)
    try:
        # Mapped, not read: a process that asks one question need not copy gigabytes first.
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise ModelError(f"{path}: the index is damaged: {str(error).splitlines()[0][:120]}", hint) from error
    if index.ntotal != count or index.d != dimension:
        raise ModelError(
            f"{path}: holds {index.ntotal} x {index.d} numbers, the vectors are {count} x {dimension}", hint
        )
    _set_effort(index, kind, effort)
    return Index(kind, effort, recall, index)


def search_index(index: Index, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows [q, min(k, n)], best first; an approximate index may fill the end with row -1."""
    k = min(k, index.faiss.ntotal)
    if index.kind == "hnsw" and index.effort < k:
        _set_effort(index.faiss, "hnsw", 2 * k)  # HNSW returns at most as many as it looks at
    scores, rows = index.faiss.search(np.ascontiguousarray(queries, dtype=np.float32), k)
    return scores, rows


def exact_search(
    matrix: NDArray[np.float32], queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows [q, min(k, rows)] by comparing with every row of `matrix` [n, d], or only with `rows`.

    Equal scores are ordered by row. Queries and rows are taken in pieces: a memory-mapped matrix may exceed the memory.
    """
    k = min(k, len(matrix) if rows is None else len(rows))
    scores = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries) if k else 0, QUERY_ROWS):
        part = slice(start, start + QUERY_ROWS)
        scores[part], found[part] = _exact_part(matrix, queries[part], k, rows)
    return scores, found


def _exact_part(
    matrix: NDArray[np.float32], queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    count = len(matrix) if rows is None else len(rows)
    best = np.empty((len(queries), 0), dtype=np.float32)
    where = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, count, ADD_ROWS):
        chosen = np.arange(start, min(start + ADD_ROWS, count)) if rows is None else rows[start : start + ADD_ROWS]
        piece = matrix[start : start + ADD_ROWS] if rows is None else matrix[chosen]
        scores = np.concatenate([best, queries @ np.asarray(piece).T], axis=1)
        places = np.concatenate([where, np.broadcast_to(chosen, (len(queries), len(chosen)))], axis=1)
        if scores.shape[1] > 4 * k:
            keep = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            scores, places = np.take_along_axis(scores, keep, 1), np.take_along_axis(places, keep, 1)
        order = np.lexsort((places, -scores), axis=1)[:, :k]
        best, where = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    return best, where
