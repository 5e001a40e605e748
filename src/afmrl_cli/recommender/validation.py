"""Validation of the recommender: what the retrieval finds first for held-out interactions, in another order.

    ndcg@10   mean over the questions of 1 / log2(1 + rank), 0 beyond rank 10; ranks among all listings of the catalog
    hr@k      share of the questions whose target is among the first k

of the retrieval's own order, of the recommender's, and of both fused by v + w s (`shortlist`). The weight w is that of
a conditional logit of v and s, fitted by likelihood on the shortlists that hold their target, v's own weight taken as
1; it is not below 0, and a weak prior keeps it at 0 where there is little to go by. Where the target is not on the
shortlist, its rank is the retrieval's.

Position bias: how often the first of the shortlist changes when the candidates are shown in reverse, and hr@1 among
the shortlist by where the target stood (first, middle or last third), in the two orders alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..next_item.histories import Question, Recommender
from ..next_item.logit import Choice, fit_logit
from ..scores import ranks_of
from .ranking import Floats
from .shortlist import Reader, Shortlists, fuse, shortlists_of

KS = (1, 5, 10)
LEAST = 1e-2
"""Least weight of v: w is a share of it."""
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
    weight = fit_weight(validation, said)
    values = validation.lists.values
    fused = [fuse(own, both, weight) for own, both in zip(values, said, strict=True)]
    found: dict[str, float] = {}
    for ending, scores in (("", [both.mean(axis=0) for both in said]), ("_retrieval", values), ("_fused", fused)):
        ranks = _ranks(validation, scores)
        found[f"ndcg@10{ending}"] = _ndcg(ranks)
        found |= {f"hr@{k}{ending}": float((ranks <= k).mean()) for k in KS}
    return {**found, "weight": weight, **position_bias(validation, said)}


def fit_weight(validation: Validation, said: Sequence[Floats]) -> float:
    """Return w."""
    choices = []
    lists = validation.lists
    for question, chosen, values, both in zip(lists.questions, lists.listings, lists.values, said, strict=True):
        if (place := np.flatnonzero(chosen == question.target)).size:
            features = np.stack([values, both.mean(axis=0)], axis=1).astype(np.float32)
            choices.append(Choice(features, np.ones(len(chosen)), int(place[0])))
    own, recommender = fit_logit(choices, np.array([1.0, 0.0]), np.array([LEAST, 0.0]))
    return float(recommender / own)


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


def _ranks(validation: Validation, scores: Sequence[Floats]) -> NDArray[np.int64]:
    """Return the rank of each target: within its shortlist by `scores` [n], else the retrieval's."""
    ranks = validation.ranks.copy()
    for i, (question, chosen) in enumerate(zip(validation.questions, validation.lists.listings, strict=True)):
        if (place := np.flatnonzero(chosen == question.target)).size:
            ranks[i] = ranks_of(scores[i], place)[0]
    return ranks


def _ndcg(ranks: NDArray[np.int64]) -> float:
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())
