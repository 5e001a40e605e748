"""FAISS: which vectors lie nearest. Flat (exact), HNSW or IVF, by setting; scores are inner products of unit vectors.

Flat while a query takes about ten milliseconds: up to `embed.flat_limit` vectors of 256 numbers, of 768 a third of
that; nothing is ever missed. Above, IVF: about sqrt(n) cells whose vectors are kept in 8 bits a number, the best
4 k of which are scored again with the stored vectors (near-duplicates differ by less than the 8 bits tell: without
that, recall stays below 0.95 whatever the effort). HNSW, when it is chosen, takes tens of times as long to build.

An approximate index is tuned when it is built: its effort per query is doubled until it returns at least 99 % of the
ten nearest others of a sample of the catalog's own vectors, and what it reaches is reported (`recall`): on products
that have nothing in common it can be far below what a manual promises.

A filter never loses results: a filtered search is exact over the rows that pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..scores import TIE, best_first
from ..store.files import writing
from .narrow import Matrix, unit

Kind = Literal["flat", "hnsw", "ivf"]
HNSW_LINKS = 32
HNSW_BUILD_EFFORT = 80
POINTS_PER_CELL = 39  # FAISS's own lower bound for training an IVF cell
TRAINING_POINTS = 64  # for a cell: four times as many change no metric and take four times as long
CANDIDATES = 4
"""How many times k vectors of an IVF index are scored again with the stored vectors."""
FLAT_DIMENSION = 256
RECALL_AIM = 0.99
SAMPLE, RECALL_SAMPLE = 200, 1_000
NEAREST = 10
ADD_ROWS = 65_536
SCORES = 2**24
"""Scores that exact search holds at a time: 64 MiB."""
COPIED = 2**18
"""Numbers of chosen rows that are copied at a time for one query: they stay in a core's cache."""


@dataclass(frozen=True)
class Index:
    """A built index over the rows of `matrix`. `recall` is recall@10 against exact search on a sample, 1.0 for flat;
    `effort` is efSearch of HNSW or nprobe of IVF, 0 for flat.
    """

    kind: Kind
    effort: int
    recall: float
    faiss: Any
    matrix: Matrix


def choose_kind(wanted: Literal["auto", "flat", "hnsw", "ivf"], count: int, dimension: int, flat_limit: int) -> Kind:
    """Choose the kind of index for `count` vectors of `dimension` numbers."""
    if wanted != "auto":
        return wanted
    return "flat" if count * dimension <= flat_limit * FLAT_DIMENSION else "ivf"


def build_index(matrix: Matrix, kind: Kind, seed: int = 0) -> Index:
    """Index the rows of `matrix` [n, d] (may be memory-mapped); n is at least 1."""
    import faiss

    count, dimension = matrix.shape
    if kind == "flat":
        index: Any = faiss.IndexFlatIP(dimension)
        _add(index, matrix)
        return Index("flat", 0, 1.0, index, matrix)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_EFFORT
        _add(index, matrix)
        first, last = 32, 1024
    else:
        cells = max(1, min(int(math.sqrt(count)), count // POINTS_PER_CELL))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension),
            dimension,
            cells,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(count, size=min(count, TRAINING_POINTS * cells), replace=False))
        index.cp.min_points_per_centroid = 1  # `cells` is already small enough; FAISS would print a warning
        index.train(np.ascontiguousarray(matrix[rows]))
        _add(index, matrix)
        first, last = min(4, cells), cells
    return _tune(index, kind, matrix, first, last, seed)


def _add(index: Any, matrix: Matrix) -> None:
    for start in range(0, len(matrix), ADD_ROWS):
        index.add(np.ascontiguousarray(matrix[start : start + ADD_ROWS], dtype=np.float32))


def _tune(index: Any, kind: Kind, matrix: Matrix, first: int, last: int, seed: int) -> Index:
    rows = np.sort(np.random.default_rng(seed).choice(len(matrix), size=min(SAMPLE, len(matrix)), replace=False))
    queries = np.ascontiguousarray(matrix[rows])
    k = min(11, len(matrix))
    scores, _ = exact_search(matrix, queries, k)
    effort = first
    while True:
        tuned = Index(kind, effort, 0.0, index, matrix)
        _set_effort(index, kind, effort)
        found, _ = search_index(tuned, queries, k)
        # By score, not by row: of equal vectors either one is right. The first is the query itself: no feat.
        recall = float(np.mean(found[:, 1:] >= scores[:, -1:] - TIE)) if k > 1 else 1.0
        if recall >= RECALL_AIM or effort >= last:
            return replace(tuned, recall=recall)
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


def load_index(path: Path, kind: Kind, effort: int, recall: float, matrix: Matrix) -> Index:
    """Read an index over the rows of `matrix` [n, d] back. ModelError when it is missing, damaged or of others."""
    import faiss

    hint = "run `afmrl embed --force` to build it again"
    if not path.is_file():
        raise ModelError(f"{path}: the index is missing", hint)
    try:
        # Mapped, not read: a process with one query need not copy gigabytes first.
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise ModelError(f"{path}: the index is damaged: {str(error).splitlines()[0][:120]}", hint) from error
    count, dimension = matrix.shape
    if index.ntotal != count or index.d != dimension:
        raise ModelError(
            f"{path}: holds {index.ntotal} x {index.d} numbers, the vectors are {count} x {dimension}", hint
        )
    _set_effort(index, kind, effort)
    return Index(kind, effort, recall, index, matrix)


def search_index(index: Index, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows [q, min(k, n)], best first; an approximate index may fill the end with row -1."""
    count = len(index.matrix)
    k = min(k, count)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if index.kind == "ivf":
        return _search_cells(index, queries, k)
    if index.kind == "hnsw" and index.effort < k:
        _set_effort(index.faiss, "hnsw", 2 * k)  # HNSW returns at most as many as it visits
    scores, rows = index.faiss.search(queries, k)
    there = rows >= 0
    return _lists(
        [s[t] for s, t in zip(scores, there, strict=True)], [r[t] for r, t in zip(rows, there, strict=True)], k
    )


def _search_cells(index: Index, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    wanted, cells = min(CANDIDATES * k, len(index.matrix)), index.faiss.nlist
    # A few cells hold fewer than a large k asks for.
    _set_effort(index.faiss, "ivf", min(cells, max(index.effort, 2 * wanted * cells // len(index.matrix))))
    _, candidates = index.faiss.search(queries, wanted)
    near = [np.sort(row[row >= 0]) for row in candidates]
    return _lists([np.asarray(index.matrix[rows]) @ query for rows, query in zip(near, queries, strict=True)], near, k)


def _lists(
    scores: Sequence[NDArray[np.float32]], rows: Sequence[NDArray[np.int64]], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows [q, k], best first, of each query's candidates; row -1 where there are fewer."""
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    found = np.full((len(scores), k), -1, dtype=np.int64)
    for i, (own, near) in enumerate(zip(scores, rows, strict=True)):
        ordered, values = best_first(own, k, near)
        found[i, : len(ordered)], best[i, : len(ordered)] = ordered, values
    return best, found


def exact_search(
    matrix: Matrix, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows [q, min(k, rows)] by comparing with every row of `matrix` [n, d], or only with `rows`.

    Tied scores are ordered by row, at the k-th place too. Queries are taken in pieces, and so are rows that have to be
    copied: a memory-mapped matrix may exceed the memory. ValueError when queries have another length than the rows.
    """
    if queries.shape[1] != matrix.shape[1]:
        raise ValueError(f"queries of {queries.shape[1]} numbers, the vectors have {matrix.shape[1]}")
    count = len(matrix) if rows is None else len(rows)
    k, chosen = min(k, count), np.arange(count) if rows is None else rows
    best = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, SCORES // max(count, 1))
    for start in range(0, len(queries), step):
        part = queries[start : start + step].astype(np.float32, copy=False)
        scores = np.empty((len(part), count), dtype=np.float32)
        for at in range(0, count, ADD_ROWS):
            piece = matrix[at : at + ADD_ROWS] if rows is None else matrix[rows[at : at + ADD_ROWS]]
            scores[:, at : at + ADD_ROWS] = part @ np.asarray(piece, dtype=np.float32).T
        best[start : start + step], found[start : start + step] = _lists(list(scores), [chosen] * len(part), k)
    return best, found


def all_scores(
    matrix: Matrix, query: NDArray[np.float32], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return the inner product of one query [d] with each row of `matrix` [n, d], or with `rows` of it, in pieces: they
    may have to be copied.
    """
    count = len(matrix) if rows is None else len(rows)
    scores = np.empty(count, dtype=np.float32)
    step = ADD_ROWS if rows is None else max(1, COPIED // matrix.shape[1])
    for at in range(0, count, step):
        piece = matrix[at : at + step] if rows is None else matrix[rows[at : at + step]]
        scores[at : at + step] = np.asarray(piece, dtype=np.float32) @ query
    return scores


def recall_between(stored: Matrix, exact: NDArray[np.float32], seed: int = 0) -> float:
    """Return recall@10 of searching `stored` instead of the same vectors `exact` [n, d], whole and in fp32: the mean
    over a sample of them, each without itself; 1.0 where there is but one. Where `stored` has fewer numbers, so has
    what asks.
    """
    k = min(NEAREST, len(exact) - 1)
    if k < 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed).choice(len(exact), size=min(RECALL_SAMPLE, len(exact)), replace=False))
    queries = np.ascontiguousarray(exact[rows])
    scores, right = exact_search(exact, queries, k + 1)
    _, found = exact_search(stored, unit(queries[:, : stored.shape[1]]), k + 1)
    shares = []
    for i, own in enumerate(rows):
        # By score, not by row: of equal vectors either one is right.
        worst = scores[i][right[i] != own][k - 1]
        others = found[i][found[i] != own][:k]
        shares.append(float(np.mean(np.asarray(exact[others]) @ queries[i] >= worst - TIE)))
    return float(np.mean(shares))
