"""Ties and ranks: what rounding moves decides nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from afmrl_cli.scores import TIE, best_first, ranks_of
from tests.scores import possible_ranks

LEVELS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@settings(deadline=None)
@given(LEVELS, st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_scores_that_are_equal_but_for_rounding_rank_as_equal(levels: list[int], seed: int, k: int) -> None:
    exact = np.array(levels, np.float32) / 16
    noise = np.random.default_rng(seed).uniform(-9e-7, 9e-7, len(levels)).astype(np.float32)
    order = sorted(range(len(levels)), key=lambda row: (-levels[row], row))
    for scores in (exact, exact + noise):
        rows, values = best_first(scores, k)
        assert rows.tolist() == order[:k]
        assert (np.diff(values) <= 0).all() and np.abs(values - exact[rows]).max() < TIE
        assert [len(set(values[exact[rows] == level])) for level in set(exact[rows])] == [1] * len(set(exact[rows]))
        assert ranks_of(scores, np.arange(len(levels))).tolist() == [order.index(r) + 1 for r in range(len(levels))]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_crowd_of_near_scores_stays_within_the_tolerance_of_its_true_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (0.5 + 1e-3 * rng.random(400)).astype(np.float32)  # about four within the tolerance of each
    rows, values = best_first(scores, 50)
    assert len(set(rows.tolist())) == 50
    assert (values - scores[rows] >= 0).all() and (values - scores[rows] <= TIE * 1.01).all()
    assert scores[rows].min() >= np.sort(scores)[-50] - TIE * 1.01
    for row, rank in zip(rows.tolist(), ranks_of(scores, rows).tolist(), strict=True):
        low, high = possible_ranks(scores, row, noise=1e-7)
        assert low <= rank <= high


def test_scores_that_lie_just_as_far_apart_as_is_allowed_are_tied() -> None:
    edge = np.float32(1) - np.float32(TIE)
    for low, first in ((edge, 0), (np.nextafter(edge, np.float32(0)), 1)):
        scores = np.array([low, 1.0], np.float32)
        for k in (1, 2):
            assert best_first(scores, k)[0].tolist() == [first, 1 - first][:k]
        assert ranks_of(scores, [first, 1 - first]).tolist() == [1, 2]


def test_rows_keep_their_own_numbers_and_what_is_out_is_last() -> None:
    scores = np.array([0.2, 0.9, -np.inf, 0.9], np.float32)
    rows, values = best_first(scores, 9, np.array([40, 30, 20, 10]))
    assert rows.tolist() == [10, 30, 40, 20]
    np.testing.assert_array_equal(values, np.array([0.9, 0.9, 0.2, -np.inf], np.float32))
    assert [len(part) for part in best_first(scores[:0], 3)] == [0, 0]
    assert ranks_of(np.stack([scores, scores[::-1]]), [3, 0]).tolist() == [[2, 3], [3, 1]]
