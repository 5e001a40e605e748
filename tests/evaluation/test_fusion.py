"""Fusion by reciprocal ranks, and rankings in little memory."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.evaluation.fusion import fused
from afmrl_cli.evaluation.ranked import Ranked


def test_fusion_by_hand() -> None:
    first = {"q": [("a", 9.0), ("b", 8.0)], "only": [("x", 1.0)]}
    second = {"q": [("b", 0.2), ("c", 0.1)]}
    found = fused([first, second], 10)
    assert [id for id, _ in found["q"]] == ["b", "a", "c"]
    assert dict(found["q"]) == pytest.approx({"b": 61 / 61 + 61 / 62, "a": 1.0, "c": 61 / 62})
    assert found["only"] == [("x", 1.0)]
    assert fused([first, second], 1)["q"][0][0] == "b"


def test_neighbours_far_down_do_not_tie_in_six_decimals() -> None:
    long = {"q": [(f"d{i:04}", float(-i)) for i in range(1000)]}
    scores = [round(score, 6) for _, score in fused([long], 1000)["q"]]
    assert len(set(scores)) == 1000


def test_what_ties_in_the_file_ties_in_the_figures() -> None:
    first = {"q": [("a", 3.0), ("z", 2.0), ("b", 1.0)]}
    assert fused([first], 3)["q"] == [("a", 1.0), ("z", round(61 / 62, 6)), ("b", round(61 / 63, 6))]
    tied = {"q": [("b", 1.0)]}, {"q": [("a", 1.0)]}
    assert fused(tied, 1)["q"] == [("b", 1.0)], "the higher id first, as in trec_eval"


def test_ranked_is_a_sequence_of_pairs() -> None:
    ranked = Ranked(["a", "b", "c"], np.array([2, 0]), np.array([0.5, 0.25]))
    assert list(ranked) == [("c", 0.5), ("a", 0.25)]
    assert (len(ranked), ranked[1], list(ranked[1:])) == (2, ("a", 0.25), [("a", 0.25)])
    assert ("a", 0.25) in ranked
    with pytest.raises(IndexError):
        ranked[2]
