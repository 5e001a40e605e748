"""What customers take together: item-item nearest neighbours (Sarwar et al. 2001; Deshpande and Karypis 2004).

    c_ij   customers whose training rows have i and j;  n_i: those that have i
    s_ij   = c_ij / sqrt(n_i n_j), s_ii = 0        score(q, j) = sum over i of w(q, i) s_ij

w are the weights of `steps`. Departures: of a customer only the last MOST_ROWS rows count, so that one with 100,000
of them costs no more than others; of each listing only the NEIGHBOURS strongest neighbours are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .histories import Histories, Question, Scores
from .steps import weighted_histories

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_ROWS, NEIGHBOURS = 100, 200
BLOCK = 2_048
"""Listings whose neighbours are counted at a time."""


class Neighbours:
    """Ranks listings by how often they were taken together with those of the history."""

    name = "co-occurrence"

    def __init__(self, histories: Histories) -> None:
        self._strength = neighbour_strengths(histories)

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return weighted sums of s."""
        weights = weighted_histories(questions, self._strength.shape[0])
        found: Scores = (weights @ self._strength).toarray().astype(np.float32)
        return found

    def closest(self, question: Question, listing: int) -> int:
        """Return the listing of the history that is taken together with `listing` most, by its weight, too."""
        weights = weighted_histories([question], self._strength.shape[0])
        links = self._strength[weights.indices][:, [listing]].toarray()[:, 0]
        return int(weights.indices[int(np.argmax(weights.data * links))])

    def strengths(self, listing: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Return the neighbours of a listing, with s."""
        row = slice(self._strength.indptr[listing], self._strength.indptr[listing + 1])
        return self._strength.indices[row], self._strength.data[row]


def neighbour_strengths(histories: Histories) -> csr_array:
    """Return s [listings, listings], of each listing the strongest."""
    from scipy.sparse import csr_array, vstack

    taken = _taken(histories)
    counts = np.asarray(taken.sum(axis=0)).ravel()
    scale = 1 / np.sqrt(np.maximum(counts, 1))
    scaled = csr_array(taken * scale[None])
    by_listing = csr_array(scaled.T)
    empty = csr_array((0, len(histories.ids)))
    return csr_array(
        vstack([empty, *(_strongest(by_listing, scaled, at) for at in range(0, len(histories.ids), BLOCK))])
    )


def _taken(histories: Histories) -> csr_array:
    """Return which customers have which listings [customers, listings] in training, 1 for each."""
    from scipy.sparse import csr_array

    rows = np.flatnonzero(histories.training)
    customer = histories.customer[rows]
    ends = np.searchsorted(customer, customer, "right")
    rows = rows[ends - np.arange(len(rows)) <= MOST_ROWS]
    shape = (len(histories.customers), len(histories.ids))
    taken = csr_array((np.ones(len(rows)), (histories.customer[rows], histories.item[rows])), shape=shape)
    taken.sum_duplicates()
    taken.data[:] = 1
    return taken


def _strongest(by_listing: csr_array, scaled: csr_array, start: int) -> csr_array:
    """Return s of the listings from `start` on, a block of them; of equal ones the first in the catalog are kept."""
    from scipy.sparse import csr_array

    block = csr_array(by_listing[start : start + BLOCK] @ scaled)
    block.sort_indices()
    own = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    kept = block.indices != own + start
    for row in np.flatnonzero(np.diff(block.indptr) > NEIGHBOURS + 1):
        part = slice(block.indptr[row], block.indptr[row + 1])
        order = np.argsort(np.where(kept[part], -block.data[part], np.inf), kind="stable")
        kept[part.start + order[NEIGHBOURS:]] = False
    found = (block.data[kept], (own[kept], block.indices[kept]))
    return csr_array(found, shape=block.shape)
