"""Metrics of next items, by hand: ties, sampled listings, coverage, popularity."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from afmrl_cli.errors import ModelError
from afmrl_cli.next_item.histories import Histories, Question
from afmrl_cli.next_item.metrics import (
    CUTS,
    Ranks,
    coverage,
    first_shown,
    gini,
    metric_names,
    popularity_of,
    rank_among,
    rank_targets,
    sample_others,
)


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def places(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


def values(ranks: Ranks, *cuts: int) -> dict[str, list[float]]:
    found = ranks.values(cuts)
    return {name: found[:, i].tolist() for i, name in enumerate(metric_names(cuts))}


def histories(items: list[int], listings: int, part: list[int] | None = None) -> Histories:
    """Return a customer who took `items`, one a second."""
    count = len(items)
    return Histories(
        tuple(f"L{number}" for number in range(listings)),
        np.zeros(count, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.arange(count, dtype=np.int64),
        np.array(part or [0] * count, dtype=np.uint8),
        np.array([1], dtype=np.uint64),
    )


def test_hr_and_ndcg_of_ranks_one_two_and_four() -> None:
    table = scores([9, 1, 2, 3], [9, 8, 2, 3], [9, 8, 7, 6])

    found = values(rank_targets(table, places(0, 1, 3), "x"), 1, 3)

    assert found["hr@1"] == [1, 0, 0]
    assert found["hr@3"] == [1, 1, 0]
    assert found["ndcg@3"] == pytest.approx([1, 1 / log2(3), 0])
    assert rank_targets(table, places(0, 1, 3), "x").mean.tolist() == [1, 2, 4]


def test_ties_count_as_in_the_mean_of_all_their_orders() -> None:
    """The target is one of three at places 2, 3 and 4."""
    found = values(rank_targets(scores([9, 5, 5, 5, 1]), places(2), "x"), 1, 3, 10)

    assert found["hr@1"] == [0]
    assert found["hr@3"] == pytest.approx([2 / 3])
    assert found["hr@10"] == [1]
    assert found["ndcg@3"] == pytest.approx([(1 / log2(3) + 1 / log2(4)) / 3])
    assert found["ndcg@10"] == pytest.approx([(1 / log2(3) + 1 / log2(4) + 1 / log2(5)) / 3])


def test_a_system_that_scores_all_alike_is_a_random_order() -> None:
    found = values(rank_targets(np.zeros((1, 50), dtype=np.float32), places(49), "x"), 10)
    assert found["hr@10"] == pytest.approx([0.2])


def test_what_is_never_shown_is_no_hit_even_where_little_else_is() -> None:
    ranks = rank_targets(scores([1, -np.inf, -np.inf]), places(1), "x")
    assert values(ranks, 10) == {"hr@10": [0], "ndcg@10": [0]}
    assert first_shown(scores([1, -np.inf, -np.inf])).tolist() == [[0, -1, -1]]


def test_scores_that_are_no_numbers_are_refused_instead_of_ranking_first() -> None:
    with pytest.raises(ModelError, match="fused: gives scores that are no numbers"):
        rank_targets(scores([np.nan, 1]), places(0), "fused")


def test_ranks_among_sampled_listings_do_not_see_the_others() -> None:
    table = scores([5, 9, 9, 4, 5])
    assert rank_among(table, places(0), np.array([[3, 4]])).mean.tolist() == [1.5]


def test_first_ten_of_equal_scores_keep_the_catalogs_order() -> None:
    shown = first_shown(scores([0.0] * 6 + [2.0, 0.0, 1.0] + [0.0] * 6))
    assert shown.tolist() == [[6, 8, 0, 1, 2, 3, 4, 5, 7, 9]]


def test_first_ten_are_those_of_the_highest_scores() -> None:
    rng = np.random.default_rng(3)
    table = rng.permuted(np.tile(np.arange(40, dtype=np.float32), (5, 1)), axis=1)
    shown = first_shown(table)
    assert np.take_along_axis(table, shown, axis=1).tolist() == [list(range(39, 29, -1))] * 5


def test_metrics_are_called_by_their_cut_and_by_how_many_listings_are_ranked() -> None:
    full = ["hr@1", "hr@3", "hr@5", "hr@10", "ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10"]
    assert metric_names() == full
    assert metric_names(among=100) == [f"{name}_of_100" for name in full]
    assert rank_targets(scores([1, 2]), places(0), "x").values(CUTS).shape == (1, 8)


def test_sampled_listings_are_never_the_target_nor_in_the_history_and_always_the_same() -> None:
    held = histories([3, 4, 5], 40)
    question = Question(places(3, 4), np.array([0, 1]), 2, 5, 0)
    other = Question(places(3, 4), np.array([0, 1]), 9, 6, 0)

    first = sample_others([question], held, 9, 0)
    again = sample_others([other, question], held, 9, 0)

    assert first is not None and again is not None
    assert len(set(first[0].tolist())) == 9
    assert not set(first[0].tolist()) & {3, 4, 5}
    assert first[0].tolist() == again[1].tolist() != again[0].tolist()
    assert sample_others([question], held, 9, 1) is not None
    assert sample_others([question], held, 9, 1)[0].tolist() != first[0].tolist()  # type: ignore[index]
    more = sample_others([question], held, 37, 0)
    assert more is not None and sorted(more[0].tolist()) == [n for n in range(40) if n not in (3, 4, 5)]


def test_sampled_listings_cover_the_catalog_evenly() -> None:
    held = histories([0, 1], 20)
    questions = [Question(places(0), np.array([0]), second, 1, 0) for second in range(2000)]
    drawn = sample_others(questions, held, 9, 0)
    assert drawn is not None
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert counts[:2].tolist() == [0, 0]
    assert abs(counts[2:] / 2000 - 0.5).max() < 0.05


def test_a_catalog_too_small_to_sample_from_has_none() -> None:
    question = Question(places(0), np.array([0]), 2, 1, 0)
    assert sample_others([question], histories([0, 1], 10), 9, 0) is None
    assert sample_others([question], histories([0, 1], 11), 9, 0) is not None


def test_coverage_and_gini_count_listings_that_nobody_is_shown() -> None:
    same, even = np.array([[0, 1], [0, 1]]), np.array([[0, 1], [2, 3]])
    assert coverage(same, 4) == 0.5
    assert coverage(even, 4) == 1
    assert gini(even, 4) == 0
    assert gini(np.array([[2], [2]]), 4) == pytest.approx(0.75)  # (n - 1) / n: always the same one
    assert coverage(np.array([[0, -1]]), 4) == 0.25
    assert gini(np.array([[-1, -1]]), 4) == 0


def test_popularity_counts_training_rows_alone_and_halves_equal_ones() -> None:
    held = histories([0, 0, 1, 2, 3], 4, [0, 0, 0, 0, 2])
    assert popularity_of(held).tolist() == [7 / 8, 4 / 8, 4 / 8, 1 / 8]
