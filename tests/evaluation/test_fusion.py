"""Fusion by weighted scores, tuned on other queries than those that are scored; and rankings in little memory."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.evaluation.fusion import (
    EQUAL,
    LEAST_PRODUCTS,
    TUNING_QUERIES,
    Pair,
    choose_weight,
    fused,
    normalised,
    tuned_fusion,
)
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.ranked import Ranked

Rankings = dict[str, list[tuple[str, float]]]


def pair(first: Rankings, second: Rankings, groups: dict[str, str] | None = None) -> Pair:
    """Queries whose right answer is "right"."""
    queries = list(dict.fromkeys([*first, *second]))
    return Pair(
        first, second, {query: {"right": 1} for query in queries}, groups or {query: query for query in queries}
    )


RIGHT, WRONG = [("right", 0.9), ("wrong", 0.1)], [("wrong", 30.0), ("right", 10.0)]


def test_fusion_by_hand() -> None:
    assert normalised([("a", 5.0), ("b", 1.0), ("c", 2.0)]) == {"a": 1.0, "b": 0.0, "c": 0.25}
    assert normalised([("a", 5.0)]) == {"a": 1.0} and normalised([]) == {}
    both = pair({"q": [("a", 9.0), ("b", 8.0), ("c", 5.0)], "only": [("x", 1.0)]}, {"q": [("b", 0.2), ("d", 0.1)]})
    found = fused(both, 0.4, 10)
    assert found["q"] == [("b", 0.9), ("a", 0.4), ("d", 0.0), ("c", 0.0)]  # b: 0.4 * 0.75 + 0.6
    assert found["only"] == [("x", 0.4)]
    assert fused(both, 0.4, 1)["q"] == [("b", 0.9)]


def test_a_weight_of_one_is_the_system_itself() -> None:
    both = pair({"q": [("a", 2.0), ("b", 1.0)]}, {"q": [("c", 7.0), ("b", 5.0)]})
    assert [id for id, _ in fused(both, 1.0, 10)["q"]] == ["a", "b"]
    assert [id for id, _ in fused(both, 0.0, 10)["q"]] == ["c", "b"]


def test_what_ties_in_a_file_ties_in_the_metrics() -> None:
    tied = pair({"q": [("b", 1.0)]}, {"q": [("a", 3.0)]})
    assert fused(tied, 0.5, 1)["q"] == [("b", 0.5)], "the higher id first, as in trec_eval"


def test_the_better_system_gets_the_weight_and_equal_ones_the_same() -> None:
    queries = [f"q{i}" for i in range(30)]
    assert choose_weight(pair(dict.fromkeys(queries, RIGHT), dict.fromkeys(queries, WRONG)), "mrr", 1, 10) == 0.6
    assert choose_weight(pair(dict.fromkeys(queries, WRONG), dict.fromkeys(queries, RIGHT)), "mrr", 1, 10) == 0.4
    assert choose_weight(pair(dict.fromkeys(queries, RIGHT), dict.fromkeys(queries, RIGHT)), "mrr", 1, 10) == EQUAL


def test_validation_queries_choose_and_scored_ones_have_no_say() -> None:
    scored = pair({f"q{i}": WRONG for i in range(40)}, {f"q{i}": RIGHT for i in range(40)})
    validation = pair({f"v{i}": RIGHT for i in range(25)}, {f"v{i}": WRONG for i in range(25)})
    run, [weight] = tuned_fusion(scored, validation, "mrr", 1, 10)
    assert (weight.weight, weight.scored, weight.tuned_on, weight.source) == (0.6, 40, 25, "validation")
    assert run == fused(scored, 0.6, 10)
    assert evaluate(run, scored.qrels, ["hit@1"]).means["hit@1"] == 0  # by their own say it would be 1


def test_without_others_each_half_of_the_products_chooses_for_the_other() -> None:
    """Two queries a product: both are on one side. On each side another system is right, so that whoever looks at the
    queries that it scores gets them all, and who looks at the others none.
    """
    groups = {f"q{i}": f"p{i // 2}" for i in range(120)}
    plain = pair(dict.fromkeys(groups, RIGHT), dict.fromkeys(groups, RIGHT), groups)
    _, weights = tuned_fusion(plain, None, "mrr", 1, 10)
    assert [each.source for each in weights] == ["other half"] * 2
    assert sum(each.scored for each in weights) == 120 and min(each.products for each in weights) >= LEAST_PRODUCTS
    assert [each.tuned_on for each in weights] == [each.scored for each in reversed(weights)]
    one_side = side_of_first(groups)
    first = {query: RIGHT if groups[query] in one_side else WRONG for query in groups}
    second = {query: WRONG if groups[query] in one_side else RIGHT for query in groups}
    run, _ = tuned_fusion(pair(first, second, groups), None, "mrr", 1, 10)
    assert evaluate(run, {query: {"right": 1} for query in groups}, ["hit@1"]).means["hit@1"] == 0


def test_at_most_500_queries_choose() -> None:
    many = {f"q{i}": RIGHT for i in range(1100)}
    _, weights = tuned_fusion(pair(many, many), None, "mrr", 1, 10)
    assert sum(each.scored for each in weights) == 1100 and {each.tuned_on for each in weights} == {TUNING_QUERIES}


def side_of_first(groups: dict[str, str]) -> set[str]:
    """The products of one half, seen from outside: they change when the other half's rankings do not."""
    products = sorted(set(groups.values()))
    half: set[str] = set()
    for product in products:
        first = {query: RIGHT if groups[query] == product else [("wrong", 1.0)] for query in groups}
        second = {query: WRONG if groups[query] == product else [("wrong", 1.0)] for query in groups}
        _, weights = tuned_fusion(pair(first, second, groups), None, "mrr", 1, 10)
        if weights[0].weight != EQUAL:  # the first half's weight follows from this product: it is in the second
            half.add(product)
    return half


def test_too_few_products_weigh_both_the_same() -> None:
    few = {f"q{i}": RIGHT for i in range(2 * LEAST_PRODUCTS - 2)}
    groups = {query: f"p{i % (LEAST_PRODUCTS - 1)}" for i, query in enumerate(few)}
    wrong = dict.fromkeys(few, WRONG)
    run, weights = tuned_fusion(pair(few, wrong, groups), None, "mrr", 1, 10)
    assert {(each.weight, each.tuned_on) for each in weights} == {(EQUAL, 0)} and set(run) == set(few)
    _, [weight] = tuned_fusion(pair(few, wrong, groups), pair(few, wrong, groups), "mrr", 1, 10)
    assert (weight.weight, weight.tuned_on, weight.products) == (EQUAL, 0, LEAST_PRODUCTS - 1)


def test_ranked_is_a_sequence_of_pairs() -> None:
    ranked = Ranked(["a", "b", "c"], np.array([2, 0]), np.array([0.5, 0.25]))
    assert list(ranked) == [("c", 0.5), ("a", 0.25)]
    assert (len(ranked), ranked[1], list(ranked[1:])) == (2, ("a", 0.25), [("a", 0.25)])
    assert ("a", 0.25) in ranked
    with pytest.raises(IndexError):
        ranked[2]
