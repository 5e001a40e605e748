"""Features of a pair -> how probable it is that both listings are one product.

    s1 = w1 . x                      x: the pair's features (features.py)
    s2 = w2 . q(x, s1, r, R)         r and R: how far s1 is below the best s1 of either listing, both;
                                     q: all of them and all products of two
    p  = 1 / (1 + exp(-s2))

Both are logistic regressions with an L2 penalty on standardised columns. The second stage knows the rivals: where a
listing has a better partner, a pair is seldom right, however alike it looks. It is fitted on out-of-fold scores: s1 of
a known pair is that of a first stage which saw no pair of the identity of its first listing, or s1 would be surer
there than it is on unknown pairs. Whether p is a probability is not taken for granted: measure.py compares
it with what is observed on pairs that nothing was fitted on.

Where too few pairs are known, x is weighed by hand (BY_HAND) and s2 = s1: an order with a round threshold, and no
probability. Its weights say what a person would: words and photos speak for a pair, other numbers, model numbers,
sizes, colours, attributes and photos against it, and equal text alone is not enough once the photos differ, since
variants share their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import NAMES, RERANKER_NAMES

MOST_PAIRS = 60_000
ROWS = 20_000
FEWEST = 30
"""Pairs that must be known to be the same, and as many to be different, before anything is fitted."""
FOLDS = 5
"""Parts that the known products are dealt into; as many must have a pair of the same."""
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
    "model_other": -5.0,
    "column_code": 8.0,
    "column_code_other": -8.0,
    "numbers_other": -5.0,
    "colour_other": -12.0,
    "size_other": -24.0,
    "attribute": 1.0,
    "attribute_other": -4.0,
    "price_other": -2.0,
    "photo_same": 4.0,
    "photo_other": -60.0,
    "reranker": 4.0,
    "reranker_other": -4.0,
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """The form of the score: scikit-learn's C of both regressions (the smaller, the more the weights are held to 0),
    and whether the second one has the products of two features. `second` 0: there is none, s2 = s1.
    """

    first: float = 1.0
    second: float = 0.03
    products: bool = True


CHOSEN = Form()
"""By the validation identities of four catalogs: `python -m benchmarks.dedupe_quality ... --forms`."""


@dataclass(frozen=True)
class Scorer:
    """Both stages; `first` None: weighed by hand. `of_candidates` [p] are the first scores of the candidates, of known
    ones out of fold; `best` [n] is the best of them for each listing."""

    first: Any
    second: Any
    of_candidates: Floats
    best: Floats

    @property
    def fitted(self) -> bool:
        """Tell whether the weights come from known pairs."""
        return self.first is not None

    def scores(self, features: NDArray[np.float32], pairs: NDArray[np.int64], first: Floats | None = None) -> Floats:
        """Return the score of each pair, in 0..1. `first` are their first scores, where they are known."""
        if not self.fitted:
            return _sigmoid(by_hand(features))
        first = _log_odds(self.first, features) if first is None else first
        if self.second is None:
            return _sigmoid(first)
        return _sigmoid(_log_odds(self.second, _with_rivals(features, first, self.best, pairs)))


def fit_scorer(
    features: NDArray[np.float32],
    pairs: NDArray[np.int64],
    labels: NDArray[np.int8],
    weights: Floats,
    identities: Sequence[str],
    form: Form = CHOSEN,
) -> Scorer:
    """Fit on the pairs whose `weights` [p] are above 0; `labels` [p] are 1 for the same, 0 for different, `identities`
    [n] the listings' products, "" for unknown.

    By hand when fewer than FEWEST of either kind are known, or same pairs of fewer than FOLDS products. `features` and
    `pairs` are all candidates: the rivals of a pair are among them.
    """
    known = np.flatnonzero(weights > 0)
    if min((labels[known] == 1).sum(), (labels[known] == 0).sum()) < FEWEST:
        return Scorer(None, None, np.empty(0), np.empty(0))
    known, weight = _sample(known, labels, weights)
    fold, enough = _folds([identities[a] or f"\0{a}" for a in pairs[known, 0]], labels[known])
    if not enough:
        return Scorer(None, None, np.empty(0), np.empty(0))
    first = _logistic(form.first)
    weighed = {"logisticregression__sample_weight": weight / weight.mean()}
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    wide = features[known].astype(np.float64)
    unseen = cross_val_predict(
        first, wide, labels[known], cv=PredefinedSplit(fold), params=weighed, method="decision_function"
    )
    first.fit(wide, labels[known], **weighed)
    scores = _log_odds(first, features)
    scores[known] = unseen
    if not form.second:
        return Scorer(first, None, scores, np.empty(0))
    best = np.full(len(identities), -np.inf)
    for side in (0, 1):
        np.maximum.at(best, pairs[:, side], scores)
    second = _logistic(form.second, form.products)
    second.fit(_with_rivals(wide, unseen, best, pairs[known]), labels[known], **weighed)
    return Scorer(first, second, scores, best)


def by_hand(features: NDArray[np.float32]) -> Floats:
    """Return log-odds by weights that are set by hand."""
    weights = np.array([BY_HAND.get(name, 0.0) for name in (*NAMES, *RERANKER_NAMES)][: features.shape[1]])
    return np.asarray(features @ weights + BY_HAND[""], dtype=np.float64)


def _sample(known: NDArray[np.int64], labels: NDArray[np.int8], weights: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return all of few pairs; of many a fixed sample of those that differ, weighted up."""
    same, different = known[labels[known] == 1], known[labels[known] == 0]
    rng = np.random.default_rng(0)
    parts = []
    for rows in (same, different):
        some = rows if len(rows) <= MOST_PAIRS // 2 else np.sort(rng.choice(rows, MOST_PAIRS // 2, replace=False))
        parts.append((some, weights[some] * len(rows) / len(some)))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([weight for _, weight in parts])


def _folds(products: Sequence[str], labels: NDArray[np.int8]) -> tuple[NDArray[np.int64], bool]:
    """Return a fold for each known pair, by its product; and whether each fold has a same pair.

    Products with a same pair are dealt out first, so that every fold has as many of them.
    """
    names, where = np.unique(np.asarray(products, dtype=np.str_), return_inverse=True)
    same = np.bincount(where, labels == 1) > 0
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.argsort(~same, kind="stable")] = np.arange(len(names)) % FOLDS
    return fold[where], bool(same.sum() >= FOLDS)


def _with_rivals(features: NDArray[Any], first: Floats, best: Floats, pairs: NDArray[np.int64]) -> Floats:
    behind = np.maximum(best[pairs] - first[:, None], 0)
    behind[~np.isfinite(behind)] = 0  # a listing without any candidate has no rival
    columns = [features.astype(np.float64), first[:, None], behind.min(axis=1)[:, None], behind.max(axis=1)[:, None]]
    return np.concatenate(columns, axis=1)


def _logistic(penalty: float, products: bool = False) -> Any:
    """Return a logistic regression over standardised columns, or over them and all their products of two."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    more = [PolynomialFeatures(2, include_bias=False), StandardScaler()] if products else []
    return make_pipeline(StandardScaler(), *more, LogisticRegression(C=penalty, max_iter=500))


def _log_odds(model: Any, columns: NDArray[Any]) -> Floats:
    made = np.empty(len(columns))
    for start in range(0, len(columns), ROWS):
        made[start : start + ROWS] = model.decision_function(columns[start : start + ROWS].astype(np.float64))
    return made


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(scores, -60, 60))))
