"""Validation of the recommender: what the retrieval finds first for held-out interactions, in another order.

    ndcg@10   mean over the questions of 1 / log2(1 + rank), 0 beyond rank 10; ranks among all listings of the catalog
    hr@k      share of the questions whose target is among the first k

of the retrieval's own order, of the recommender's, and of both fused by the weight with the best ndcg@10; of equal ones
the lowest. Where the target is not on the shortlist, its rank is the retrieval's.

Position bias: how often the first of the shortlist changes when the candidates are shown in reverse, and hr@1 among
the shortlist by where the target stood (first, middle or last third), in the two orders alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..next_item.histories import Question, Recommender
from ..scores import ranks_of
from .ranking import Floats
from .shortlist import Reader, Shortlists, fuse, shortlists_of

WEIGHTS = tuple(i / 10 for i in range(11))
KS = (1, 5, 10)
NAMES = frozenset(
    [
        *(f"{name}{of}" for name in ("ndcg@10", *(f"hr@{k}" for k in KS)) for of in ("", "_retrieval", "_fused")),
        *("weight", "changed", "hr@1_first", "hr@1_middle", "hr@1_last"),
    ]
)
"""Metrics without an ending are of the recommender's own order."""


@dataclass(frozen=True)
class Validation:
    """Held-out questions with their shortlists, and the rank of each target by the retrieval among all listings."""

    lists: Shortlists
    ranks: NDArray[np.int64]

    @property
    def questions(self) -> list[Question]:
        """Return the questions."""
        return self.lists.questions

    def metrics(self, reader: Reader) -> dict[str, float]:
        """Ask the recommender and return all metrics."""
        return metrics_of(self, reader.read(self.questions, self.lists.listings))


def make_validation(fused: Recommender, questions: Sequence[Question], number: int) -> Validation:
    """Let the retrieval find the shortlists of `number` listings."""
    ranks = np.empty(len(questions), dtype=np.int64)
    for i, question in enumerate(questions):
        ranks[i] = ranks_of(fused.scores([question])[0], [question.target])[0]
    return Validation(shortlists_of(fused, questions, number), ranks)


def metrics_of(validation: Validation, said: Sequence[Floats]) -> dict[str, float]:
    """Return the metrics of what the recommender said, s [2, n] of each shortlist."""
    ranks = {weight: _ranks(validation, said, weight) for weight in WEIGHTS}
    gain = {weight: _ndcg(found) for weight, found in ranks.items()}
    best = max(WEIGHTS, key=lambda weight: (gain[weight], -weight))
    found: dict[str, float] = {}
    for ending, weight in (("", 1.0), ("_retrieval", 0.0), ("_fused", best)):
        found[f"ndcg@10{ending}"] = gain[weight]
        found |= {f"hr@{k}{ending}": float((ranks[weight] <= k).mean()) for k in KS}
    return {**found, "weight": best, **position_bias(validation, said)}


def position_bias(validation: Validation, said: Sequence[Floats]) -> dict[str, float]:
    """Return how often the order of showing changes the first one, and hr@1 by the target's third; 0 for none."""
    changed, right = [], {"first": list[bool](), "middle": list[bool](), "last": list[bool]()}
    for question, chosen, both in zip(validation.questions, validation.lists.listings, said, strict=True):
        number = len(chosen)
        changed.append(bool(both[0].argmax() != both[1].argmax()))
        for place in np.flatnonzero(chosen == question.target):
            for scores, at in zip(both, (int(place), number - 1 - int(place)), strict=True):
                third = ("first", "middle", "last")[min(2, 3 * at // number)]
                right[third].append(bool(scores.argmax() == place))
    return {
        "changed": float(np.mean(changed)) if changed else 0.0,
        **{f"hr@1_{third}": float(np.mean(each)) if each else 0.0 for third, each in right.items()},
    }


def _ranks(validation: Validation, said: Sequence[Floats], weight: float) -> NDArray[np.int64]:
    """Return the rank of each target: within its shortlist by the fused score, else the retrieval's."""
    ranks = validation.ranks.copy()
    lists = validation.lists
    for i, (question, chosen) in enumerate(zip(lists.questions, lists.listings, strict=True)):
        if (place := np.flatnonzero(chosen == question.target)).size:
            ranks[i] = ranks_of(fuse(lists.values[i], said[i], weight), place)[0]
    return ranks


def _ndcg(ranks: NDArray[np.int64]) -> float:
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())
