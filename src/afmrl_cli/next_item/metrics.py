"""How well next items are ranked: HR@k and nDCG@k over the whole catalog, and among few sampled listings.

    a question has one target with the score s; above = listings with a score over s, ties = other listings with s
    p(r)      chance that the target stands at rank r when ties are ordered at random:
              1 / (ties + 1) for r = above + 1, ..., above + ties + 1, else 0
    HR@k      sum over r <= k of p(r): the target is among the first k
    nDCG@k    sum over r <= k of p(r) / log2(r + 1); with one target the best possible is 1

Ties are the rule, not the exception: most listings were bought together with nothing, and are equally popular. Their
expectation (McSherry and Najork 2008) is exact and needs no draws. The order of the catalog would give the first
listings what they have not earned, the worst rank would count a system that knows little as one that errs.

    full      ranked among all listings of the catalog, those not yet on sale or taken before included: hr@10
    sampled   ranked among 9 or 99 sampled listings, as papers do: hr@10_of_100

A sampled metric says less: it is far higher, and can order systems otherwise than the full one (Krichene and Rendle
2020). The listings are drawn uniformly from those that are neither the target nor in the customer's history, by a seed
and what the question is: the same for every system and run. The 9 are the first of the 99.

Over all questions, with the first 10 that a system ranks for each:

    coverage@10    share of the catalog's listings that are among anybody's first 10
    gini@10        Gini index of how often each listing is among them, all listings counted: 0 evenly, 1 always the same
    popularity@10  mean of their popularity: the share of listings with fewer training rows, those with equally many
                   counted half. As the average recommendation popularity (Abdollahpouri et al. 2019), by percentiles
                   instead of counts, which one best-seller would decide; 0.5 is a choice without regard to popularity
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .histories import Histories, Items, Question, Scores

CUTS = (1, 3, 5, 10)
SAMPLED = (9, 99)
"""How many listings a target is ranked among, itself not counted."""
SHOWN = 10
"""Places for coverage, Gini index and popularity."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Where targets stand [questions]: listings `above` each, `ties` of equal score, and whether it is `never` shown
    (its score is -inf)."""

    above: NDArray[np.int64]
    ties: NDArray[np.int64]
    never: NDArray[np.bool_]

    @property
    def mean(self) -> Floats:
        """Return the mean rank over the orders of ties."""
        return 1 + self.above + self.ties / 2

    def values(self, cuts: Sequence[int]) -> Floats:
        """Return [questions, 2 * cuts]: HR@k for each cut, then nDCG@k."""
        found = np.zeros((len(self.above), 2 * len(cuts)))
        for column, cut in enumerate(cuts):
            gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, cut + 2)))])
            first, last = np.minimum(self.above, cut), np.minimum(self.above + self.ties + 1, cut)
            found[:, column] = (last - first) / (self.ties + 1)
            found[:, len(cuts) + column] = (gains[last] - gains[first]) / (self.ties + 1)
        found[self.never] = 0
        return found


def joined(ranks: Sequence[Ranks]) -> Ranks:
    """Return the ranks of all parts, one after the other."""
    above, ties = [each.above for each in ranks], [each.ties for each in ranks]
    return Ranks(np.concatenate(above), np.concatenate(ties), np.concatenate([each.never for each in ranks]))


def rank_targets(scores: Scores, targets: Items, name: str) -> Ranks:
    """Return where the `targets` [questions] stand among all listings by `scores` [questions, listings] of the system
    `name`. Raises ModelError where a score is no number.
    """
    if np.isnan(scores).any():
        raise ModelError(f"{name}: gives scores that are no numbers", "its weights are damaged: train it again")
    return _ranks(scores, scores[np.arange(len(targets)), targets], 1)


def rank_among(scores: Scores, targets: Items, others: Items) -> Ranks:
    """Return where the `targets` [questions] stand among the listings `others` [questions, n]."""
    rows = np.arange(len(targets))
    return _ranks(scores[rows[:, None], others], scores[rows, targets], 0)


def rank_first(scores: Scores) -> Ranks:
    """Return where the first of each row of `scores` [questions, n] stands among the others."""
    return _ranks(scores[:, 1:], scores[:, 0], 0)


def _ranks(scores: Scores, own: Scores, itself: int) -> Ranks:
    above = (scores > own[:, None]).sum(axis=1)
    ties = (scores == own[:, None]).sum(axis=1) - itself
    return Ranks(above.astype(np.int64), ties.astype(np.int64), np.isneginf(own))


def first_shown(scores: Scores) -> Items:
    """Return the first places [questions, at most 10] by scores, -1 where nothing more is shown; of equal scores the
    catalog's order decides.
    """
    count = min(SHOWN, scores.shape[1])
    least = -np.partition(-scores, count - 1, axis=1)[:, count - 1]
    found = np.full((len(scores), count), -1, dtype=np.int32)
    for row, end in enumerate(least):
        above = np.flatnonzero(scores[row] > end)
        order = above[np.argsort(-scores[row, above], kind="stable")]
        if not np.isneginf(end):
            order = np.append(order, np.flatnonzero(scores[row] == end)[: count - len(order)])
        found[row, : len(order)] = order
    return found


def metric_names(cuts: Sequence[int] = CUTS, among: int = 0) -> list[str]:
    """Return the names of the columns of `Ranks.values`; `among` so many listings, the target counted (0: all)."""
    suffix = f"_of_{among}" if among else ""
    return [f"{metric}@{cut}{suffix}" for metric in ("hr", "ndcg") for cut in cuts]


def identity(question: Question, histories: Histories, seed: int) -> bytes:
    """Return what is sampled by for a question: of the listings' ids and times, whatever the customers' hashes are."""
    first = histories.ids[question.history[0]]
    parts = (seed, question.seconds, histories.ids[question.target], first, int(question.times[0]))
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def sample_others(questions: Sequence[Question], histories: Histories, count: int, seed: int) -> Items | None:
    """Return `count` listings [questions, count] for each question, neither its target nor in its history; None where
    one has not so many.
    """
    listings = len(histories.ids)
    found = np.empty((len(questions), count), dtype=np.int32)
    for row, question in enumerate(questions):
        taken = np.append(question.history, question.target)
        rng = np.random.default_rng(int.from_bytes(identity(question, histories, seed), "big"))
        drawn = rng.choice(listings, min(listings, count + len(np.unique(taken))), replace=False)
        others = drawn[~np.isin(drawn, taken)][:count]
        if len(others) < count:
            return None
        found[row] = others
    return found


def popularity_of(histories: Histories) -> Floats:
    """Return the popularity [listings] of each listing by its training rows, between 0 and 1."""
    listings = len(histories.ids)
    counts = np.bincount(histories.item[histories.training], minlength=listings)
    sorted_counts = np.sort(counts)
    fewer = np.searchsorted(sorted_counts, counts, "left")
    upto = np.searchsorted(sorted_counts, counts, "right")
    return np.asarray((fewer + upto) / (2 * listings), dtype=np.float64)


def coverage(shown: Items, listings: int) -> float:
    """Return the share of the catalog's listings that are shown at all."""
    return len(np.unique(shown[shown >= 0])) / listings


def gini(shown: Items, listings: int) -> float:
    """Return the Gini index of how often each listing is shown."""
    counts = np.sort(np.bincount(shown[shown >= 0], minlength=listings))
    if not counts.any():
        return 0.0
    weights = 2 * np.arange(1, listings + 1) - listings - 1
    return float((weights * counts).sum() / (listings * counts.sum()))
