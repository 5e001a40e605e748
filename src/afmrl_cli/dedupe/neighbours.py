"""Which vectors lie nearest to each of n: all pairs of a small catalog; of a larger one those of the cells around it.

    cells       n / CELL centres, k-means in two levels, so that finding them does not take n^2 either
    neighbours  the best k among the vectors of the PROBES nearest cells, about PROBES * CELL of them, whatever n is

A vector's work is a constant and its comparison with all n / CELL centres: 1.4 s for 10,000 vectors, 93 s for 1,000,000
(256 numbers, one core; `benchmarks.dedupe_neighbours`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..retrieval.narrow import Matrix

ALL_PAIRS = 5_000
"""Vectors that are all compared with each other."""
CELL, PROBES = 200, 16
TRAINING_POINTS = 40
"""For a cell: FAISS's own lower bound."""
ROUNDS = 10
COMPONENTS = 256
"""Numbers of a vector that neighbours are sought by: of longer ones the principal components. Cosines are of all."""
SAMPLE = 20_000
ROWS = 4096
Rows = NDArray[np.int64]


def nearest_rows(vectors: Matrix, k: int) -> Iterator[tuple[int, Rows]]:
    """Yield (the first row of a piece, the k nearest rows of each of its rows [m, k], -1 where there are no more) for
    the unit vectors [n, d].
    """
    import faiss

    matrix = _components(vectors)
    if len(matrix) <= ALL_PAIRS:
        exact: Any = faiss.IndexFlatIP(matrix.shape[1])
        exact.add(np.ascontiguousarray(matrix[:], dtype=np.float32))
        for start, piece in _pieces(matrix):
            yield start, exact.search(piece, k)[1]
        return
    from faiss.contrib.ivf_tools import add_preassigned, search_preassigned

    centers: Any = faiss.IndexFlatIP(matrix.shape[1])
    centers.add(_centers(matrix, len(matrix) // CELL))
    index: Any = faiss.IndexIVFFlat(centers, matrix.shape[1], centers.ntotal, faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.nprobe = True, min(PROBES, centers.ntotal)
    cells = np.empty((len(matrix), index.nprobe), dtype=np.int64)
    near = np.empty(cells.shape, dtype=np.float32)
    for start, piece in _pieces(matrix):
        ends = slice(start, start + len(piece))
        near[ends], cells[ends] = centers.search(piece, index.nprobe)
        add_preassigned(index, piece, np.ascontiguousarray(cells[ends, 0]))
    for start, piece in _pieces(matrix):
        ends = slice(start, start + len(piece))
        yield start, search_preassigned(index, piece, k, cells[ends], near[ends])[1]


def _centers(matrix: Matrix, count: int) -> NDArray[np.float32]:
    """Return centres [count, d] of cells, unit vectors."""
    import faiss
    from faiss.contrib.clustering import two_level_clustering

    points = min(len(matrix), TRAINING_POINTS * count)
    chosen = np.sort(np.random.default_rng(0).choice(len(matrix), points, replace=False))
    first = int(count**0.5)
    made, _ = two_level_clustering(
        np.ascontiguousarray(matrix[chosen], dtype=np.float32),
        first,
        count,
        clustering_niter=ROUNDS,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,  # FAISS would print a warning
    )
    faiss.normalize_L2(made)
    return np.asarray(made)


def _components(vectors: Matrix) -> Matrix:
    """Return the vectors in at most COMPONENTS numbers, of length 1 again; made of some rows at a time."""
    if vectors.shape[1] <= COMPONENTS or len(vectors) <= COMPONENTS:
        return vectors
    import faiss

    sample = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    analysis: Any = faiss.PCAMatrix(vectors.shape[1], COMPONENTS)
    analysis.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    short = np.empty((len(vectors), COMPONENTS), dtype=np.float32)
    for start, piece in _pieces(vectors):
        short[start : start + len(piece)] = analysis.apply(piece)
    faiss.normalize_L2(short)
    return short


def _pieces(matrix: Matrix) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(matrix), ROWS):
        yield start, np.ascontiguousarray(matrix[start : start + ROWS], dtype=np.float32)
