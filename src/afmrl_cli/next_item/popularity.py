"""What everybody takes: how often training has a listing, and how often lately.

    n_i     rows of training with listing i
    r_i(t)  sum over those before t of 2^(-(s - time) / H), s: the last of them, H: HALF_LIFE

`r` is counted from the last row before the question, not from the question: nobody knows what was sold since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .histories import Histories, Question, Scores

HALF_LIFE = 30 * 86_400
"""Seconds."""


@dataclass(frozen=True)
class Popularity:
    """Ranks listings by n."""

    histories: Histories
    name: str = "popularity"

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return n for each question."""
        histories = self.histories
        counts = np.bincount(histories.item[histories.training], minlength=len(histories.ids)).astype(np.float32)
        return np.repeat(counts[None], len(questions), axis=0)


class RecentPopularity:
    """Ranks listings by r."""

    name = "recent popularity"

    def __init__(self, histories: Histories) -> None:
        rows = np.flatnonzero(histories.training)
        rows = rows[np.argsort(histories.seconds[rows], kind="stable")]
        self._item, self._seconds = histories.item[rows], histories.seconds[rows]
        self._listings = len(histories.ids)

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return r at the time of each question."""
        before = np.searchsorted(self._seconds, [question.seconds for question in questions])
        found = np.zeros((len(questions), self._listings), dtype=np.float32)
        counts, done = np.zeros(self._listings), 0
        for end in np.unique(before[before > 0]):
            now = self._seconds[end - 1]
            if done:
                counts *= 0.5 ** ((now - self._seconds[done - 1]) / HALF_LIFE)
            weights = 0.5 ** ((now - self._seconds[done:end]) / HALF_LIFE)
            counts += np.bincount(self._item[done:end], weights, minlength=self._listings)
            found[before == end] = counts
            done = end
        return found
