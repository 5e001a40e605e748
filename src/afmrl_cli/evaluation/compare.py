"""Is a difference more than luck? One randomisation test over all metrics gives verdict, p and interval together.

    d_gj      sum over the queries of group g of (ours - theirs) in metric j;  n_g queries in g, N = sum n_g, G groups
    t_j       | sum_g d_gj | / sqrt(sum_g d_gj^2 + r),   r = z^2 sum_g n_g^2 / G
    draws     under "no difference" ours and theirs could change places: every group gets a random sign, the same one
              in all metrics; M = the largest of the t_j of a draw
    p_j       (1 + draws with M >= t_j) / (1 + draws): two-sided, corrected for the number of metrics (single-step
              max-T, Westfall and Young 1993), never 0
    c         t_j > c exactly where p_j <= 1 - confidence
    interval  the means mu with | sum_g (d_gj - mu n_g) | <= c sqrt(sum_g (d_gj - mu n_g)^2 + r)

The interval holds 0 exactly where t_j <= c, hence where p_j is above the level: what is printed beside a verdict never
contradicts it. All intervals of a comparison are simultaneous. One correction serves both, which a step-down method
(Holm) can't: its p have no intervals. The largest of correlated metrics decides, so that little power is lost.

A group are the queries about one product: they succeed and fail together. r stands for z^2 further groups that differ
as much as can be, half of them each way (z as in intervals.py): without it a difference that is the same in all groups
would get an interval of no width. It changes no p of a single metric. The signs are those of the hypothesis 0; at
other means the interval is an approximation. Draws are discrete with few groups: c then lies between the values that
would give the same verdicts, at z where it can.

Several seeds: a metric of a query is its mean over the runs. The intervals then speak of other queries, not of other
seeds; how far the runs lie apart stands beside it (`spread`, the standard deviation of their means).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..intervals import group_sums, normal_quantile

CELLS = 4_000_000  # numbers drawn at a time: 32 MB
SAME = 1e-9  # sums in another order differ in the last places: what equals the observed one must count
Verdict = Literal["better", "worse", "no difference shown", "equal"]


@dataclass(frozen=True)
class Difference:
    """One metric of two systems on the same queries. `low`, `high`, `p` and `verdict` are corrected for the number of
    metrics, all by the same test.
    """

    metric: str
    value: float
    other: float
    low: float
    high: float
    p: float
    verdict: Verdict

    @property
    def difference(self) -> float:
        """Return how much `value` lies above `other`."""
        return self.value - self.other

    def words(self, against: str) -> str:
        """Return the verdict as a person would say it."""
        ends = f"{signed(self.low)} to {signed(self.high)}"
        change = f"{self.difference:+.4f}, {ends}, corrected p = {self.p:.3g}"
        if self.verdict == "equal":
            return f"{self.metric}: the same as {against} on every query"
        if self.verdict == "no difference shown":
            return f"{self.metric}: no difference to {against} shown ({change})"
        return f"{self.metric}: {self.verdict} than {against} ({change})"


def signed(end: float, decimals: int = 4) -> str:
    """Return an interval's end for people; one that is not 0 never reads 0, which a verdict beside it would
    contradict.
    """
    return f"{end:+.{decimals}f}" if end == 0 or abs(end) >= 0.5 * 10**-decimals else f"{end:+.1e}"


def table_of(per_query: Mapping[str, Mapping[str, float]], queries: Sequence[str]) -> NDArray[np.float64]:
    """Return metrics [queries, metrics] from those of `metrics.evaluate`."""
    return np.array([[values[query] for values in per_query.values()] for query in queries], dtype=np.float64)


def largest_statistics(
    sums: NDArray[np.float64], scale: NDArray[np.float64], draws: int, seed: int
) -> NDArray[np.float64]:
    """Return M [draws]: the largest over metrics of |sum of randomly signed rows of `sums` [g, m]| / `scale` [m]."""
    rng = np.random.default_rng(seed)
    found = []
    for number in _pieces(draws, len(sums)):
        signs = rng.integers(2, size=(number, len(sums))) * 2.0 - 1
        found.append((np.abs(signs @ sums) / scale).max(axis=1))
    return np.concatenate(found)


def _pieces(draws: int, count: int) -> Iterator[int]:
    step = max(1, CELLS // count)
    yield from (min(step, draws - start) for start in range(0, draws, step))


def _critical(
    observed: NDArray[np.float64], shown: NDArray[np.bool_], drawn: NDArray[np.float64], level: float, z: float
) -> float:
    """Return c: what `observed` [m] must exceed; `shown` [m] are those whose p is at most `level` by the draws' M
    [draws].
    """
    allowed = math.floor(level * (1 + len(drawn)) * (1 + SAME))  # how many of draws and observation may lie as far out
    if allowed < 1:
        return math.inf  # too few draws to show anything
    least = float(np.partition(drawn, len(drawn) - allowed)[len(drawn) - allowed]) if allowed <= len(drawn) else 0.0
    least = max([least, *map(float, observed[~shown])])
    beyond = float(observed[shown].min()) if shown.any() else math.inf
    return max(least, min(z, (least + beyond) / 2))


def _ends(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], critical: float, reserve: float
) -> tuple[float, float]:
    """Return the means around that of `sums` [g] whose statistic is at most `critical`, within -1 and 1."""
    if math.isinf(critical):
        return -1.0, 1.0
    total, count, square = sums.sum(), sizes.sum(), critical**2
    # |total - mu count| <= c sqrt(sum (sums - mu sizes)^2 + reserve), squared: a quadratic in mu, negative inside.
    quadratic = [
        count**2 - square * (sizes**2).sum(),
        -2 * (total * count - square * (sums * sizes).sum()),
        total**2 - square * ((sums**2).sum() + reserve),
    ]
    roots = np.roots(quadratic)
    real = roots[np.abs(roots.imag) <= SAME].real
    mean = total / count
    low = max([-1.0, *real[real < mean].tolist()])
    high = min([1.0, *real[real > mean].tolist()])
    return float(low), float(high)


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
    """Return what `ours` [q, m] differs from `theirs` [q, m] in, metric by metric; row q is the same query in both."""
    sums, sizes = group_sums(ours - theirs, groups)
    z, level = normal_quantile(confidence), 1 - confidence
    reserve = z**2 * float((sizes**2).mean())
    scale = np.sqrt((sums**2).sum(axis=0) + reserve)
    observed = np.abs(sums.sum(axis=0)) / scale
    drawn = largest_statistics(sums, scale, draws, seed)
    p = (1 + (drawn[:, None] >= observed * (1 - SAME)).sum(axis=0)) / (1 + draws)
    shown = p <= level * (1 + SAME)
    critical = _critical(observed, shown, drawn, level, z)
    found = []
    for i, metric in enumerate(metrics):
        value, other = float(ours[:, i].mean()), float(theirs[:, i].mean())
        low, high = _ends(sums[:, i], sizes, critical, reserve)
        verdict: Verdict = "no difference shown"
        if not sums[:, i].any() and np.array_equal(ours[:, i], theirs[:, i]):
            verdict = "equal"
        elif shown[i]:
            verdict = "better" if value > other else "worse"
        else:  # where the statistic equals c, 0 is an end: rounding must not put it outside
            low, high = min(low, 0.0), max(high, 0.0)
        found.append(Difference(metric, value, other, low, high, float(p[i]), verdict))
    return found


def spread(runs: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return the standard deviation [m] of the runs' means, 0 for a single run."""
    means = np.array([run.mean(axis=0) for run in runs])
    deviation: list[float] = (means.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(means.shape[1])).tolist()
    return deviation
