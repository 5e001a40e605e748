"""Listings like those of a history, by the embedder's vectors.

    h(q) = sum over i of w(q, i) v_i        score = cos(h(q), v_j)

w are the weights of `steps`; with f = 0 these are the listings like the last one. Listings without a vector (new since
`afmrl embed`) add nothing to h and are never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..retrieval.narrow import Matrix
from .histories import Question, Scores
from .steps import FADE, weighted_histories

ROWS = 16_384
"""Vectors that are read at a time."""


@dataclass(frozen=True)
class ListingVectors:
    """Unit vectors [m, d] of listings: that of listing i stands in row `row[i]`, -1 for none. `made_by` tells them from
    others."""

    matrix: Matrix
    row: NDArray[np.int64]
    made_by: str

    @classmethod
    def of(cls, matrix: Matrix, vector_ids: Sequence[str], ids: Sequence[str], made_by: str) -> ListingVectors:
        """Return the vectors of the listings `ids`; the rows of `matrix` are of `vector_ids`."""
        place = {listing: number for number, listing in enumerate(vector_ids)}
        return cls(matrix, np.array([place.get(listing, -1) for listing in ids], dtype=np.int64), made_by)


@dataclass(frozen=True)
class Similar:
    """Ranks listings by their likeness to a history whose steps fade by `fade`."""

    vectors: ListingVectors
    fade: float
    name: str

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return cosines; 0 where nothing of the history has a vector."""
        row = self.vectors.row
        found = np.full((len(questions), len(row)), -np.inf, dtype=np.float32)
        wanted = self._wanted(questions)
        for start in range(0, len(self.vectors.matrix), ROWS):
            listings = np.flatnonzero((row >= start) & (row < start + ROWS))
            part = np.asarray(self.vectors.matrix[start : start + ROWS])
            found[:, listings] = wanted @ part[row[listings] - start].T
        return found

    def closest(self, question: Question, listing: int) -> int:
        """Return the listing that is most like `listing` of those of the history that count, the latest of equal ones;
        -1 where none has a vector.
        """
        row = self.vectors.row
        items = weighted_histories([question], len(row), self.fade).indices
        latest = [item for item in dict.fromkeys(question.history[::-1].tolist()) if item in items and row[item] >= 0]
        if not latest or row[listing] < 0:
            return -1
        likeness = np.asarray(self.vectors.matrix[row[latest]]) @ np.asarray(self.vectors.matrix[row[listing]])
        return int(latest[int(np.argmax(likeness))])

    def _wanted(self, questions: Sequence[Question]) -> NDArray[np.float32]:
        """Return h [questions, d] with length 1, or 0."""
        weights = weighted_histories(questions, len(self.vectors.row), self.fade).tocsc()
        used = np.flatnonzero((np.diff(weights.indptr) > 0) & (self.vectors.row >= 0))
        means = weights[:, used] @ np.asarray(self.vectors.matrix[self.vectors.row[used]], dtype=np.float64)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        unit: NDArray[np.float32] = np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 1e-9).astype(
            np.float32
        )
        return unit


def last_item(vectors: ListingVectors) -> Similar:
    """Return what ranks by likeness to the last listing, or to the lines of the last order."""
    return Similar(vectors, 0.0, "last item")


def whole_history(vectors: ListingVectors) -> Similar:
    """Return what ranks by likeness to the whole history: the embedder alone."""
    return Similar(vectors, FADE, "history")
