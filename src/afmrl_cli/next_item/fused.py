"""All sources as one ranking: a conditional logit over what each says of a listing.

    v(q, i) = w . x_qi
    x_qi    log(1 + popularity), log(1 + recent popularity), log(1 + co-occurrence / FEW), had, and of the last item
            and the history z within the question, since each embedder has cosines of its own

`logit` fits w on questions of the validation part, never of the test; only `had` may weigh against a listing. PRIOR is
what it starts from, about what rendered shops give, with repeats unwanted: with few questions w is near it, without any
it is w. Of a catalog of more than FULL listings a sample is compared: the TOP of each source and the history in any
case, others with one chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..recommend.split import VALIDATION
from .histories import Histories, Question, Recommender, Scores, questions_of
from .logit import Choice, fit_logit

PRIOR: Mapping[str, float] = {
    "popularity": 0.1,
    "recent popularity": 0.3,
    "last item": 0.1,
    "history": 0.4,
    "co-occurrence": 1.4,
    "had": -2.0,
}
MOST_QUESTIONS, FULL, TOP, OTHERS = 2_000, 1_000, 50, 300
SCORES = 1 << 22
"""Scores of a source that are held at a time."""
FEW = 0.1
"""A co-occurrence that is little."""
SEED = 0


@dataclass(frozen=True)
class Weights:
    """The weight of each source, and on how many questions of the validation part they were fitted."""

    by_source: Mapping[str, float]
    questions: int


class Fused:
    """Ranks `listings` listings by the weighted sum of what `sources` say."""

    name = "fused"

    def __init__(self, sources: Sequence[Recommender], weights: Weights, listings: int) -> None:
        self.sources, self.weights, self._listings = sources, weights, listings

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return v."""
        found = np.zeros((len(questions), self._listings), dtype=np.float32)
        for part in _parts(len(questions), self._listings):
            for added in self.parts(questions[part]).values():
                found[part] += added
        return found

    def parts(self, questions: Sequence[Question]) -> dict[str, Scores]:
        """Return what each source adds to v, by its name."""
        weights = self.weights.by_source
        return {
            source.name: np.float32(weights[source.name]) * feature(source.name, source.scores(questions))
            for source in self.sources
        }


def feature(source: str, scores: Scores) -> Scores:
    """Return x of the scores [questions, listings] of a source."""
    if source in ("popularity", "recent popularity"):
        logarithms: Scores = np.log1p(scores)
        return logarithms
    if source == "co-occurrence":
        shares: Scores = np.log1p(scores / np.float32(FEW))
        return shares
    return scores if source == "had" else _standardised(scores)


def _standardised(scores: Scores) -> Scores:
    """Return z within each row; 0 for -inf."""
    known = np.isfinite(scores)
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
    away = np.where(known, scores, 0)
    away -= away.sum(axis=1, keepdims=True) / counts
    away[~known] = 0
    spread = np.sqrt((away**2).sum(axis=1, keepdims=True) / counts)
    found: Scores = np.divide(away, spread, out=np.zeros_like(away), where=spread > 1e-6)
    return found


def fit_weights(histories: Histories, sources: Sequence[Recommender]) -> Weights:
    """Return the weights that questions of the validation part ask for; `sources` learnt from the training part."""
    names = [source.name for source in sources]
    before = np.array([PRIOR[name] for name in names])
    questions = questions_of(histories, VALIDATION)
    rng = np.random.default_rng(SEED)
    if len(questions) > MOST_QUESTIONS:
        chosen = np.sort(rng.choice(len(questions), MOST_QUESTIONS, replace=False))
        questions = [questions[number] for number in chosen]
    choices = list(_choices(questions, sources, len(histories.ids), rng))
    least = np.array([-np.inf if name == "had" else 0.0 for name in names])
    fitted = fit_logit(choices, before, least)
    return Weights(dict(zip(names, fitted.tolist(), strict=True)), len(choices))


def _choices(
    questions: Sequence[Question], sources: Sequence[Recommender], listings: int, rng: np.random.Generator
) -> Iterator[Choice]:
    for part in _parts(len(questions), listings):
        asked = questions[part]
        found = np.stack([feature(source.name, source.scores(asked)) for source in sources], axis=2)
        for question, features in zip(asked, found, strict=True):
            chance = _chances(question, features)
            taken = rng.random(listings) < chance
            taken[question.target] = True
            kept = np.flatnonzero(taken)
            yield Choice(features[kept], chance[kept], int(np.searchsorted(kept, question.target)))


def _chances(question: Question, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the chance of each listing to be an alternative."""
    listings = len(features)
    if listings <= FULL:
        return np.ones(listings)
    chance = np.full(listings, OTHERS / listings)
    for column in features.T:
        chance[np.argpartition(-column, TOP)[:TOP]] = 1
    chance[question.history] = 1
    return chance


def _parts(questions: int, listings: int) -> Iterator[slice]:
    """Return slices of the questions for whose scores there is room."""
    step = max(1, SCORES // max(1, listings))
    return (slice(at, at + step) for at in range(0, questions, step))
