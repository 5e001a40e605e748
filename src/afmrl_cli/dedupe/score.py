"""Features of a pair -> how probable it is that both listings are one product.

    s1 = w1 . q(x)                   x: the pair's features (features.py), q: all of them and all products of two
    s2 = w2 . q(x, s1, r, R)         r and R: how far s1 is below the best s1 of either listing, both
    p  = 1 / (1 + exp(-s2))

Both are logistic regressions with an L2 penalty on standardised columns, so that p is a calibrated probability over
candidate pairs like those that it was fitted on. The second look knows the rivals: where a listing has a better
partner, a pair is seldom right, however alike it looks.

Where too few pairs are known, x is weighed by hand (BY_HAND) and s2 = s1: an order with a round threshold, and no
probability. Its weights say what a person would: words and photos speak for a pair, other numbers, codes, attributes
and photos against it, and equal text alone is not enough once the photos differ, since variants share their text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .features import NAMES

PENALTY = 0.03
MOST_PAIRS = 60_000
ROWS = 50_000
FEWEST = 30
"""Pairs that must be known to be the same, and as many to be different, before anything is fitted."""
BY_HAND = {
    "": -10.0,
    "vector": 1.0,
    "vector_gap": -4.0,
    "text": 2.0,
    "text_gap": -3.0,
    "title_cosine": 4.0,
    "title_within": 3.0,
    "letters": 2.0,
    "rare": 1.0,
    "rare_other": -4.0,
    "same_title": 1.0,
    "crowd": -8.0,
    "code": 3.0,
    "code_other": -3.0,
    "column_code": 8.0,
    "column_code_other": -8.0,
    "numbers_other": -5.0,
    "attribute": 1.0,
    "attribute_other": -4.0,
    "price_other": -2.0,
    "photo_same": 4.0,
    "photo_other": -60.0,
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """Weights of standardised columns and their products of two."""

    mean: Floats
    scale: Floats
    linear: Floats
    square: Floats
    """[columns, columns], the upper triangle: the weight of each product of two."""
    bias: float

    def scores(self, features: Floats) -> Floats:
        """Log-odds [p]."""
        made = np.empty(len(features))
        for start in range(0, len(features), ROWS):
            part = (features[start : start + ROWS] - self.mean) / self.scale
            # The products are never written out: x . U x is the same and thirty times less work.
            made[start : start + ROWS] = part @ self.linear + np.einsum("ij,ij->i", part @ self.square, part)
        return made + self.bias


@dataclass(frozen=True)
class Scorer:
    """Both looks; `first` None: weighed by hand. `best` [n] is the best first score of each listing's candidates."""

    first: Logistic | None
    second: Logistic | None
    best: Floats

    @property
    def calibrated(self) -> bool:
        """Whether the scores are probabilities."""
        return self.first is not None

    def scores(self, features: NDArray[np.float32], pairs: NDArray[np.int64]) -> Floats:
        """The score of each pair, in 0..1."""
        if self.first is None or self.second is None:
            return _sigmoid(by_hand(features))
        first = self.first.scores(features.astype(np.float64))
        return _sigmoid(self.second.scores(_with_rivals(features, first, self.best, pairs)))


def fit_scorer(
    features: NDArray[np.float32], pairs: NDArray[np.int64], labels: NDArray[np.int8], weights: Floats, listings: int
) -> Scorer:
    """Fit on the pairs whose `weights` [p] are above 0; `labels` [p] are 1 for the same, 0 for different.

    By hand when fewer than FEWEST of either kind are known. `features` and `pairs` are all candidates: the rivals of a
    pair are among them.
    """
    known = np.flatnonzero(weights > 0)
    if min((labels[known] == 1).sum(), (labels[known] == 0).sum()) < FEWEST:
        return Scorer(None, None, np.empty(0))
    known, weight = _sample(known, labels, weights)
    wide = features.astype(np.float64)
    first = _fit(wide[known], labels[known], weight)
    scores = first.scores(wide)
    best = np.full(listings, -np.inf)
    for side in (0, 1):
        np.maximum.at(best, pairs[:, side], scores)
    second = _fit(_with_rivals(features[known], scores[known], best, pairs[known]), labels[known], weight)
    return Scorer(first, second, best)


def by_hand(features: NDArray[np.float32]) -> Floats:
    """Log-odds by weights that nobody has fitted."""
    weights = np.array([BY_HAND.get(name, 0.0) for name in NAMES])
    return np.asarray(features @ weights + BY_HAND[""], dtype=np.float64)


def _sample(known: NDArray[np.int64], labels: NDArray[np.int8], weights: Floats) -> tuple[NDArray[np.int64], Floats]:
    """All of few pairs; of many a fixed sample of those that differ, weighted up."""
    same, different = known[labels[known] == 1], known[labels[known] == 0]
    rng = np.random.default_rng(0)
    parts = []
    for rows in (same, different):
        some = rows if len(rows) <= MOST_PAIRS // 2 else np.sort(rng.choice(rows, MOST_PAIRS // 2, replace=False))
        parts.append((some, weights[some] * len(rows) / len(some)))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([weight for _, weight in parts])


def _with_rivals(features: NDArray[np.float32], first: Floats, best: Floats, pairs: NDArray[np.int64]) -> Floats:
    behind = np.maximum(best[pairs] - first[:, None], 0)
    behind[~np.isfinite(behind)] = 0  # a listing without any candidate has no rival
    columns = [features.astype(np.float64), first[:, None], behind.min(axis=1)[:, None], behind.max(axis=1)[:, None]]
    return np.concatenate(columns, axis=1)


def _fit(features: Floats, labels: NDArray[np.int8], weights: Floats) -> Logistic:
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0
    wide = _products((features - mean) / scale)
    spread = wide.std(axis=0)
    spread[spread < 1e-9] = 1.0
    model = LogisticRegression(C=PENALTY, max_iter=500).fit(
        wide / spread, labels, sample_weight=weights / weights.mean()
    )
    weights = model.coef_[0] / spread
    count = features.shape[1]
    square = np.zeros((count, count))
    square[np.triu_indices(count)] = weights[count:]
    return Logistic(mean, scale, weights[:count], square, float(model.intercept_[0]))


def _products(columns: Floats) -> Floats:
    left, right = np.triu_indices(columns.shape[1])
    return np.concatenate([columns, columns[:, left] * columns[:, right]], axis=1)


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(scores, -60, 60))))
