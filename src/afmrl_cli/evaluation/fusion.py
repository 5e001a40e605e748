"""Two rankings as one, with a weight that was chosen on other queries than those that are scored.

    score(d) = w f1(d) + (1 - w) f2(d)                    convex combination (Bruch, Gai, Ingber 2023)
    f(d)     = (s(d) - least) / (best - least)            s is the system's score; both ends over its ranking of the
                                                          query, 1 where they are equal; 0 for what it does not rank
    w        of 0, 0.1, ..., 1 the one with the best mean metric over the tuning queries; of equal ones the one
             nearest to 0.5

Which queries tune: those about products of the validation split, where none of them is scored. Else (all products are
queried, or all that training never saw) the products are halved by a hash of their ids, and each half is scored
with the weight of the other half: no query is ever scored with a weight that was chosen by it or by another query about
its product. Fewer than LEAST_PRODUCTS products can't choose: both systems then weigh the same.

Our departure from the paper: the least score is that of the ranking (at most `eval.depth` products), not the least that
a score could be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..scores import best_first
from ..store.files import hash_json
from .metrics import Qrels, Ranking, Run, evaluate, ranked_ids
from .trec import SCORE_DECIMALS

WEIGHTS = tuple(i / 10 for i in range(11))
EQUAL = 0.5
LEAST_PRODUCTS = 20
TUNING_QUERIES = 500
"""At most so many queries choose a weight."""


@dataclass(frozen=True)
class FusionWeight:
    """`weight` of the first system for `scored` queries; chosen by `metric` on `tuned_on` other queries about
    `products` products, or not chosen at all (`tuned_on` 0).
    """

    weight: float
    scored: int
    metric: str
    tuned_on: int
    products: int
    source: str
    """validation, or the other half."""


@dataclass(frozen=True)
class Pair:
    """The rankings of two systems for the same queries, their judgements and what each query is about."""

    first: Run
    second: Run
    qrels: Qrels
    groups: Mapping[str, str]

    def part(self, queries: Sequence[str]) -> Pair:
        """Return the same of `queries` alone."""
        return Pair(self.first, self.second, {query: self.qrels[query] for query in queries}, self.groups)


def normalised(ranking: Ranking) -> dict[str, float]:
    """Return scores between 0 and 1 by product."""
    scores = dict(ranking)
    if not scores:
        return {}
    least, best = min(scores.values()), max(scores.values())
    return {id: (score - least) / (best - least) if best > least else 1.0 for id, score in scores.items()}


def fused(pair: Pair, weight: float, depth: int) -> dict[str, list[tuple[str, float]]]:
    """Return rankings of the queries of `pair`, at most `depth` products each."""
    found: dict[str, list[tuple[str, float]]] = {}
    for query in pair.qrels:
        first, second = normalised(pair.first.get(query, ())), normalised(pair.second.get(query, ()))
        # What only one system ranks has 0 of the other; a weight of 0 or 1 leaves the other one's products out.
        ids = list(dict.fromkeys([*(first if weight > 0 else ()), *(second if weight < 1 else ())]))
        sums = np.array([weight * first.get(id, 0.0) + (1 - weight) * second.get(id, 0.0) for id in ids])
        rows, values = best_first(sums, depth)
        scores = dict(zip([ids[row] for row in rows], values.astype(np.float64).round(SCORE_DECIMALS), strict=True))
        found[query] = [(id, float(scores[id])) for id in ranked_ids(list(scores.items()))]
    return found


def choose_weight(pair: Pair, metric: str, level: int, depth: int) -> float:
    """Choose the weight of WEIGHTS with the best mean `metric` over the queries of `pair`."""
    means = {w: evaluate(fused(pair, w, depth), pair.qrels, [metric], level).means.get(metric, 0.0) for w in WEIGHTS}
    best = max(means.values())
    return min((w for w in WEIGHTS if means[w] >= best - 1e-12), key=lambda w: (abs(w - EQUAL), w))


def tuned_fusion(
    scored: Pair, validation: Pair | None, metric: str, level: int, depth: int
) -> tuple[dict[str, list[tuple[str, float]]], list[FusionWeight]]:
    """Return rankings of the queries of `scored`, and the weights: tuned on `validation`, whose queries are others;
    without it each half of the products on the other half.
    """
    parts = _halves(scored) if validation is None else [(list(scored.qrels), validation)]
    run: dict[str, list[tuple[str, float]]] = {}
    weights = []
    for queries, tuning in parts:
        products = len({tuning.groups[query] for query in tuning.qrels})
        enough = products >= LEAST_PRODUCTS
        weight = choose_weight(tuning, metric, level, depth) if enough else EQUAL
        run |= fused(scored.part(queries), weight, depth)
        source = "validation" if validation else "other half"
        weights.append(FusionWeight(weight, len(queries), metric, len(tuning.qrels) if enough else 0, products, source))
    return {query: run[query] for query in scored.qrels}, weights


def _halves(pair: Pair) -> list[tuple[list[str], Pair]]:
    """Return (queries of a half of the products, the other half or a sample of it), for both halves."""
    sides: tuple[list[str], list[str]] = ([], [])
    for query in pair.qrels:
        sides[_number(pair.groups[query]) % 2].append(query)
    others = [sorted(side, key=_number)[:TUNING_QUERIES] for side in (sides[1], sides[0])]
    return [(side, pair.part(other)) for side, other in zip(sides, others, strict=True) if side]


def _number(name: str) -> int:
    return int(hash_json(["fusion", name])[:8], 16)
