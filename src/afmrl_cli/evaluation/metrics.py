"""Metrics of a ranking, as trec_eval defines them.

For one query, with the ranking d_1, d_2, ..., the grade g(d) of a product (unjudged: 0) and R = |{d : g(d) >= level}|:

    recall@k     |{i <= k : g(d_i) >= level}| / R
    hit@k        1 if some i <= k has g(d_i) >= level, else 0         (trec_eval: success)
    precision@k  |{i <= k : g(d_i) >= level}| / k
    mrr          1 / rank of the first relevant product, 0 without one (trec_eval: recip_rank)
    map          (1/R) * sum over relevant ranks i of precision@i
    ndcg@k       sum_{i<=k} g(d_i) / log2(i + 1), divided by the same sum of the best possible ranking

`level` (the setting `eval.min_grade`, 1) is the lowest grade that counts as relevant for all but ndcg, which uses the
grades themselves (linear gain; a negative grade gains nothing).

Ties: a ranking is sorted by score, highest first, and among equal scores by id, highest first, as trec_eval does;
scores are compared in single precision, as there. Whatever order a run comes in, or which product stood first in the
catalog, has no say. A query without a relevant product has no defined recall: it is left out of the means and named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UsageError

Ranking = Sequence[tuple[str, float]]
Run = Mapping[str, Ranking]
"""Query id -> (product id, score) pairs in any order, every product at most once."""
Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> product id -> grade."""

PLAIN_METRICS = ("mrr", "map")
CUT_METRICS = ("recall", "hit", "precision", "ndcg")
NDCG_CUT = 10


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one run: `means` by metric, `per_query` by metric and query."""

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    without_relevant: list[str] = field(default_factory=list)
    """Queries, of the qrels or the run, that have no relevant product; not part of the means."""

    @property
    def queries(self) -> int:
        """Return how many queries the means are over."""
        return len(next(iter(self.per_query.values()), {}))


def ranked_ids(ranking: Ranking) -> list[str]:
    """Return product ids from best to worst: score (single precision) descending, then id descending."""
    scores = np.asarray([score for _, score in ranking], dtype=np.float32).tolist()
    pairs = sorted(zip(scores, (doc for doc, _ in ranking), strict=True), reverse=True)
    return [doc for _, doc in pairs]


def recall_at(ids: Sequence[str], grades: Mapping[str, int], k: int, level: int = 1) -> float:
    """Return the share of the relevant products among the first `k`; `grades` holds at least one relevant product."""
    return _found(ids[:k], grades, level) / _relevant(grades, level)


def hit_at(ids: Sequence[str], grades: Mapping[str, int], k: int, level: int = 1) -> float:
    """Return 1.0 when a relevant product is among the first `k`."""
    return float(_found(ids[:k], grades, level) > 0)


def precision_at(ids: Sequence[str], grades: Mapping[str, int], k: int, level: int = 1) -> float:
    """Return the share of relevant products among the first `k`; divided by `k` even when the ranking is shorter."""
    return _found(ids[:k], grades, level) / k


def reciprocal_rank(ids: Sequence[str], grades: Mapping[str, int], level: int = 1) -> float:
    """Return 1 / rank of the first relevant product; 0.0 when none was found."""
    return next((1 / i for i, doc in enumerate(ids, 1) if grades.get(doc, 0) >= level), 0.0)


def average_precision(ids: Sequence[str], grades: Mapping[str, int], level: int = 1) -> float:
    """Return the mean over the relevant products of the precision at their rank; one that was not found adds 0."""
    found, total = 0, 0.0
    for i, doc in enumerate(ids, 1):
        if grades.get(doc, 0) >= level:
            found += 1
            total += found / i
    return total / _relevant(grades, level)


def ndcg_at(ids: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Return the discounted gain of the first `k` over that of the best ranking; 0.0 when no grade is positive."""
    ideal = _gain(sorted(grades.values(), reverse=True)[:k])
    return _gain([grades.get(doc, 0) for doc in ids[:k]]) / ideal if ideal else 0.0


def _gain(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / math.log2(i + 1) for i, grade in enumerate(grades, 1))


def _found(ids: Sequence[str], grades: Mapping[str, int], level: int) -> int:
    return sum(grades.get(doc, 0) >= level for doc in ids)


def _relevant(grades: Mapping[str, int], level: int) -> int:
    return sum(grade >= level for grade in grades.values())


def metric_names(ks: Sequence[int]) -> list[str]:
    """Return the names of the metrics that `evaluate` gives for the cuts `ks`, in the order of the tables."""
    ordered = sorted(set(ks))
    names = [f"{metric}@{k}" for metric in ("recall", "hit") for k in ordered]
    return [*names, "mrr", f"ndcg@{NDCG_CUT}", "map", f"precision@{NDCG_CUT}"]


def check_metric(name: str) -> str:
    """Return `name` when it is a metric that `evaluate` can compute (any cut above 0); UsageError with the known
    ones else.
    """
    metric, at, cut = name.partition("@")
    if (name in PLAIN_METRICS) or (metric in CUT_METRICS and at and cut.isdecimal() and int(cut) > 0):
        return name
    known = ", ".join([*(f"{metric}@K" for metric in CUT_METRICS), *PLAIN_METRICS])
    raise UsageError(f"{name}: no such metric", f"known: {known}")


def score_query(name: str, ids: Sequence[str], grades: Mapping[str, int], level: int = 1) -> float:
    """Return the metric `name` (such as "recall@10") of one ranking."""
    metric, _, cut = name.partition("@")
    if metric == "mrr":
        return reciprocal_rank(ids, grades, level)
    if metric == "map":
        return average_precision(ids, grades, level)
    if metric == "ndcg":
        return ndcg_at(ids, grades, int(cut))
    at = {"recall": recall_at, "hit": hit_at, "precision": precision_at}[metric]
    return at(ids, grades, int(cut), level)


def headline_metric(names: Sequence[str], label: str) -> str:
    """Return the one of `names` that a table begins with: the first, but with a `label` (coarse) mAP, since recall@1 of
    hundreds of relevant products says nothing.
    """
    return "map" if label else names[0]


def best_possible(qrels: Qrels, names: Sequence[str], level: int = 1) -> dict[str, float]:
    """Return the means that a ranking by the grades themselves would have: below 1 for recall@k where queries have more
    than k relevant products, and for precision@k where they have fewer.
    """
    return evaluate({query: list(grades.items()) for query, grades in qrels.items()}, qrels, names, level).means


def evaluate(run: Run, qrels: Qrels, names: Sequence[str], level: int = 1) -> Evaluation:
    """Return the metrics `names` of `run` against `qrels`.

    Every query of `qrels` counts: one that the run does not hold has an empty ranking, hence 0 (trec_eval -c). Queries
    without any relevant product are listed in `without_relevant` and are not part of the means; when no query has one,
    `means` is empty.
    """
    per_query: dict[str, dict[str, float]] = {check_metric(name): {} for name in names}
    without: list[str] = []
    for query in dict.fromkeys([*qrels, *run]):
        grades = qrels.get(query, {})
        if _relevant(grades, level) == 0:
            without.append(query)
            continue
        ids = ranked_ids(run.get(query, ()))
        for name in names:
            per_query[name][query] = score_query(name, ids, grades, level)
    means = {name: math.fsum(values.values()) / len(values) for name, values in per_query.items() if values}
    return Evaluation(means, per_query, without)
