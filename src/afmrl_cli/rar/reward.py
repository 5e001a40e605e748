"""The reward of a generated attribute text, as pure functions of the ranks that it leads to.

    recall@k  r = |{p in P : rank(p) <= k}| / |P|        P = the query's positives: a hit (0 or 1) when there is one,
                                                          a fraction when there are several
    rank      r = mean over p in P of 1 / rank(p)         the reciprocal rank: 1, 1/2, 1/3, ..., 1/100
    invalid   r = eta = -0.1 in place of either

Invalid is what the one strict validation (`attributes.schema.read_answer`) refuses, a cut-off (no end token within the
budget) included; nothing else is ever punished or rewarded, so the length of a text counts only by what it does to the
ranks. rank(p) = 1 + number of gallery rows before p; rows with equal scores stand in the gallery's order.

Departures: the paper's reward is recall@50. Where nearly every answer is found among the first k already, recall@k
teaches nothing, and `rar.reward` rewards by rank. The reciprocal rank, since a group's advantages are divided by their
deviation: what counts is how far apart its ranks lie, not how large the reward is. From rank 1 to 2 is worth as much as
from 2 to the very last, as in what people see of a search; on two lines (ConvSearch-R1: 2 at rank 1, 1 at rank 10) it
would be worth no more than from 9 to 10. k is a setting, because what 50 means depends on the size of the gallery:
`propose_k` says which k would leave the most groups with something to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..attributes.parse import Failure

Shape = Literal["recall", "rank"]
ETA = -0.1
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


def reciprocal_rank(ranks: Sequence[int]) -> float:
    """Return the mean over the positives of 1 / rank."""
    if not ranks:
        raise ValueError("a query without positives has no rank")
    return math.fsum(1 / rank for rank in ranks) / len(ranks)


def worth(ranks: Sequence[int], k: int, shape: Shape) -> float:
    """Return the reward of well-formed text that led to these ranks."""
    return recall_at_k(ranks, k) if shape == "recall" else reciprocal_rank(ranks)


def valid_reward(text: str, ranks: Sequence[int], *, k: int, shape: Shape) -> Reward:
    """Return the reward of a well-formed attribute text that led to these ranks."""
    return Reward(worth(ranks, k, shape), recall_at_k(ranks, k), tuple(ranks), text, None)


def invalid_reward(reason: Failure, *, eta: float = ETA) -> Reward:
    """Return the reward of an answer that the strict validation refused, or that was cut off."""
    return Reward(eta, None, (), "", reason)


Group = Sequence[Sequence[int] | None]
"""The answers to one query: the positives' ranks of each, None for an invalid answer."""


def share_with_variance(groups: Sequence[Group], k: int, shape: Shape = "recall", *, eta: float = ETA) -> float:
    """Return the share of the groups in which not all rewards are equal."""
    if not groups:
        raise ValueError("no groups")
    different = [len({eta if ranks is None else worth(ranks, k, shape) for ranks in group}) > 1 for group in groups]
    return sum(different) / len(different)


def well_formed(groups: Sequence[Group]) -> list[list[Sequence[int]]]:
    """Return the groups without invalid answers: that eta differs from what others get says nothing of retrieval."""
    return [[ranks for ranks in group if ranks is not None] for group in groups]


def propose_k(groups: Sequence[Group], ks: Sequence[int] = PROPOSED_KS) -> tuple[int, dict[int, float]]:
    """Return (the k with the most groups with non-zero reward variance, {k: share of such groups}).

    Only variance among valid answers counts. Of equal ones that nearest to the median rank is proposed: where no group
    has variance, hits are then neither certain nor out of reach.
    """
    valid = well_formed(groups)
    shares = {k: share_with_variance(valid, k) for k in sorted(ks)}
    every = [rank for group in valid for ranks in group for rank in ranks]
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
