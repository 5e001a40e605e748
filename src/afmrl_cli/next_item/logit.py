"""The conditional logit (McFadden 1974): weights of features by which one of many was chosen.

    P(y | q) = exp(w . x_qy - log p_qy) / sum over j in D_q of exp(w . x_qj - log p_qj)
    w        = argmax over w >= l of sum over q of log P(y_q | q) - sum over k of (d_k (w_k - m_k))^2 / 2

D_q are the alternatives of question q that were sampled, among them the chosen one; p_qj is the chance that j is
sampled into D_q, independently of the others, as if it had not been chosen. With the term log p the weights are those
of all alternatives (McFadden 1978, uniform conditioning).
m_k is what w_k is before anything was seen and d_k the standard deviation of feature k within questions: a normal prior
whose spread is 1 per standard deviation of the feature. Few questions leave w near m, many outweigh it. l is the least
that a weight may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A question's alternatives: features [j, k], the chance of each to be sampled [j], and which one was chosen."""

    features: NDArray[np.float32]
    chance: Floats
    chosen: int


def fit_logit(choices: Sequence[Choice], before: Floats, least: Floats | None = None) -> Floats:
    """Return w [k]; `before` is m, and no weight is below `least` (None: no bound)."""
    if not choices:
        return before
    from scipy.optimize import minimize

    features = np.concatenate([each.features for each in choices]).astype(np.float64)
    sizes = np.array([len(each.features) for each in choices])
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    centred = features - np.repeat(np.add.reduceat(features, starts) / sizes[:, None], sizes, axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    offset = -np.log(np.concatenate([each.chance for each in choices]))
    chosen = starts + [each.chosen for each in choices]

    def loss(weights: Floats) -> tuple[float, Floats]:
        """Return the negative logarithm of the posterior, and its gradient."""
        utility = centred @ weights + offset
        utility -= np.repeat(np.maximum.reduceat(utility, starts), sizes)
        weight = np.exp(utility)
        totals = np.add.reduceat(weight, starts)
        share = weight / np.repeat(totals, sizes)
        away = spread * (weights - before)
        value = np.log(totals).sum() - utility[chosen].sum() + away @ away / 2
        return float(value), share @ centred - centred[chosen].sum(axis=0) + spread * away

    bounds = None if least is None else [(bound, None) for bound in least]
    fitted: Floats = minimize(loss, before, jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted
