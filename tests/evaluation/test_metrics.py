"""The figures against hand-computed rows and against pytrec-eval on random runs with ties."""

import math
import random

import pytest
import pytrec_eval

from afmrl_cli.errors import UsageError
from afmrl_cli.evaluation.metrics import (
    average_precision,
    best_possible,
    check_metric,
    evaluate,
    headline_metric,
    hit_at,
    metric_names,
    precision_at,
    ranked_ids,
    recall_at,
    reciprocal_rank,
    score_query,
)

NAMES = metric_names([1, 5, 10])
THEIRS = {"mrr": "recip_rank", "map": "map", "recall": "recall_{}", "hit": "success_{}", "ndcg": "ndcg_cut_{}"}
THEIRS["precision"] = "P_{}"


def test_hand_computed() -> None:
    run = {"q": [("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.6)]}
    qrels = {"q": {"b": 2, "d": 1, "x": 1, "a": 0}}
    means = evaluate(run, qrels, ["recall@1", "recall@2", "hit@2", "precision@4", "mrr", "map", "ndcg@10"]).means
    assert means["recall@1"] == 0
    assert means["recall@2"] == pytest.approx(1 / 3)
    assert means["hit@2"] == 1
    assert means["precision@4"] == pytest.approx(2 / 4)
    assert means["mrr"] == pytest.approx(1 / 2)
    assert means["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    gain, ideal = 2 / math.log2(3) + 1 / math.log2(5), 2 / 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert means["ndcg@10"] == pytest.approx(gain / ideal)


def test_a_grade_of_one_is_relevant_unless_it_is_said_otherwise() -> None:
    ids, grades = ["x", "a", "b"], {"a": 1, "b": 2, "c": 0}
    assert (recall_at(ids, grades, 2), recall_at(ids, grades, 2, 2)) == (0.5, 0)
    assert (hit_at(ids, grades, 2), hit_at(ids, grades, 2, 2)) == (1, 0)
    assert (precision_at(ids, grades, 2), precision_at(ids, grades, 2, 2)) == (0.5, 0)
    assert (reciprocal_rank(ids, grades), reciprocal_rank(ids, grades, 2)) == (1 / 2, 1 / 3)
    assert average_precision(ids, grades) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert score_query("recall@2", ids, grades) == 0.5


def test_what_a_table_begins_with() -> None:
    assert headline_metric(["recall@1", "mrr", "map"], "") == "recall@1"
    assert headline_metric(["recall@1", "mrr", "map"], "category") == "map"


def test_the_best_that_a_ranking_can_reach() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 1, "x": 0}, "r": {"a": 1}}
    best = best_possible(qrels, ["recall@1", "mrr", "precision@2", "map"])
    assert best == {"recall@1": pytest.approx((1 / 3 + 1) / 2), "mrr": 1, "precision@2": 0.75, "map": 1}
    assert best_possible(qrels, ["recall@1"], level=2) == {"recall@1": 1}


def test_ties_go_by_id_descending() -> None:
    assert ranked_ids([("a", 1.0), ("c", 1.0), ("b", 2.0)]) == ["b", "c", "a"]
    # Equal in single precision, as in trec_eval.
    assert ranked_ids([("a", 35.1234561), ("b", 35.1234560)]) == ["b", "a"]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("level", [1, 2])
def test_equals_pytrec_eval_on_random_runs_with_ties(seed: int, level: int) -> None:
    rng = random.Random(seed)
    products = [f"p{i}" for i in range(40)] + ["å", "Z", "漢"]
    run: dict[str, dict[str, float]] = {}
    qrels: dict[str, dict[str, int]] = {}
    for q in range(25):
        depth = rng.choice([1, 3, 12, 43])
        # Few different scores make ties; differences of 1e-7 make ties in single precision only.
        scores = [rng.choice([0.1, 0.5, 7.25, 7.25 + 1e-7, rng.random()]) for _ in range(depth)]
        run[f"q{q}"] = dict(zip(rng.sample(products, depth), scores, strict=True))
        qrels[f"q{q}"] = {p: rng.choice([-1, 0, 1, 2, 3]) for p in rng.sample(products, rng.choice([1, 5, 20]))}
    ours = evaluate({q: list(docs.items()) for q, docs in run.items()}, qrels, NAMES, level)
    measures = {name.partition("@")[0]: name.partition("@")[2] for name in NAMES}
    assert set(measures) == set(THEIRS)
    wanted = {"recip_rank", "map", "recall.1,5,10", "success.1,5,10", "ndcg_cut.10", "P.10"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, wanted, relevance_level=level).evaluate(run)
    compared = 0
    for name in NAMES:
        metric, _, cut = name.partition("@")
        for query, figure in ours.per_query[name].items():
            assert figure == pytest.approx(theirs[query][THEIRS[metric].format(cut)], abs=1e-9), (name, query)
            compared += 1
    assert compared > 100
    assert set(ours.without_relevant) == {q for q, g in qrels.items() if max(g.values()) < level}


def test_a_query_missing_from_the_run_counts_as_zero_and_one_without_relevant_is_named() -> None:
    found = evaluate({"a": [("x", 1.0)], "c": [("x", 1.0)]}, {"a": {"x": 1}, "b": {"x": 1}, "d": {"x": 0}}, ["mrr"])
    assert found.means == {"mrr": 0.5}
    assert found.queries == 2
    assert found.without_relevant == ["d", "c"]


def test_nothing_judged_has_no_means() -> None:
    assert evaluate({"a": [("x", 1.0)]}, {}, NAMES).means == {}


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@x", "mrr@3", "f1", ""])
def test_unknown_metric(name: str) -> None:
    with pytest.raises(UsageError, match="no such metric"):
        check_metric(name)
