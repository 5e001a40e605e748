"""Is a difference more than luck? Intervals by bootstrap, tests by randomisation, both over queries.

    x_q          a figure of query q;  mean = sum over q of x_q / n
    interval     percentiles of the mean over draws: groups of queries drawn with replacement, as many as there are
    difference   d_q = a_q - b_q of two systems on the same query (paired); its interval likewise
    test         under "no difference" a_q and b_q could change places: every group's d is given a random sign,
                 p = (1 + draws with |mean| >= |mean observed|) / (1 + draws), two-sided
    Holm         p of the i-th smallest of m figures times (m - i + 1), made monotone: one run gives many figures,
                 and one in twenty would look like a gain by luck alone

A group are the queries about one product: they succeed and fail together, and taking them for independent would make
intervals too narrow. A percentile interval of a dozen queries is too narrow still; the number of groups is told.

Several seeds: a figure of a query is its mean over the runs. The intervals then speak of other queries, not of other
seeds; how far the runs lie apart is told beside (`spread`, the standard deviation of their means).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CELLS = 4_000_000  # numbers drawn at a time: 32 MB
Verdict = Literal["better", "worse", "no difference shown", "equal"]


@dataclass(frozen=True)
class Difference:
    """One figure of two systems on the same queries. `p` is corrected for the number of figures (Holm)."""

    metric: str
    value: float
    other: float
    low: float
    high: float
    p: float
    verdict: Verdict

    @property
    def difference(self) -> float:
        """How much `value` lies above `other`."""
        return self.value - self.other

    def words(self, against: str) -> str:
        """The verdict as a person would say it."""
        change = f"{self.difference:+.4f}, {self.low:+.4f} to {self.high:+.4f}, corrected p = {self.p:.3g}"
        if self.verdict == "equal":
            return f"{self.metric}: the same as {against} on every query"
        if self.verdict == "no difference shown":
            return f"{self.metric}: no difference to {against} shown ({change})"
        return f"{self.metric}: {self.verdict} than {against} ({change})"


def table_of(per_query: Mapping[str, Mapping[str, float]], queries: Sequence[str]) -> NDArray[np.float64]:
    """Figures [queries, metrics] from those of `metrics.evaluate`."""
    return np.array([[figures[query] for figures in per_query.values()] for query in queries], dtype=np.float64)


def group_sums(figures: NDArray[np.float64], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums [g, m] of `figures` [q, m] within each group, and how many queries each has [g]."""
    _, where = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(where).astype(np.float64)
    sums = np.zeros((len(sizes), figures.shape[1]))
    np.add.at(sums, where, figures)
    return sums, sizes


def bootstrap_means(figures: NDArray[np.float64], groups: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Means [draws, m] of `figures` [q, m], each of a sample of groups drawn with replacement."""
    sums, sizes = group_sums(figures, groups)
    rng = np.random.default_rng(seed)
    count = len(sizes)
    parts = []
    for number in _pieces(draws, count):
        drawn = rng.integers(count, size=(number, count)) + np.arange(number)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=number * count).reshape(number, count).astype(np.float64)
        parts.append((weights @ sums) / (weights @ sizes)[:, None])
    return np.concatenate(parts)


def interval(
    figures: NDArray[np.float64],
    groups: Sequence[str],
    draws: int,
    confidence: float,
    seed: int,
    lowest: float = 0.0,
) -> NDArray[np.float64]:
    """Low and high end [2, m] of the middle `confidence` of the bootstrap means of `figures` [q, m].

    One group says nothing of others: the interval then is all that a figure can be, from `lowest` to 1.
    """
    if len(set(groups)) < 2:
        return np.stack([np.full(figures.shape[1], lowest), np.ones(figures.shape[1])])
    tail = (1 - confidence) / 2
    means = bootstrap_means(figures, groups, draws, seed)
    ends: NDArray[np.float64] = np.quantile(means, [tail, 1 - tail], axis=0)
    return ends


def randomisation_test(
    differences: NDArray[np.float64], groups: Sequence[str], draws: int, seed: int
) -> NDArray[np.float64]:
    """Two-sided p [m] of paired `differences` [q, m]; 1.0 where all are 0."""
    sums, _ = group_sums(differences, groups)
    observed = np.abs(sums.sum(axis=0))
    rng = np.random.default_rng(seed)
    beyond = np.zeros(sums.shape[1])
    for number in _pieces(draws, len(sums)):
        signs = rng.integers(2, size=(number, len(sums))) * 2.0 - 1
        # A sum in another order differs in the last place: what equals the observed one must count.
        beyond += (np.abs(signs @ sums) >= observed * (1 - 1e-9) - 1e-12).sum(axis=0)
    p: NDArray[np.float64] = (1 + beyond) / (1 + draws)
    return p


def _pieces(draws: int, count: int) -> Iterator[int]:
    step = max(1, CELLS // count)
    yield from (min(step, draws - start) for start in range(0, draws, step))


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p values, in the same order."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = highest
    return corrected


def differences(
    metrics: Sequence[str],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    groups: Sequence[str],
    *,
    draws: int,
    confidence: float,
    seed: int,
) -> list[Difference]:
    """What `ours` [q, m] differs from `theirs` [q, m] in, figure by figure; row q is the same query in both."""
    apart = ours - theirs
    low, high = interval(apart, groups, draws, confidence, seed, lowest=-1.0)
    # Figures that are the same on every query are no test, and must not make the others' correction harsher.
    differ = [i for i in range(len(metrics)) if np.any(apart[:, i])]
    tested = randomisation_test(apart[:, differ], groups, draws, seed + 1) if differ else np.zeros(0)
    p = dict(zip(differ, holm(tested.tolist()), strict=True))
    found = []
    for i, metric in enumerate(metrics):
        value, other = float(ours[:, i].mean()), float(theirs[:, i].mean())
        verdict: Verdict = "no difference shown"
        if i not in p:
            verdict = "equal"
        elif p[i] < 1 - confidence and (low[i] > 0 or high[i] < 0):
            verdict = "better" if value > other else "worse"
        found.append(Difference(metric, value, other, float(low[i]), float(high[i]), p.get(i, 1.0), verdict))
    return found


def spread(runs: Sequence[NDArray[np.float64]]) -> list[float]:
    """Standard deviation [m] of the runs' means, 0 for a single run."""
    means = np.array([run.mean(axis=0) for run in runs])
    deviation: list[float] = (means.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(means.shape[1])).tolist()
    return deviation
