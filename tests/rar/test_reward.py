"""Rewards worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from afmrl_cli.rar.reward import (
    Group,
    expected_recall,
    invalid_reward,
    propose_k,
    propose_size,
    recall_at_k,
    reciprocal_rank,
    share_with_variance,
    valid_reward,
)


def test_recall_is_a_hit_with_one_positive_and_a_fraction_with_several() -> None:
    assert [recall_at_k([3], k) for k in (1, 2, 3, 50)] == [0, 0, 1, 1]
    assert recall_at_k([1, 4, 50, 51], 50) == 0.75
    assert recall_at_k([50, 2], 1) == 0
    with pytest.raises(ValueError, match="positives"):
        recall_at_k([], 1)


def test_no_groups_have_no_share() -> None:
    with pytest.raises(ValueError, match="no groups"):
        share_with_variance([], 1)


def test_the_reward_by_rank_is_the_mean_reciprocal_rank() -> None:
    assert [reciprocal_rank([rank]) for rank in (1, 2, 4, 100)] == [1, 0.5, 0.25, 0.01]
    assert reciprocal_rank([1, 4, 4]) == 0.5
    assert reciprocal_rank([3, 7, 11]) == reciprocal_rank([11, 3, 7]), "answers that rank alike get the very same"
    with pytest.raises(ValueError, match="positives"):
        reciprocal_rank([])


def test_every_rank_is_worth_less_than_the_one_before_and_the_first_ones_differ_most() -> None:
    rewards = [reciprocal_rank([rank]) for rank in range(1, 101)]
    steps = [a - b for a, b in itertools.pairwise(rewards)]
    assert all(a > b > 0 for a, b in itertools.pairwise(steps))
    assert steps[0] > 50 * steps[9] and steps[0] > sum(steps[1:])


def test_valid_and_invalid_rewards() -> None:
    good = valid_reward("colour: red", [2, 60], k=50, shape="recall")
    assert (good.value, good.recall, good.valid, good.text) == (0.5, 0.5, True, "colour: red")
    shaped = valid_reward("colour: red", [2], k=50, shape="rank")
    assert (shaped.value, shaped.recall) == (0.5, 1.0)
    bad = invalid_reward("cut off")
    assert (bad.value, bad.recall, bad.valid, bad.reason, bad.ranks) == (-0.1, None, False, "cut off", ())
    assert invalid_reward("empty", eta=-1).value == -1


def test_a_worst_valid_answer_is_still_better_than_an_invalid_one() -> None:
    for shape in ("recall", "rank"):
        assert valid_reward("a: b", [10**6], k=50, shape=shape).value > invalid_reward("empty").value


def test_reward_does_not_look_at_the_length_of_the_text() -> None:
    short, long = (valid_reward(text, [7], k=50, shape="rank").value for text in ("a: b", "a: b; c: " + "d" * 100))
    assert short == long


GROUPS: list[Group] = [[[1], [2], [30]], [[40], [60], [60]], [[5], [5], None]]


def test_spread_is_the_share_of_groups_whose_rewards_differ() -> None:
    assert share_with_variance(GROUPS[:2], 1) == 0.5
    assert share_with_variance(GROUPS[:2], 2) == 0.5
    assert share_with_variance(GROUPS[:2], 50) == 0.5
    assert share_with_variance(GROUPS[:2], 35) == 0
    assert share_with_variance(GROUPS, 35) == pytest.approx(1 / 3)  # eta against two hits
    assert share_with_variance([[[3, 9], [9, 3]]], 5) == 0  # the same fraction
    assert share_with_variance([[[3, 9], [9, 3]], [[60], [40]]], 1, "rank") == 0.5


def test_the_proposed_k_has_the_most_groups_with_spread_among_valid_answers() -> None:
    groups: list[Group] = [[[1], [12]], [[2], [15]], [[40], [45]], [[9], None]]
    best, shares = propose_k(groups, (1, 5, 10, 42, 50))
    assert shares == {1: 0.25, 5: 0.5, 10: 0.5, 42: 0.25, 50: 0}
    assert best == 10  # of equal ones the nearest to the median rank, 12
    assert propose_k([[[1], [1]], [[1], [2]]], (2, 50, 500))[0] == 2  # everything is found: no easier k is of use
    assert propose_k([[[300], [300]]], (2, 50, 500))[0] == 500
    assert propose_k([[None, None]], (1, 50))[0] == 1


def test_expected_recall_in_a_smaller_gallery() -> None:
    assert expected_recall([3], rows=10, size=10, k=2) == 0
    assert expected_recall([3], rows=10, size=10, k=3) == 1
    # Rank 2 of 3 rows, one of the two others kept: the row before it is the one in half of the cases.
    assert expected_recall([2], rows=3, size=2, k=1) == pytest.approx(0.5)
    # Rank 3 of 4, two others kept of three: both before it with 1/3, one of them with 2/3.
    assert expected_recall([3], rows=4, size=3, k=1) == pytest.approx(0)
    assert expected_recall([3], rows=4, size=3, k=2) == pytest.approx(2 / 3)
    assert expected_recall([1, 500], rows=1000, size=100, k=5) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="size"):
        expected_recall([1], rows=3, size=4, k=1)


def test_the_proposed_size_makes_plain_recall_a_half() -> None:
    # Of the 39 rows before, 10 are left where a quarter of the gallery is.
    size = propose_size([40] * 3, rows=1000, k=10)
    assert 220 < size < 280
    assert expected_recall([40], 1000, size, 10) == pytest.approx(0.5, abs=0.1)
    assert propose_size(list(range(1, 1001)), rows=1000, k=10) == 20  # half of these are among the first 10 of 20
    assert propose_size([1, 1, 1], rows=1000, k=10) == 1000  # nothing makes them harder than the whole gallery
    assert propose_size([900], rows=1000, k=10) == 20
