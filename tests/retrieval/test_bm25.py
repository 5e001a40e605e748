"""BM25 against rank_bm25's own scores with the same idf put in."""

import random

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from afmrl_cli.retrieval.bm25 import build_bm25, idf, tokenize


@pytest.mark.parametrize("seed", range(3))
def test_equals_rank_bm25_with_this_idf(seed: int) -> None:
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(30)]
    corpus = [[rng.choice(words) for _ in range(rng.choice([0, 3, 20]))] for _ in range(200)] + [["w0"]]
    theirs = BM25Okapi(corpus)
    holders = {word: sum(word in set(doc) for doc in corpus) for word in theirs.idf}
    theirs.idf = {word: idf(len(corpus), n) for word, n in holders.items()}
    ours = build_bm25(corpus)
    for _ in range(20):
        query = [rng.choice([*words, "unseen"]) for _ in range(rng.choice([1, 2, 8]))]
        np.testing.assert_allclose(ours.scores(query), theirs.get_scores(query), rtol=0, atol=1e-9)


def test_idf_is_never_negative() -> None:
    assert 0 < idf(10, 10) < idf(10, 9) < idf(10, 1)


@pytest.mark.parametrize("corpus", [[], [[]], [[], []]])
def test_corpus_without_words(corpus: list[list[str]]) -> None:
    assert build_bm25(corpus).scores(["a"]).tolist() == [0.0] * len(corpus)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("V-neck 900D, Éclair_x", ["v", "neck", "900d", "eclair", "x"]),
        ("Färskost Ekologisk", ["farskost", "ekologisk"]),
        ("苹果手机 case", ["苹", "果", "手", "机", "苹果", "果手", "手机", "case"]),
        ("ポロ", ["ポ", "ロ", "ポロ"]),
        ("  ...  ", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_accents_can_be_kept() -> None:
    assert tokenize("Éclair", fold_accents=False) == ["éclair"]
