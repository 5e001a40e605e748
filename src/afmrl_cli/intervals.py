"""How far a mean over other products may lie from the one that was measured: Wilson's interval, for queries in groups.

    x_q       a metric of query q, between 0 and 1; n queries in G groups, n_g of them in group g
    m         mean = sum x_q / n
    v         its variance over groups = sum over g of (sum over q in g of (x_q - m))^2 / n^2
    K         effective number of groups = n^2 / sum n_g^2 (Kish 1965): G for groups of one size, fewer for others
    k         number of right-or-wrong queries that would give this v = m (1 - m) / v
    z         quantile of the normal distribution, 1.96 for 95 %

    Wilson    (m + z^2/2k  +-  z sqrt(v + z^2/4k^2)) / (1 + z^2/k)
    unseen    m / (1 + z^2/K)  to  (m + z^2/K) / (1 + z^2/K)
    interval  from the lower of both low ends to the higher of both high ends

With queries that stand alone and are right or wrong k = K = n, the first is Wilson's score interval (1927) and holds
the second. Departures: v is measured, so that MRR and nDCG, which vary less than right and wrong, get narrower
intervals; a group counts as one piece of evidence. A group are the queries about one product: they succeed and fail
together. Where all values are equal (0 of n, n of n, 0.5 everywhere) v = 0 and the second remains: the means that z^2
further groups, all 0 or all 1, would give; for 0 of n and n of n that is Wilson's again. So no interval is without
width, as percentiles of a bootstrap are there: whatever is drawn from equal values is equal.

One group says nothing of others: its interval is 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def group_sums(values: NDArray[np.float64], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums [g, m] of `values` [q, m] within each group, and how many queries each has [g]."""
    _, where = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(where).astype(np.float64)
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, where, values)
    return sums, sizes


def normal_quantile(confidence: float) -> float:
    """Compute z such that a normal variable lies between -z and z with probability `confidence`."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(mean: Floats, variance: Floats, reserve: Floats, z: float) -> tuple[Floats, Floats]:
    """Return low and high end of Wilson's interval of each `mean`; `reserve` is z^2 / k."""
    middle = (mean + reserve / 2) / (1 + reserve)
    half = z * np.sqrt(variance + (reserve / (2 * z)) ** 2) / (1 + reserve)
    return middle - half, middle + half


def interval_of_share(share: float, count: float, confidence: float = 0.95) -> list[float]:
    """Return low and high end of Wilson's interval of a share of `count`, which need not be whole; 0 to 1 for a
    count of 0.
    """
    if count <= 0:
        return [0.0, 1.0]
    z, mean = normal_quantile(confidence), np.array(share)
    low, high = wilson(mean, mean * (1 - mean) / count, np.array(z**2 / count), z)
    # The ends hold the share itself, however the sums above are rounded.
    return [max(0.0, min(share, float(low))), min(1.0, max(share, float(high)))]


def interval(values: NDArray[np.float64], groups: Sequence[str], confidence: float) -> NDArray[np.float64]:
    """Return low and high end [2, m] of the means of `values` [q, m], all between 0 and 1."""
    sums, sizes = group_sums(values, groups)
    if len(sizes) < 2:
        return np.stack([np.zeros(values.shape[1]), np.ones(values.shape[1])])
    count = sizes.sum()
    mean = sums.sum(axis=0) / count
    variance = ((sums - sizes[:, None] * mean) ** 2).sum(axis=0) / count**2
    z = normal_quantile(confidence)
    spread = mean * (1 - mean)
    of_variance = z**2 * np.divide(variance, spread, out=np.zeros_like(mean), where=spread > 0)  # z^2 / k
    of_groups = z**2 * float((sizes**2).sum()) / count**2  # z^2 / K
    low, high = wilson(mean, variance, of_variance, z)
    low = np.minimum(low, mean / (1 + of_groups))
    high = np.maximum(high, (mean + of_groups) / (1 + of_groups))
    ends: NDArray[np.float64] = np.clip(np.stack([low, high]), 0, 1)
    return ends
