"""When two similarities count as equal, and the orders that follow: the one place for search, eval, RAR and training.

    a and b are tied  <=>  |a - b| <= TIE,   TIE = 1e-5

Similarities are inner products, in float32, of float32 unit vectors. Another kernel (AVX2, AVX-512, none), another
number of threads or another batch moves one by up to 6e-7 and a difference of two by up to 9e-7, measured with fp32
models; duplicates, which are equal by rights, then differ by as much. TIE is about ten times that. Such differences say
nothing, so tied rows stand in the gallery's order, by row.

Being tied is not transitive, so a rank and a list put it differently:
- the rank of a row counts the rows that are better by more than TIE, and the tied ones before it;
- a list is made of groups from the best down: the best that is left, with all that are tied with it, by row.
Both are the same wherever rows are either tied with each other or further apart than 2 TIE.

Metrics are the one exception: they order ties by id, as trec_eval does (`evaluation.metrics.ranked_ids`). A run file
has ids and no rows, and must give the same metrics to every program that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TIE = 1e-5


def ranks_of(scores: NDArray[np.floating], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ranks from 1 [..., rows] of `rows` among the last axis of scores [..., n]; -inf for those that do not
    count.
    """
    scores = np.asarray(scores, dtype=np.float32)
    ranks = np.empty((*scores.shape[:-1], len(rows)), dtype=np.int64)
    for place, row in enumerate(rows):
        own = scores[..., row, None]
        tied = scores[..., :row] >= own - np.float32(TIE)
        ranks[..., place] = 1 + tied.sum(-1) + (scores[..., row:] > own + np.float32(TIE)).sum(-1)
    return ranks


def best_first(
    scores: NDArray[np.floating], k: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return (the best min(k, n) of `rows`, 0 to n - 1 by default, best first; their scores), for scores [n].

    Tied ones are given the score of the best among them, so that they stay tied when the caller sorts the list again.
    """
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    scores = np.asarray(scores, dtype=np.float32)
    kept = np.arange(len(scores))
    if k < len(scores):  # all that are tied with the k-th: which of them come first is for their rows to say
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k] - np.float32(TIE))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    ordered, found = scores[kept], kept if rows is None else rows[kept]
    first = np.arange(len(kept))  # place of the best of each one's group
    end = 0
    for place in np.flatnonzero(ordered[1:] >= ordered[:-1] - np.float32(TIE)).tolist():
        if place >= end:  # the best of a group of several
            end = int(np.searchsorted(-ordered, np.float32(TIE) - ordered[place], side="right"))
            first[place:end] = place
    order = np.lexsort((found, first))[:k]
    return found[order], ordered[first[order]]
