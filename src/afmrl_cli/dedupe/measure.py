"""Precision and recall over the threshold, on pairs of products that nothing was fitted on.

The catalog's split by identity decides: fitted on pairs of two training listings, the threshold chosen on those that
touch a validation listing and no test listing, measured on those that touch a test listing. A pair counts by half for
each of its listings on the measured side, so that the share of wrong pairs is that of the whole catalog: a test
listing can be taken for any other listing, not only for one of the few test listings.

    precision(t) = sum of w over same pairs with p >= t / sum of w over known pairs with p >= t
    recall(t)    = sum of w over same pairs with p >= t / sum of w over all same pairs, candidates or not

Reliability: the pairs that touch a validation or test listing, in bins of p; in each the mean p (predicted) beside the
share that is right (observed). Intervals are Wilson's, 95 %, with (sum of w)^2 / sum of w^2 for the number of pairs;
pairs of one listing are taken for independent, so they are a little too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.product import Product
from ..catalog.splits import split_of
from ..catalog.verdicts import Verdicts, pair_of
from ..intervals import interval_of_share
from ..settings import SplitSettings

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
FEWEST_SAME = 10
"""Pairs that a metric must rest on."""
FEWEST_FOUND = 10
EVEN = 0.5
BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
RELIABLE_FROM = 0.1
"""Scores from which reliability is measured: below are the masses of pairs that are shown to no one."""
FEWEST_RELIABLE = 100
MOST_ERROR = 0.05
"""How far predicted and observed may lie apart, on average over the counted pairs, for scores that are calibrated."""
UNKNOWN, DIFFERENT, SAME = -1, 0, 1
LABELS = {"same": SAME, "different": DIFFERENT, "unknown": UNKNOWN}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What the shop and people have said. `labels` [p] of the candidates; `side` [n] is 0 train, 1 validation, 2 test;
    `same_weight` are, for each side, all same pairs of the catalog, by half for each listing on it."""

    labels: NDArray[np.int8]
    side: NDArray[np.int8]
    same_weight: tuple[float, float, float]
    identities: list[str]
    """The listings' products, "" where it is unknown."""

    def weights(self, pairs: NDArray[np.int64], side: int) -> Floats:
        """Return [p]: how much a candidate counts on a side; 0 for pairs of which nothing is known and of a later
        side.
        """
        sides = self.side[pairs]
        share = (sides == side).mean(axis=1)
        share[(sides.max(axis=1) > side) | (self.labels == UNKNOWN)] = 0.0
        return np.asarray(share, dtype=np.float64)

    def held_out_weights(self, pairs: NDArray[np.int64]) -> Floats:
        """Return [p]: how much a candidate counts that touches a validation or test listing; 0 for those fitted on."""
        share = (self.side[pairs] > 0).mean(axis=1)
        return np.where(self.labels == UNKNOWN, 0.0, share)

    def training_weights(self, pairs: NDArray[np.int64]) -> Floats:
        """Return [p]: 1 for pairs of two training listings, more for different ones, of which the split takes more
        away.
        """
        both = (self.side[pairs] == 0).all(axis=1) & (self.labels != UNKNOWN)
        share = max(float((self.side == 0).mean()), 1e-9)
        return np.where(both, np.where(self.labels == DIFFERENT, 1 / share, 1.0), 0.0)


@dataclass(frozen=True)
class Curve:
    """Known pairs by falling score; `same` is the weight of all same pairs, found or not."""

    scores: Floats
    right: Floats
    all: Floats
    squares: Floats
    """Of the weights in `all`."""
    same: float

    @property
    def precision(self) -> Floats:
        """Return the precision at each score."""
        return np.divide(self.right, self.all, out=np.ones_like(self.right), where=self.all > 0)

    @property
    def count(self) -> Floats:
        """Return how many pairs of weight 1 the precision at each score is worth."""
        return np.divide(self.all**2, self.squares, out=np.zeros_like(self.all), where=self.squares > 0)

    def at(self, threshold: float) -> dict[str, Any]:
        """Return metrics at a threshold, with intervals; precision is 1 when nothing is found."""
        count = int(np.searchsorted(-self.scores, -threshold, side="right"))
        right = float(self.right[count - 1]) if count else 0.0
        found = float(self.all[count - 1]) if count else 0.0
        precision, recall = right / found if found else 1.0, right / self.same if self.same else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        ends = {
            "precision_interval": interval_of_share(precision, float(self.count[count - 1]) if count else 0.0),
            "recall_interval": interval_of_share(recall, self.same),
        }
        return {"threshold": threshold, "precision": precision, "recall": recall, "f1": f1, "pairs": found, **ends}


def what_is_known(
    products: Sequence[Product], pairs: NDArray[np.int64], verdicts: Verdicts, split: SplitSettings
) -> Known:
    """Return labels and sides. Same: one `product_id`, or confirmed; different: two `product_id`s, or rejected.
    Verdicts come before the catalog's own column.
    """
    own = {product.id: product.product_id or f"\0{product.id}" for product in products}
    joined = verdicts.identities(own)
    said = {id for pair in verdicts.confirmed for id in pair}
    identities = [joined[p.id] if p.product_id or p.id in said else "" for p in products]
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) if name else -1 for name in identities], dtype=np.int64)
    left, right = group[pairs[:, 0]], group[pairs[:, 1]]
    both = (left >= 0) & (right >= 0)
    labels = np.where(both & (left == right), SAME, np.where(both, DIFFERENT, UNKNOWN)).astype(np.int8)
    if verdicts.rejected:
        rejected = [pair_of(products[a].id, products[b].id) in verdicts.rejected for a, b in pairs]
        labels[np.array(rejected, dtype=bool)] = DIFFERENT
    sides = {"train": 0, "validation": 1, "test": 2}
    side = np.array([sides[split_of(product, split)] for product in products], dtype=np.int8)
    return Known(labels, side, _same_weights(group, side), identities)


def _same_weights(group: NDArray[np.int64], side: NDArray[np.int8]) -> tuple[float, float, float]:
    """Return all pairs within the groups, on the later side of their listings, by half for each listing on it."""
    held = group >= 0
    counts = np.zeros((int(group.max(initial=-1)) + 1, 3))
    np.add.at(counts, (group[held], side[held]), 1)
    before = np.cumsum(counts, axis=1) - counts
    same = (counts * (counts - 1) / 2 + counts * before / 2).sum(axis=0)
    return float(same[0]), float(same[1]), float(same[2])


def curve_of(scores: Floats, labels: NDArray[np.int8], weights: Floats, same: float) -> Curve:
    """Draw the curve of the pairs with a weight; equal scores are taken together."""
    rows = np.flatnonzero(weights > 0)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    score, weight = scores[rows], weights[rows]
    right, every, squares = np.cumsum(weight * (labels[rows] == SAME)), np.cumsum(weight), np.cumsum(weight**2)
    last = np.append(score[1:] != score[:-1], True) if len(rows) else np.zeros(0, dtype=bool)
    return Curve(
        score[last], right[last], every[last], squares[last], max(same, float(right[-1]) if len(rows) else 0.0)
    )


@dataclass(frozen=True)
class Choice:
    """A threshold, and whether `precision` there is what was aimed at."""

    threshold: float
    reached: bool
    precision: float
    interval: list[float]


def choose_threshold(curve: Curve, precision: float) -> Choice:
    """Choose the lowest threshold at which `precision` is reached; if it is nowhere, the one at which precision is
    surest: its interval's low end is highest.

    Where right and wrong lie far apart it is not lowered to pairs that are probably wrong, although there would be room
    for some of them: not below one half, nor below a `precision` that is less.
    """
    enough = curve.count >= FEWEST_FOUND
    good = np.flatnonzero(enough & (curve.precision >= precision))
    if len(good):
        return measure_threshold(curve, max(float(curve.scores[good[-1]]), min(EVEN, precision)), precision)
    if not enough.any():
        return measure_threshold(curve, EVEN, precision)
    low = [interval_of_share(*at)[0] for at in zip(curve.precision, curve.count, strict=True)]
    return measure_threshold(curve, float(curve.scores[int(np.argmax(np.where(enough, low, -1)))]), precision)


def measure_threshold(curve: Curve, threshold: float, precision: float) -> Choice:
    """Return what is known of a threshold: `precision` is reached only if enough pairs say so."""
    at = curve.at(threshold)
    found = int(np.searchsorted(-curve.scores, -threshold, side="right"))
    enough = found > 0 and curve.count[found - 1] >= FEWEST_FOUND
    return Choice(threshold, bool(enough and at["precision"] >= precision), at["precision"], at["precision_interval"])


def reliability(scores: Floats, known: Known, pairs: NDArray[np.int64]) -> dict[str, Any]:
    """Return the table of reliability, and what it says: whether `scores` [p] are calibrated, None for too few pairs.

    They are when predicted and observed lie at most MOST_ERROR apart on average, and in no bin further than luck: the
    bin's interval, widened by MOST_ERROR, holds what was predicted.
    """
    weights = known.held_out_weights(pairs)
    rows = weights > 0
    bins: list[dict[str, Any]] = []
    place = np.clip(np.searchsorted(BINS, scores, side="right") - 1, 0, len(BINS) - 2)
    for i, (low, high) in enumerate(pairwise(BINS)):
        held = np.flatnonzero(rows & (place == i))
        if not len(held):
            continue
        weight = weights[held]
        observed = float(np.average(known.labels[held] == SAME, weights=weight))
        count = float(weight.sum() ** 2 / (weight**2).sum())
        bins.append(
            {
                "from": low,
                "to": high,
                "predicted": float(np.average(scores[held], weights=weight)),
                "observed": observed,
                "pairs": count,
                "interval": interval_of_share(observed, count),
            }
        )
    counted = [each for each in bins if each["from"] >= RELIABLE_FROM]
    total = sum(each["pairs"] for each in counted)
    error = (
        sum(each["pairs"] * abs(each["predicted"] - each["observed"]) for each in counted) / total if total else None
    )
    calibrated = None
    if total >= FEWEST_RELIABLE and error is not None:
        calibrated = error <= MOST_ERROR and all(map(_agrees, counted))
    return {"calibrated": calibrated, "error": error, "pairs": total, "judged_from": RELIABLE_FROM, "bins": bins}


def _agrees(each: Mapping[str, Any]) -> bool:
    low, high = each["interval"]
    return bool(low - MOST_ERROR <= each["predicted"] <= high + MOST_ERROR)


def counts(known: Known) -> dict[str, Any]:
    """Say how much is known, for the document."""
    candidates = {name: int((known.labels == label).sum()) for name, label in LABELS.items()}
    return {
        "candidates": candidates,
        "same_in_catalog": sum(known.same_weight),
        "listings": sum(map(bool, known.identities)),
    }


def held_out_curve(scores: Floats, pairs: NDArray[np.int64], known: Known) -> Curve:
    """Return the curve on test listings, of these scores or of any other system's."""
    return curve_of(scores, known.labels, known.weights(pairs, 2), known.same_weight[2])


def held_out(scores: Floats, pairs: NDArray[np.int64], known: Known, threshold: float) -> dict[str, Any] | None:
    """Return metrics on test listings; None when too few of their duplicates are known."""
    if known.same_weight[2] < FEWEST_SAME:
        return None
    curve = held_out_curve(scores, pairs, known)
    found = float(known.weights(pairs, 2)[known.labels == SAME].sum())
    return {
        "same": known.same_weight[2],
        "candidate_recall": found / known.same_weight[2],
        "average_precision": average_precision(curve),
        "at_threshold": curve.at(threshold),
        "curve": [curve.at(each) for each in THRESHOLDS],
    }


def average_precision(curve: Curve) -> float:
    """Return the area under precision over recall; what is never found counts as nothing."""
    if not curve.same or not len(curve.scores):
        return 0.0
    steps = np.diff(np.concatenate([[0.0], curve.right / curve.same]))
    return float(np.sum(steps * np.divide(curve.right, curve.all)))
