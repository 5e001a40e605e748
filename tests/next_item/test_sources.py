"""What each source says of a listing, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.next_item.histories import Histories
from afmrl_cli.next_item.neighbours import MOST_ROWS, NEIGHBOURS, Neighbours
from afmrl_cli.next_item.popularity import Popularity, RecentPopularity
from afmrl_cli.next_item.repeats import Had
from afmrl_cli.next_item.similar import ListingVectors, last_item, whole_history
from afmrl_cli.next_item.steps import FADE, weighted_histories
from afmrl_cli.recommend.split import TEST, VALIDATION
from tests.next_item.cases import histories, question

HALF = np.sqrt(0.5)
VECTORS = ListingVectors(
    np.array([[1, 0], [0, 1], [HALF, HALF]], dtype=np.float32), np.array([0, 1, 2, -1], dtype=np.int64), "here"
)


def test_popularity_counts_training_rows() -> None:
    known = histories([(0, 1, 1), (0, 1, 2), (1, 2, 1), (1, 0, 9, TEST), (1, 0, 8, VALIDATION)], 4)

    assert Popularity(known).scores([question(0), question(1)]).tolist() == [[0, 2, 1, 0], [0, 2, 1, 0]]


def test_recent_popularity_halves_in_thirty_days_and_knows_nothing_later_than_the_question() -> None:
    known = histories([(0, 1, 0), (1, 1, 30), (2, 2, 60), (3, 0, 99, TEST)], 3)

    scores = RecentPopularity(known).scores([question(0, day=1_000), question(0, day=31), question(0, day=0)])

    assert scores.tolist() == [[0, 0.25 + 0.5, 1], [0, 0.5 + 1, 0], [0, 0, 0]]


def test_each_step_back_weighs_less_and_lines_of_an_order_weigh_the_same() -> None:
    weights = weighted_histories([question(0, 1, 2, 1, days=[1, 5, 5, 9])], 4).toarray()[0]

    parts = np.array([FADE**2, FADE + 1, FADE, 0])
    assert weights == pytest.approx(parts / parts.sum())
    assert weighted_histories([question(0, 1, 2, days=[1, 5, 5])], 4, 0.0).toarray().tolist() == [[0, 0.5, 0.5, 0]]


def test_the_last_item_ranks_by_its_vector_and_listings_without_one_are_never_shown() -> None:
    scores = last_item(VECTORS).scores([question(1, 0)])

    assert scores[0].tolist() == pytest.approx([1, 0, HALF, -np.inf])


def test_a_history_ranks_by_its_mean_vector() -> None:
    scores = whole_history(VECTORS).scores([question(0, 1), question(1, 1, 0), question(3)])

    once, twice = np.array([FADE, 1]), np.array([1, FADE + FADE**2])
    assert scores[0, :2] == pytest.approx(once / np.linalg.norm(once))
    assert scores[1, :2] == pytest.approx(twice / np.linalg.norm(twice))
    assert scores[2].tolist() == [0, 0, 0, -np.inf], "nothing is known of a history without vectors"


def taken_together() -> Histories:
    """Three customers have 0, two of them 1 as well, one 2; a third listing is taken alone; the test part lies."""
    return histories(
        [(0, 0, 1), (0, 1, 2), (0, 1, 3), (1, 0, 1), (1, 1, 2), (2, 0, 1), (2, 2, 5), (3, 3, 1), (3, 0, 9, TEST)], 4
    )


def test_neighbours_are_customers_that_have_both_by_the_root_of_those_that_have_either() -> None:
    scores = Neighbours(taken_together()).scores([question(0), question(1), question(3), question(0, 1)])

    assert scores[0] == pytest.approx([0, 2 / np.sqrt(6), 1 / np.sqrt(3), 0])
    assert scores[1] == pytest.approx([2 / np.sqrt(6), 0, 0, 0])
    assert scores[2].tolist() == [0, 0, 0, 0]
    assert scores[3] == pytest.approx((FADE * scores[0] + scores[1]) / (FADE + 1))


def test_one_customer_with_many_rows_does_not_take_the_memory() -> None:
    rows = 50_000
    known = histories([(0, row % 5_000, row) for row in range(rows)] + [(1, 1, 1), (1, 2, 2)], 5_000)

    neighbours = Neighbours(known)

    last = range(5_000 - MOST_ROWS, 5_000)
    assert len(neighbours.strengths(1)[0]) == 1
    assert set(neighbours.strengths(4_999)[0]) == set(last) - {4_999}


def test_only_the_strongest_neighbours_are_kept() -> None:
    others = NEIGHBOURS + 50
    rows = [(customer, 0, 0) for customer in range(others)] + [
        (customer, customer + 1, 1) for customer in range(others)
    ]
    twice = [(others, 0, 0), (others, others, 1)]

    kept, strength = Neighbours(histories([*rows, *twice], others + 1)).strengths(0)

    assert len(kept) == NEIGHBOURS and others in kept
    assert strength.max() == strength[kept == others]


def test_had_marks_what_is_in_the_history() -> None:
    assert Had(4).scores([question(0, 2, 2), question(3)]).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


def test_sources_answer_no_questions_and_know_no_rows() -> None:
    empty = histories([], 3)

    for source in (Popularity(empty), RecentPopularity(empty), Neighbours(empty), Had(3), whole_history(VECTORS)):
        assert source.scores([]).shape[0] == 0
        assert not np.nan_to_num(source.scores([question(1)]), neginf=0)[0, 2:].any() or source.name == "history"
