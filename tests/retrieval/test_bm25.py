"""BM25 against rank_bm25's own scores with the same idf put in."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from afmrl_cli.retrieval.bm25 import count_matrix, fit_bm25, idf, tokenize, weigh


@pytest.mark.parametrize("seed", range(3))
def test_equals_rank_bm25_with_this_idf(seed: int) -> None:
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(30)]
    corpus = [[rng.choice(words) for _ in range(rng.choice([0, 3, 20]))] for _ in range(200)] + [["w0"]]
    theirs = BM25Okapi(corpus)
    holders = {word: sum(word in set(doc) for doc in corpus) for word in theirs.idf}
    theirs.idf = {word: math.log(1 + (len(corpus) - n + 0.5) / (n + 0.5)) for word, n in holders.items()}
    ours = fit_bm25(corpus)
    for _ in range(20):
        query = [rng.choice([*words, "unseen"]) for _ in range(rng.choice([1, 2, 8]))]
        np.testing.assert_allclose(ours.scores(query), theirs.get_scores(query), rtol=0, atol=1e-9)
    rows = list(range(0, 200, 7))
    expected = [theirs.get_batch_scores(corpus[row], rows) for row in rows]
    np.testing.assert_allclose(ours.pairs(rows, rows), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.self_scores(rows), np.diag(np.array(expected)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.against_all(7), theirs.get_scores(corpus[7]), rtol=0, atol=1e-9)


def test_idf_is_never_negative() -> None:
    column = {"all": 0, "nearly all": 1, "one": 2}
    documents = [{"all": 1} | ({"nearly all": 1} if i else {"one": 1}) for i in range(10)]
    everywhere, nearly, once = idf(count_matrix(documents, column))
    assert 0 < everywhere < nearly < once


def test_weights_in_single_precision_are_those_in_double_precision() -> None:
    """As dedupe has them, for a hundred thousand listings."""
    corpus = [[f"w{i % 7}", f"w{i % 3}", "w"] for i in range(50)]
    ours = fit_bm25(corpus)
    single = weigh(ours.counts.astype(np.float32), idf(ours.counts).astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.toarray(), ours.weights.toarray(), rtol=1e-5)


@pytest.mark.parametrize("corpus", [[], [[]], [[], []]])
def test_corpus_without_words(corpus: list[list[str]]) -> None:
    assert fit_bm25(corpus).scores(["a"]).tolist() == [0.0] * len(corpus)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("V-neck 900D, Éclair_x", ["v", "neck", "900d", "eclair", "x"]),
        ("Färskost Ekologisk", ["farskost", "ekologisk"]),
        ("苹果手机 case", ["苹", "果", "手", "机", "苹果", "果手", "手机", "case"]),
        ("ポロ", ["ポ", "ロ", "ポロ"]),
        ("時々 ﾎﾟﾛ", ["時", "々", "時々", "ポ", "ロ", "ポロ"]),
        ("เท้าผ้า 42", ["เท้า", "ผ้า", "เท้าผ้า", "42"]),
        ("Чёрный ЙОГУРТ, чай", ["черный", "йогурт", "чай"]),
        ("Łódź Smørrebrød Straße Bœuf İstanbul ısı", ["lodz", "smorrebrod", "strasse", "boeuf", "istanbul", "isi"]),
        ("Ωμέγα ΧΡΏΜΑ", ["ωμεγα", "χρωμα"]),
        ("सूती कुर्ता", ["सूती", "कुर्ता"]),
        ("فُسْتان קָפֶה", ["فستان", "קפה"]),
        ("Schuh\u00adcreme cafe\u0301", ["schuhcreme", "cafe"]),
        ("  ...  ", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_accents_can_be_kept() -> None:
    assert tokenize("Éclair", fold_accents=False) == ["éclair"]


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_plain_latin_text_is_its_words_and_numbers(text: str) -> None:
    assert tokenize(text) == re.findall("[a-z0-9]+", text.lower()) == tokenize(text + " ß")[:-1]


SHOPS = {
    "Swedish": (["Röd kjol i bomull", "Blå klänning", "Svarta vinterstövlar"], {"ROD KJOL": 0, "stovlar svarta": 2}),
    "Russian": (["Чёрные кожаные сапоги", "Шёлковый шарф", "Белая рубашка"], {"черные сапоги": 0, "ШЕЛКОВЫЙ": 1}),
    "Chinese": (["男士纯棉短袖T恤", "女士羊毛连衣裙", "儿童运动鞋"], {"连衣裙": 1, "运动鞋 儿童": 2, "棉 T恤": 0}),
    "Japanese": (
        ["綿のＴシャツ 半袖", "レディース ワンピース", "革のスニーカー"],
        {"ﾜﾝﾋﾟｰｽ": 1, "tシャツ": 0, "スニーカー": 2},
    ),
    "Thai": (["เสื้อยืดผู้ชายสีดำ", "รองเท้าผ้าใบผู้หญิง", "กางเกงยีนส์ขายาว"], {"รองเท้า": 1, "ยีนส์": 2, "เสื้อสีดำ": 0}),
    "Korean": (["남성 반팔티셔츠", "여성용 원피스", "가죽운동화"], {"운동화": 2, "원피스 여성": 1, "티셔츠": 0}),
}


@pytest.mark.parametrize("language", SHOPS)
def test_shops_of_many_languages_are_searched(language: str) -> None:
    titles, queries = SHOPS[language]
    corpus = fit_bm25([tokenize(title) for title in titles])
    for query, best in queries.items():
        scores = corpus.scores(tokenize(query))
        assert scores.argmax() == best and scores[best] > 1.5 * np.sort(scores)[-2], query
