"""Intervals and tests against scipy and against cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from afmrl_cli.evaluation.compare import (
    bootstrap_means,
    differences,
    group_sums,
    holm,
    interval,
    randomisation_test,
    spread,
    table_of,
)


def singles(count: int) -> list[str]:
    return [f"q{i}" for i in range(count)]


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    figures = np.random.default_rng(3).random((60, 2))
    ours = interval(figures, singles(60), 20_000, 0.95, 0)
    for i in range(2):
        theirs = stats.bootstrap((figures[:, i],), np.mean, n_resamples=20_000, method="percentile", rng=1)
        assert ours[:, i] == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_randomisation_equals_scipys_permutation_test(shift: float) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(40) + shift, rng.random(40)
    ours = randomisation_test((a - b)[:, None], singles(40), 20_000, 0)[0]
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=2
    )
    assert ours == pytest.approx(theirs.pvalue, abs=0.025)  # scipy doubles the smaller tail


def test_randomisation_by_hand() -> None:
    # Three queries, all one better: of the 8 ways to set signs, two (+++ and ---) are as far out. p = 1/4.
    p = randomisation_test(np.ones((3, 1)), singles(3), 50_000, 0)[0]
    assert p == pytest.approx(0.25, abs=0.01)
    assert randomisation_test(np.zeros((3, 1)), singles(3), 100, 0)[0] == 1.0


def test_queries_of_one_product_are_one_piece_of_evidence() -> None:
    # The same ten differences, once of ten products, once of two: the latter prove nothing.
    apart = np.full((10, 1), 0.5)
    assert randomisation_test(apart, singles(10), 5000, 0)[0] < 0.01
    assert randomisation_test(apart, ["a"] * 5 + ["b"] * 5, 5000, 0)[0] == pytest.approx(0.5, abs=0.03)
    sums, sizes = group_sums(np.array([[1.0], [2.0], [4.0]]), ["a", "b", "a"])
    assert (sums.tolist(), sizes.tolist()) == ([[5.0], [2.0]], [2.0, 1.0])
    figures = np.repeat(np.array([[0.0], [1.0]]), 50, axis=0)
    wide = interval(figures, ["a"] * 50 + ["b"] * 50, 2000, 0.9, 0)
    narrow = interval(figures, singles(100), 2000, 0.9, 0)
    assert wide[:, 0].tolist() == [0.0, 1.0]
    assert 0.38 < narrow[0, 0] < narrow[1, 0] < 0.62


def test_one_product_says_nothing_of_others() -> None:
    figures = np.ones((4, 2))
    assert interval(figures, ["a"] * 4, 100, 0.95, 0).tolist() == [[0, 0], [1, 1]]
    told = differences(["recall@1"], figures[:, :1], 0 * figures[:, :1], ["a"] * 4, draws=100, confidence=0.95, seed=0)
    assert (told[0].low, told[0].high, told[0].verdict) == (-1, 1, "no difference shown")


def test_many_queries_are_drawn_in_pieces() -> None:
    figures = np.random.default_rng(0).random((3000, 1))
    drawn = bootstrap_means(figures, singles(3000), 3000, 0)  # 9 million draws: more than one piece
    assert drawn.shape == (3000, 1)
    assert drawn.std() == pytest.approx(figures.std() / np.sqrt(3000), rel=0.1)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


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
