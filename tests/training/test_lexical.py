"""B_ij against rank-bm25's own loop and against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from afmrl_cli.retrieval.bm25 import idf
from afmrl_cli.training.lexical import attribute_tokens, build_lexical


def corpus(products: int, seed: int = 0) -> list[list[str]]:
    """Products with up to eight values, the first of which more than half of them share; some have none."""
    rng = random.Random(seed)
    made = []
    for _ in range(products):
        tokens = [f"v{int(rng.paretovariate(0.6))}" for _ in range(rng.randrange(0, 8))]
        made.append(tokens + ["cotton"] * (rng.random() < 0.7))
    return made


def test_equal_to_rank_bm25() -> None:
    texts = corpus(300)
    lexical, theirs = build_lexical(texts), BM25Okapi(texts)
    theirs.idf = dict(zip(lexical.bm25.column, idf(lexical.bm25.counts), strict=True))
    rows, columns = list(range(0, 300, 3)), list(range(299, 0, -2))
    expected = np.array([theirs.get_batch_scores(texts[i], columns) for i in rows])
    np.testing.assert_allclose(lexical.bm25.pairs(rows, columns), expected, rtol=1e-12, atol=1e-12)
    assert (expected >= 0).all()
    for row in (0, 17):
        np.testing.assert_allclose(lexical.bm25.against_all(row), theirs.get_scores(texts[row]), rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    lexical = build_lexical([["red", "silk"], ["red"], ["blue"]])
    idf_red, idf_silk = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)

    def part(idf: float, length: int) -> float:
        return idf * 2.5 / (1 + 1.5 * (0.25 + 0.75 * length / (4 / 3)))

    expected = [
        [part(idf_red, 2) + part(idf_silk, 2), part(idf_red, 1), 0.0],
        [part(idf_red, 2), part(idf_red, 1), 0.0],
    ]
    np.testing.assert_allclose(lexical.bm25.pairs([0, 1], [0, 1, 2]), expected, rtol=1e-12)
    np.testing.assert_allclose(lexical.bm25.self_scores([0, 1]), [expected[0][0], expected[1][1]], rtol=1e-12)


def test_a_value_that_most_products_have_never_counts_against() -> None:
    texts = [["cotton", f"v{i}"] for i in range(50)]
    assert (build_lexical(texts).bm25.pairs(range(50), range(50)) > 0).all()


def test_a_value_named_twice_counts_twice() -> None:
    lexical = build_lexical([["red", "red"], ["red"], ["blue"]])
    assert lexical.bm25.pairs([0], [1])[0, 0] == pytest.approx(2 * lexical.bm25.pairs([1], [1])[0, 0])


def test_products_without_attributes_score_nothing() -> None:
    lexical = build_lexical([["red"], [], ["red"]])
    assert lexical.bm25.pairs([0, 1], [0, 1, 2])[:, 1].tolist() == [0.0, 0.0]
    assert lexical.bm25.pairs([1], [0, 2]).tolist() == [[0.0, 0.0]]
    assert build_lexical([[], []]).bm25.pairs([0, 1], [0, 1]).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_normalised_and_scaled() -> None:
    texts = corpus(40)
    lexical = build_lexical(texts, normalise=True, scale=2.0)
    scores = lexical.scores(range(40), range(40))
    for i in range(40):
        assert scores[i, i] == pytest.approx(2.0 if texts[i] else 0.0)
    raw = lexical.bm25.pairs([3], [5])[0, 0]
    assert scores[3, 5] == pytest.approx(2 * raw / lexical.bm25.self_scores([3])[0])


def test_tokens() -> None:
    attributes = {"Colour": "Navy Blue", "neckline": "V-neck", "size": "--"}
    assert attribute_tokens(attributes) == ["navy", "blue", "v", "neck"]
    assert attribute_tokens(attributes, "pairs") == ["colour=navy blue", "neckline=v neck"]
    assert attribute_tokens({"颜色": "深蓝"}) == ["深", "蓝", "深蓝"]


def test_normalised_by_the_querys_own_score() -> None:
    lexical = build_lexical([["red", "silk"], ["red"], ["blue"]], normalise=True)
    raw, (whole, own) = lexical.bm25.pairs([1], [0])[0, 0], lexical.bm25.self_scores([0, 1])
    assert 0 < raw < own < whole
    assert lexical.scores([1], [0])[0, 0] == pytest.approx(raw / own)
