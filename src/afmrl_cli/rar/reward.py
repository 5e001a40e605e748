"""The reward of a generated attribute text, as pure functions of the ranks that it leads to.

    recall@k  r = |{p in P : rank(p) <= k}| / |P|        P = the query's positives: a hit (0 or 1) when there is one,
                                                          a fraction when there are several
    rank      r = mean over p in P of f(rank(p)),        f falls in two lines: 2 at rank 1, 1 at rank 10, 0 at rank 100
    invalid   r = eta = -0.1 in place of either

Invalid is what the one strict validation (`attributes.schema.read_answer`) refuses, a cut-off (no end token within the
budget) included; nothing else is ever punished or rewarded, so the length of a text counts only by what it does to the
ranks. rank(p) = 1 + number of gallery rows before p; rows with equal scores stand in the gallery's order.

Departures: the paper's reward is recall@50. The rank-shaped one is that of ConvSearch-R1, as an option (`rar.reward`),
with two continuous lines instead of a step between rank 10 and 11, and given to well-formed text only. k is a setting
with 50 as its default, because what 50 means depends on the size of the gallery: `propose_k` says which k would leave
the most groups with something to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..attributes.parse import Failure

Shape = Literal["recall", "rank"]
ETA = -0.1
BEST, KNEE, LAST = 1, 10, 100
PROPOSED_KS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Reward:
    """What one answer gets.

    `recall` is recall@k whatever the shape of the reward, None for an invalid answer; `ranks` are its positives' ranks
    (() when invalid); `text` is the attribute text as the embedder read it ("" when invalid); `reason` says why it is
    invalid (None: it is valid).
    """

    value: float
    recall: float | None
    ranks: tuple[int, ...]
    text: str
    reason: Failure | None

    @property
    def valid(self) -> bool:
        """Tell whether the answer passed the strict validation."""
        return self.reason is None


def recall_at_k(ranks: Sequence[int], k: int) -> float:
    """Return the share of the positives whose rank (from 1) is at most `k`."""
    if not ranks:
        raise ValueError("a query without positives has no recall")
    return sum(rank <= k for rank in ranks) / len(ranks)


def rank_shaped(ranks: Sequence[int]) -> float:
    """Return the mean over the positives of f(rank): 2 at rank 1, 1 at rank 10, 0 from rank 100 on, lines between."""
    if not ranks:
        raise ValueError("a query without positives has no rank")
    return float(np.interp(list(ranks), [BEST, KNEE, LAST], [2.0, 1.0, 0.0]).mean())


def valid_reward(text: str, ranks: Sequence[int], *, k: int, shape: Shape) -> Reward:
    """Return the reward of a well-formed attribute text that led to these ranks."""
    recall = recall_at_k(ranks, k)
    return Reward(recall if shape == "recall" else rank_shaped(ranks), recall, tuple(ranks), text, None)


def invalid_reward(reason: Failure, *, eta: float = ETA) -> Reward:
    """Return the reward of an answer that the strict validation refused, or that was cut off."""
    return Reward(eta, None, (), "", reason)


Group = Sequence[Sequence[int] | None]
"""The answers to one query: the positives' ranks of each, None for an invalid answer."""


def share_with_variance(groups: Sequence[Group], k: int, *, eta: float = ETA) -> float:
    """Return the share of the groups in which not all rewards are equal, with recall@k as the reward."""
    if not groups:
        raise ValueError("no groups")
    different = [len({eta if ranks is None else recall_at_k(ranks, k) for ranks in group}) > 1 for group in groups]
    return sum(different) / len(different)


def propose_k(groups: Sequence[Group], ks: Sequence[int] = PROPOSED_KS) -> tuple[int, dict[int, float]]:
    """Return (the k with the most groups with non-zero reward variance, {k: share of such groups}).

    Only variance among valid answers counts: that eta differs from a recall says nothing about k. Of equal ones that
    nearest to the median rank is proposed: where no group has variance, hits are then neither certain nor out of reach.
    """
    well_formed = [[ranks for ranks in group if ranks is not None] for group in groups]
    shares = {k: share_with_variance(well_formed, k) for k in sorted(ks)}
    every = [rank for group in groups for ranks in group if ranks is not None for rank in ranks]
    middle = np.log(np.median(every)) if every else 0.0
    best = max(shares, key=lambda k: (shares[k], -abs(np.log(k) - middle)))
    return best, shares


def expected_recall(ranks: Sequence[int], rows: int, size: int, k: int) -> float:
    """Return the mean hit@k to expect of these ranks, found among `rows`, if the gallery were a random `size`
    of the rows.

    The positive stays and each of the rank - 1 rows before it is kept by chance: a hypergeometric tail, taken exactly.
    """
    if not 1 <= size <= rows:
        raise ValueError(f"size must be between 1 and {rows}")
    from scipy.stats import hypergeom

    before = np.asarray(ranks) - 1
    return float(hypergeom.cdf(k - 1, rows - 1, before, size - 1).mean())


def propose_size(ranks: Sequence[int], rows: int, k: int) -> int:
    """Return the gallery size, from 2 k to `rows`, at which plain hit@k comes nearest to a half: most to gain and to
    lose.
    """
    sizes: list[int] = sorted({*np.unique(np.geomspace(min(2 * k, rows), rows, 40).round().astype(int)).tolist(), rows})
    return min(sizes, key=lambda size: (abs(expected_recall(ranks, rows, size, k) - 0.5), -size))
