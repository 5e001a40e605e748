"""Intervals and tests against scipy and against cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from afmrl_cli.evaluation.compare import Difference, differences, signed, spread, table_of


def singles(count: int) -> list[str]:
    return [f"q{i}" for i in range(count)]


def compare(
    ours: ArrayLike, theirs: ArrayLike, groups: list[str] | None = None, *, draws: int = 2000, confidence: float = 0.95
) -> list[Difference]:
    a, b = (np.asarray(each, dtype=float) for each in np.broadcast_arrays(ours, theirs))
    a, b = (each[:, None] if each.ndim == 1 else each for each in (a, b))
    names = [f"m{i}" for i in range(a.shape[1])]
    return differences(names, a, b, groups or singles(len(a)), draws=draws, confidence=confidence, seed=0)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_p_of_one_metric_equals_scipys_permutation_test(shift: float) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(40) + shift, rng.random(40)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=2
    )
    # scipy doubles the smaller tail
    assert compare(a, b, draws=20_000)[0].p == pytest.approx(theirs.pvalue, abs=0.025)


def test_p_by_hand() -> None:
    # Three queries, all one better: of the 8 ways to set signs, two (+++ and ---) are as far out. p = 1/4.
    assert compare([1.0] * 3, 0.0, draws=50_000)[0].p == pytest.approx(0.25, abs=0.01)
    assert compare([0.0] * 3, 0.0)[0].p == 1


def test_draws_are_taken_in_pieces_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(1).random((2, 40))
    whole = compare(a, b, draws=1000)[0]
    monkeypatch.setattr("afmrl_cli.evaluation.compare.CELLS", 40 * 300)
    assert compare(a, b, draws=1000)[0] == whole


def test_p_is_never_zero() -> None:
    assert compare([1.0] * 200, 0.0, draws=100)[0].p == 1 / 101


def test_queries_of_one_product_are_one_piece_of_evidence() -> None:
    # The same ten differences, once of ten products, once of two: the latter prove nothing.
    assert compare([0.5] * 10, 0.0)[0].verdict == "better"
    two = compare([0.5] * 10, 0.0, ["a"] * 5 + ["b"] * 5)[0]
    assert two.p == pytest.approx(0.5, abs=0.03) and two.verdict == "no difference shown"
    one = compare([1.0] * 4, 0.0, ["a"] * 4)[0]
    assert (one.low, one.high, one.p, one.verdict) == (-1, 1, 1, "no difference shown")


def test_products_with_unequal_numbers_of_queries_by_hand() -> None:
    """Sums of a product count whole: +3 of one, -1 of three others. Of the 16 signs, |sum| reaches 0 always and 6 in
    the two where all agree. With means of products in place of sums p would be another.
    """
    groups = ["a", "a", "a", "b", "c", "d"]
    assert compare([1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], groups)[0].p == 1
    assert compare([1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], groups)[0].p == 1  # one product alone
    many = ["big"] * 10 + singles(8)
    # +10 of one product, +1 of eight: |sum| of 18 in 2 of 512 signs, 16 or more in 2 * (1 + 8) of them.
    assert compare([1.0] * 18, 0.0, many, draws=50_000)[0].p == pytest.approx(2 / 512, abs=0.002)
    less = [1.0] * 17 + [0.0]
    assert compare(less, [0.0] * 17 + [1.0], many, draws=50_000)[0].p == pytest.approx(18 / 512, abs=0.005)


def test_both_ends_lie_as_far_out_over_products_with_unequal_numbers_of_queries() -> None:
    """(total - mu N)^2 / (sum (d_g - mu n_g)^2 + r) is c^2 at both ends; c parts what is shown from what is not."""
    rng = np.random.default_rng(4)
    sizes = rng.geometric(0.3, 40)
    ours, theirs = (rng.random((sizes.sum(), 2)) for _ in range(2))
    groups = np.repeat(np.arange(40), sizes)
    ours[:, 0] = np.clip(theirs[:, 0] + rng.normal(0.1, 0.2, 40)[groups], 0, 1)
    squares, verdicts = [], []
    for j, found in enumerate(compare(ours, theirs, groups.astype(str).tolist(), draws=500)):
        sums = np.bincount(groups, ours[:, j] - theirs[:, j])
        z = stats.norm.ppf(0.975)
        at = [
            (sums.sum() - mean * sizes.sum()) ** 2
            / (((sums - mean * sizes) ** 2).sum() + z**2 * (sizes**2).sum() / len(sizes))
            for mean in (found.low, found.high, 0)
        ]
        squares.append(at)
        verdicts.append(found.verdict)
        assert -1 < found.low < found.difference < found.high < 1
    assert verdicts == ["better", "no difference shown"]
    c = squares[0][0]
    assert [low for low, _, _ in squares] + [high for _, high, _ in squares] == pytest.approx([c] * 4)
    assert squares[0][2] > c > squares[1][2]


def test_what_other_metrics_leave_undecided_has_an_interval_around_0() -> None:
    """116 better and 84 worse: 32 / sqrt(200 + z^2) = 2.24 is more than z, but not out of the common among eight."""
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (200, 7))
    ours = np.column_stack([np.repeat([1.0, -1.0], [116, 84]), noise])
    assert compare(ours[:, 0], 0)[0].verdict == "better"
    found = compare(ours, 0)[0]
    assert found.verdict == "no difference shown" and found.low < -0.001 and found.high > 0.2


def test_what_few_products_show_has_an_interval_that_shows_it() -> None:
    """Six, all better: p = 2/64, though the statistic, 6 / sqrt(6 + z^2) = 1.91, is less than z."""
    one, other = compare([[1, 0.5]] * 6, [[0, 0.5]] * 6)
    assert (one.verdict, other.verdict) == ("better", "equal") and one.p == pytest.approx(2 / 64, abs=0.02)
    assert 0 < one.low < 1 and other.low < 0 < other.high


def test_metrics_that_say_the_same_cost_nothing_and_others_do() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.random(60)
    ours = theirs + rng.normal(0.06, 0.2, 60)
    alone = compare(ours, theirs)[0]
    copies = compare(np.stack([ours] * 5, 1), np.stack([theirs] * 5, 1))[0]
    assert (copies.p, copies.low, copies.high) == pytest.approx((alone.p, alone.low, alone.high))
    noise = rng.random((60, 4))
    beside = compare(np.column_stack([ours, noise]), np.column_stack([theirs, rng.random((60, 4))]))[0]
    assert beside.p > alone.p + 0.01
    assert beside.low < alone.low and beside.high > alone.high


def test_a_difference_that_is_the_same_on_every_query_has_a_width() -> None:
    for found in (compare([1.0] * 10, 0.0)[0], compare([0.5] * 40, 0.25)[0], compare([0.3] * 40, 0.3)[0]):
        assert found.high - found.low > 0.04
        assert found.low <= found.difference <= found.high
    assert compare([0.3] * 40, 0.3)[0].verdict == "equal"


def test_too_few_draws_show_nothing() -> None:
    found = compare([1.0] * 50, 0.0, draws=18)[0]  # the least p is 1/19, above 0.05
    assert (found.low, found.high, found.verdict) == (-1, 1, "no difference shown")
    assert compare([1.0] * 50, 0.0, draws=19)[0].verdict == "better"


VALUES = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0])
PAIRS = st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES, st.integers(0, 30)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.sampled_from([0.6, 0.9, 0.95]), st.sampled_from([5, 19, 100, 1000]))
def test_interval_p_and_verdict_never_contradict_each_other(
    pairs: list[tuple[float, float, float, float, int]], confidence: float, draws: int
) -> None:
    table = np.array([pair[:4] for pair in pairs])
    groups = [str(pair[4]) for pair in pairs]
    for found in compare(table[:, :2], table[:, 2:], groups, draws=draws, confidence=confidence):
        shown = found.verdict in ("better", "worse")
        assert shown == (not found.low <= 0 <= found.high) == (found.p <= 1 - confidence + 1e-9)
        assert found.verdict != "better" or found.low > 0
        assert found.verdict != "worse" or found.high < 0
        assert -1 <= found.low < found.high <= 1
        assert found.low - 1e-9 <= found.difference <= found.high + 1e-9
        assert 1 / (1 + draws) <= found.p <= 1
        if shown:
            assert "+0.0000" not in found.words("x") and "-0.0000" not in found.words("x")


def test_intervals_hold_the_true_difference() -> None:
    """Both metrics at once, in at least 95 of 100: products with several queries, true differences 0.09 and 0."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        sizes = rng.geometric(0.5, 60)
        theirs = (rng.random(60) < 0.5) * 1.0
        ours = np.where(rng.random(60) < 0.7, theirs, (rng.random(60) < 0.8) * 1.0)
        noise = np.clip(0.5 + rng.normal(0, 0.2, 60), 0, 1)
        a, b = np.stack([ours, noise], 1), np.stack([theirs, np.full(60, 0.5)], 1)
        one, other = compare(
            np.repeat(a, sizes, 0),
            np.repeat(b, sizes, 0),
            np.repeat(np.arange(60), sizes).astype(str).tolist(),
            draws=300,
        )
        held += one.low <= 0.09 <= one.high and other.low <= 0 <= other.high
    assert held >= 182  # 190 expected at least


def test_ends_near_zero_are_not_printed_as_zero() -> None:
    assert (signed(0.0), signed(0.00005), signed(0.00001), signed(-0.00002)) == (
        "+0.0000",
        "+0.0001",
        "+1.0e-05",
        "-2.0e-05",
    )


def compared(ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    made = differences(["x", "y"], ours, theirs, singles(len(ours)), draws=2000, confidence=0.95, seed=0)
    return [each.words("run") for each in made]


def test_verdicts_in_words() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.3, 200)
    theirs = rng.random((200, 2))
    better, same = compared(np.stack([theirs[:, 0] + 0.2, theirs[:, 1]], 1), theirs)
    assert better.startswith("x: better than run (+0.2000")
    assert same == "y: the same as run on every query"
    unsure, worse = compared(np.stack([theirs[:, 0] + noise - noise.mean(), theirs[:, 1] - 0.1], 1), theirs)
    assert unsure.startswith("x: no difference to run shown")
    assert worse.startswith("y: worse than run (-0.1000")


def test_noise_alone_is_rarely_called_a_difference() -> None:
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(100):
        ours, theirs = rng.random((60, 2)), rng.random((60, 2))
        found += any("no difference" not in words for words in compared(ours, theirs))
    assert found <= 11  # 5 expected; 11 or more of 100 has a chance below 1 %


def test_several_seeds() -> None:
    runs = [np.array([[0.1], [0.3]]), np.array([[0.3], [0.5]])]
    assert spread(runs) == pytest.approx([np.std([0.2, 0.4], ddof=1)])
    assert spread(runs[:1]) == [0.0]
    assert table_of({"a": {"q": 1.0, "r": 0.0}, "b": {"q": 0.5, "r": 0.2}}, ["r", "q"]).tolist() == [
        [0.0, 0.2],
        [1.0, 0.5],
    ]
