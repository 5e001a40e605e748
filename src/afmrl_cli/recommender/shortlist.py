"""The retrieval's first listings in the recommender's order.

    score   = v + w s                     v: the retrieval's (`next_item.fused`), a log-probability but for a constant
    s       = log p(i | history, C) - log p(i | no history, C)      C: the candidates; mean of two orders (`ranking`)

s says how much more likely the history makes a listing. What the second term takes off is how likely its line is
anyhow: long ones are less so, and a small model is not sure of any. How popular a listing is, is said by v. Both are
logarithms of odds, so that their sum is again a choice model; w >= 0 is fitted on validation (`validation`).
MLLMRec-R1 takes what is generated greedily, which is log p alone.

Listings behind the shortlist stay behind it, in the retrieval's order. Those of one text get one s: v decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.batching import Batches
from ..models.generator import LocalGenerator
from ..next_item.histories import Question, Recommender, Scores
from .questions import AT_A_TIME, first, history_lines
from .ranking import Floats, Shown, line_scores
from .texts import Texts


@dataclass(frozen=True)
class Shortlists:
    """For each question its first listings [n] by the retrieval, best first, with the retrieval's scores v [n]."""

    questions: list[Question]
    listings: list[NDArray[np.int64]]
    values: list[Floats]


def shortlists_of(fused: Recommender, questions: Sequence[Question], number: int) -> Shortlists:
    """Return the first `number` listings of each question."""
    found = Shortlists(list(questions), [], [])
    for begin in range(0, len(questions), AT_A_TIME):
        for row in fused.scores(questions[begin : begin + AT_A_TIME]):
            chosen = first(row, number)
            found.listings.append(chosen)
            found.values.append(row[chosen].astype(np.float64))
    return found


class Reader:
    """What the recommender is shown of questions, and what it says: `generator` with its adapter on."""

    def __init__(self, generator: LocalGenerator, texts: Texts, history: int, answers: int, batches: Batches) -> None:
        self.generator, self.texts = generator, texts
        self._history, self._answers, self._batches = history, answers, batches

    def read(self, questions: Sequence[Question], listings: Sequence[NDArray[np.int64]]) -> list[Floats]:
        """Return s [2, n] of each question's listings, in both orders; those of one text are shown once."""
        shown, places = [], []
        for question, chosen in zip(questions, listings, strict=True):
            lines = [self.texts.lines[item] for item in chosen]
            number = {line: i for i, line in enumerate(dict.fromkeys(lines))}
            shown.append(Shown(history_lines(question, self.texts, self._history), tuple(number)))
            places.append([number[line] for line in lines])
        bare = [Shown((), each.candidates) for each in shown]
        found = line_scores(self.generator, [*shown, *bare], self._answers, self._batches)
        raised = [scores - anyhow for scores, anyhow in zip(found, found[len(shown) :], strict=False)]
        return [scores[:, place] for scores, place in zip(raised, places, strict=True)]


class TrainedRecommender:
    """The retrieval `fused` with its first `number` listings in the recommender's order, as a `Recommender`."""

    name = "recommender"

    def __init__(self, fused: Recommender, reader: Reader, weight: float, number: int, learnt_until: int = 0) -> None:
        """Take the weight w, how many listings are ordered anew, and up to which second was learnt."""
        self.fused, self.reader, self.weight, self.number = fused, reader, weight, number
        self.learnt_until = learnt_until
        self.id = reader.generator.id

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return v, but of the shortlist the fused score, raised so that it stays before all others."""
        found = self.fused.scores(questions)
        lists = [first(row, self.number) for row in found]
        for row, chosen, both in zip(found, lists, self.reader.read(questions, lists), strict=True):
            put_first(row, chosen, fuse(row[chosen].astype(np.float64), both, self.weight))
        return found

    def among(self, questions: Sequence[Question], listings: NDArray[np.int64]) -> Scores:
        """Return the scores [questions, n] of the `listings` [questions, n] alone: of so many as the shortlist holds
        all are shown at once, as papers ask; of more those that the retrieval ranks first.
        """
        values = np.take_along_axis(self.fused.scores(questions), listings, axis=1)
        best = [first(row, self.number) for row in values]
        shown = [row[places] for row, places in zip(listings, best, strict=True)]
        for row, places, both in zip(values, best, self.reader.read(questions, shown), strict=True):
            put_first(row, places, fuse(row[places].astype(np.float64), both, self.weight))
        return values


def put_first(row: Scores, places: NDArray[np.int64], scores: Floats) -> None:
    """Give the `places` of a row these scores, raised above all others of the row."""
    if len(places):
        rest = np.delete(row, places)
        highest = rest.max() if np.isfinite(rest).any() else 0.0
        row[places] = scores - scores.min() + highest + 1


def fuse(values: Floats, both: Floats, weight: float) -> Floats:
    """Return the score [n] of the retrieval's values [n] and of s [2, n]."""
    return np.asarray(values + weight * both.mean(axis=0), dtype=np.float64)
