"""Precision and recall over the threshold, on pairs of products that nothing was fitted on.

The catalog's split by identity decides: fitted on pairs of two training listings, the threshold chosen on those that
touch a validation listing and no test listing, measured on those that touch a test listing. A pair counts by half for
each of its listings on the measured side, so that the share of wrong pairs is that of the whole catalog: a test
listing can be taken for any other listing, not only for one of the few test listings.

    precision(t) = sum of w over same pairs with p >= t / sum of w over known pairs with p >= t
    recall(t)    = sum of w over same pairs with p >= t / sum of w over all same pairs, candidates or not
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.product import Product
from ..catalog.splits import split_of
from ..catalog.verdicts import Verdicts, pair_of
from ..settings import SplitSettings

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
FEWEST_SAME = 10
"""Pairs that a figure must rest on."""
FEWEST_FOUND = 5
EVEN = 0.5
UNKNOWN, DIFFERENT, SAME = -1, 0, 1
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What the shop and people have said. `labels` [p] of the candidates; `side` [n] is 0 train, 1 validation, 2 test;
    `same_weight` are, for each side, all same pairs of the catalog, by half for each listing on it."""

    labels: NDArray[np.int8]
    side: NDArray[np.int8]
    same_weight: tuple[float, float, float]
    identities: list[str]
    """The listings' products, "" where nobody said."""

    def weights(self, pairs: NDArray[np.int64], side: int) -> Floats:
        """[p]: how much a candidate counts on a side; 0 for pairs of which nothing is known and of a later side."""
        sides = self.side[pairs]
        share = (sides == side).mean(axis=1)
        share[(sides.max(axis=1) > side) | (self.labels == UNKNOWN)] = 0.0
        return np.asarray(share, dtype=np.float64)

    def training_weights(self, pairs: NDArray[np.int64]) -> Floats:
        """[p]: 1 for pairs of two training listings, more for different ones, of which the split takes more away."""
        both = (self.side[pairs] == 0).all(axis=1) & (self.labels != UNKNOWN)
        share = max(float((self.side == 0).mean()), 1e-9)
        return np.where(both, np.where(self.labels == DIFFERENT, 1 / share, 1.0), 0.0)


@dataclass(frozen=True)
class Curve:
    """Known pairs by falling score; `same` is the weight of all same pairs, found or not."""

    scores: Floats
    right: Floats
    all: Floats
    same: float

    def at(self, threshold: float) -> dict[str, float]:
        """Figures at a threshold; precision is 1 when nothing is found."""
        count = int(np.searchsorted(-self.scores, -threshold, side="right"))
        right = float(self.right[count - 1]) if count else 0.0
        found = float(self.all[count - 1]) if count else 0.0
        precision, recall = right / found if found else 1.0, right / self.same if self.same else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"threshold": threshold, "precision": precision, "recall": recall, "f1": f1, "pairs": found}


def what_is_known(
    products: Sequence[Product], pairs: NDArray[np.int64], verdicts: Verdicts, split: SplitSettings
) -> Known:
    """Labels and sides. Same: one `product_id`, or confirmed; different: two `product_id`s, or rejected. Verdicts come
    before the catalog's own column."""
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
    """All pairs within the groups, on the later side of their listings, by half for each listing on it."""
    held = group >= 0
    counts = np.zeros((int(group.max(initial=-1)) + 1, 3))
    np.add.at(counts, (group[held], side[held]), 1)
    before = np.cumsum(counts, axis=1) - counts
    same = (counts * (counts - 1) / 2 + counts * before / 2).sum(axis=0)
    return float(same[0]), float(same[1]), float(same[2])


def curve_of(scores: Floats, labels: NDArray[np.int8], weights: Floats, same: float) -> Curve:
    """Of the pairs with a weight; equal scores are taken together."""
    rows = np.flatnonzero(weights > 0)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    score, weight = scores[rows], weights[rows]
    right, every = np.cumsum(weight * (labels[rows] == SAME)), np.cumsum(weight)
    last = np.append(score[1:] != score[:-1], True) if len(rows) else np.zeros(0, dtype=bool)
    return Curve(score[last], right[last], every[last], max(same, float(right[-1]) if len(rows) else 0.0))


def choose_threshold(curve: Curve, precision: float) -> tuple[float, bool]:
    """The lowest threshold at which `precision` is reached, and whether it is: if not, where precision is highest.

    Where right and wrong lie far apart it is not lowered to pairs that are probably wrong, although there would be room
    for some of them: not below one half, nor below a `precision` that is less.
    """
    exact = np.divide(curve.right, curve.all, out=np.ones_like(curve.right), where=curve.all > 0)
    enough = curve.all >= FEWEST_FOUND
    good = np.flatnonzero(enough & (exact >= precision))
    if len(good):
        return max(float(curve.scores[good[-1]]), min(EVEN, precision)), True
    if not enough.any():
        return 1.0, False
    return float(curve.scores[int(np.argmax(np.where(enough, exact, -1)))]), False


def average_precision(curve: Curve) -> float:
    """The area under precision over recall; what is never found counts as nothing."""
    if not curve.same or not len(curve.scores):
        return 0.0
    steps = np.diff(np.concatenate([[0.0], curve.right / curve.same]))
    return float(np.sum(steps * np.divide(curve.right, curve.all)))
