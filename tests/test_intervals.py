"""Intervals of one system's means: Wilson's, over products instead of queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from afmrl_cli.intervals import group_sums, interval, interval_of_share


def singles(count: int) -> list[str]:
    return [f"q{i}" for i in range(count)]


def ends(values: list[float], groups: list[str] | None = None, confidence: float = 0.95) -> tuple[float, float]:
    low, high = interval(np.array(values, dtype=float)[:, None], groups or singles(len(values)), confidence)[:, 0]
    return float(low), float(high)


@pytest.mark.parametrize(("right", "queries"), [(0, 10), (10, 10), (1, 10), (7, 10), (0, 2), (399, 400)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_shares_of_single_queries_have_wilsons_interval(right: int, queries: int, confidence: float) -> None:
    theirs = stats.binomtest(right, queries).proportion_ci(confidence, method="wilson")
    ours = ends([1.0] * right + [0.0] * (queries - right), confidence=confidence)
    assert ours == pytest.approx((theirs.low, theirs.high))


def test_none_of_ten_by_hand() -> None:
    # z^2 = 3.8415: the low end is 0, the high one 3.8415 / (10 + 3.8415).
    assert ends([0.0] * 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert ends([1.0] * 10) == pytest.approx((0.7225, 1), abs=1e-4)


def test_equal_values_that_are_no_shares_have_a_width_by_hand() -> None:
    # 3.8415 further products may all have 0, or all have 1: 5 / 13.8415 and (5 + 3.8415) / 13.8415.
    assert ends([0.5] * 10) == pytest.approx((0.3612, 0.6388), abs=1e-4)


def test_metrics_that_vary_little_have_the_middle_that_they_were_measured_at() -> None:
    """One query in ten finds a third of its answers: mean 1/30, far below 1/2, to which Wilson's middle is drawn."""
    rng = np.random.default_rng(1)
    below = above = 0
    for _ in range(400):
        low, high = ends(((rng.random(200) < 0.1) / 3).tolist())
        below, above = below + (high < 1 / 30), above + (low > 1 / 30)
    assert below <= 20 and above <= 20  # 10 of each expected at most


def test_queries_of_one_product_are_one_piece_of_evidence() -> None:
    products = ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert ends([1, 1, 0, 0, 1, 1, 1, 1], products) == pytest.approx(ends([1, 0, 1, 1]))
    assert ends([0.0] * 8, products) == pytest.approx(ends([0.0] * 4))
    sums, sizes = group_sums(np.array([[1.0], [2.0], [4.0]]), ["a", "b", "a"])
    assert (sums.tolist(), sizes.tolist()) == ([[5.0], [2.0]], [2.0, 1.0])


def test_products_with_unequal_numbers_of_queries_by_hand() -> None:
    # Sizes 3, 1, 1, 1; K = 36 / 12 = 3. All wrong: as none of 3, not as none of 4 products or 6 queries.
    products = ["a", "a", "a", "b", "c", "d"]
    assert ends([0.0] * 6, products) == pytest.approx(ends([0.0] * 3))
    # a right, the others wrong: mean 3/6, v = ((3 - 1.5)^2 + 3 * 0.5^2) / 36 = 1/12, z^2/K = 1.28049.
    half = 1.959964 * np.sqrt(1 / 12 + (1.959964 / 6) ** 2) / 2.28049
    assert ends([1, 1, 1, 0, 0, 0], products) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_one_product_says_nothing_of_others() -> None:
    assert ends([1.0] * 4, ["a"] * 4) == (0, 1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        sizes = rng.geometric(0.4, 25)
        product = np.where(rng.random(25) < 0.7, 1.0, 1 / rng.integers(2, 10, 25))
        low, high = ends(np.repeat(product, sizes).tolist(), np.repeat(np.arange(25), sizes).astype(str).tolist())
        held += int(low <= 0.7 + 0.3 * np.mean(1 / np.arange(2, 10)) <= high)
    assert 270 <= held <= 297  # 285 expected


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 5)), min_size=1, max_size=40))
def test_no_interval_is_without_width_or_without_its_mean(drawn: list[tuple[float, int]]) -> None:
    values, groups = [value for value, _ in drawn], [str(group) for _, group in drawn]
    low, high = ends(values, groups)
    assert 0 <= low <= np.mean(values) <= high <= 1
    assert high - low > 0.05


@pytest.mark.parametrize(("right", "queries"), [(0, 10), (10, 10), (3, 7), (399, 400)])
def test_a_share_has_wilsons_interval(right: int, queries: int) -> None:
    for confidence in (0.8, 0.95):
        theirs = stats.binomtest(right, queries).proportion_ci(confidence, method="wilson")
        assert interval_of_share(right / queries, queries, confidence) == pytest.approx([theirs.low, theirs.high])


def test_a_share_of_nothing_may_be_anything_and_one_of_a_part_lies_between() -> None:
    assert interval_of_share(0.3, 0) == [0, 1]
    wide, between, narrow = (np.diff(interval_of_share(0.3, count)) for count in (4, 4.5, 5))
    assert wide > between > narrow


@given(st.floats(0, 1), st.floats(0.1, 1000))
def test_the_interval_of_a_share_holds_the_share(share: float, count: float) -> None:
    low, high = interval_of_share(share, count)
    assert 0 <= low <= share <= high <= 1
