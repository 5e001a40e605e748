"""The parts of a hybrid search and their sum, against cases by hand and against the plain ways to the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afmrl_cli.retrieval.bm25 import fit_bm25, tokenize
from afmrl_cli.retrieval.colors import Colors
from afmrl_cli.retrieval.hybrid import CANDIDATES, Floats, Gallery, HybridQuery, Weights, rank, scaled_scores
from afmrl_cli.retrieval.index import exact_search
from afmrl_cli.retrieval.lexicon import Lexicon, center_of, make_lexicon
from afmrl_cli.retrieval.named import Named, index_pairs
from afmrl_cli.retrieval.words import index_words

EACH: Weights = {"vectors": 0.6, "words": 0.4}
TEXTS = ["Title: Red linen shirt", "Title: Blue shirt, blue cuffs", "Title: Red shoes", "Title: Café au lait cup", ""]


def unit(rows: list[list[float]]) -> Floats:
    matrix = np.array(rows, dtype=np.float32)
    made: Floats = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return made


def gallery() -> Gallery:
    matrix = unit([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8]])
    return Gallery(matrix, center_of(matrix), index_words([tokenize(text) for text in TEXTS]))


def test_stored_words_score_as_bm25_does() -> None:
    corpus = [tokenize(text) for text in TEXTS]
    stored, plain = index_words(corpus), fit_bm25(corpus)
    for query in ("red shirt", "blue blue cafe", "nothing of it", ""):
        np.testing.assert_allclose(stored.scores(tokenize(query)), plain.scores(tokenize(query)), rtol=1e-5, atol=1e-6)
    assert not index_words([[], []]).scores(["red"]).any()


def test_the_score_is_the_weighted_mean_of_scaled_parts() -> None:
    made = gallery()
    query = HybridQuery(np.array([1, 0, 0], dtype=np.float32), tokenize("red shirt"))
    found = rank(made, query, {"vectors": 0.25, "words": 0.75}, 5)
    floor = float(made.center[0])
    cosines = np.maximum(made.matrix[:, 0] - floor, 0) / (1 - floor)
    assert made.words is not None
    words = made.words.scores(tokenize("red shirt"))
    expected = 0.25 * cosines + 0.75 * words / words.max()
    np.testing.assert_allclose(found.scores, expected[found.rows], atol=1e-5)
    np.testing.assert_allclose(found.shares["vectors"] + found.shares["words"], found.scores, atol=1e-5)
    np.testing.assert_allclose(found.cosines, made.matrix[found.rows, 0], atol=1e-6)
    assert found.rows[0] == 0


def test_a_part_that_finds_nothing_takes_no_weight_from_the_others() -> None:
    query = HybridQuery(np.array([0, 1, 0], dtype=np.float32), tokenize("xyzzy"))
    with_words = rank(gallery(), query, {"vectors": 0.1, "words": 0.9}, 3)
    alone = rank(gallery(), query, {"vectors": 1.0}, 3)
    assert with_words.rows.tolist() == alone.rows.tolist()
    np.testing.assert_allclose(with_words.scores, alone.scores, atol=1e-6)


def test_a_filter_leaves_out_and_never_reorders() -> None:
    query = HybridQuery(np.array([0.6, 0.8, 0], dtype=np.float32), tokenize("blue shirt"))
    weights: Weights = {"vectors": 0.5, "words": 0.5}
    whole = rank(gallery(), query, weights, 5)
    allowed = np.array([True, False, True, True, False])
    part = rank(gallery(), query, weights, 5, allowed=allowed)
    kept = [place for place, row in enumerate(whole.rows) if allowed[row]]
    assert part.rows.tolist() == whole.rows[kept].tolist()
    np.testing.assert_allclose(part.scores, whole.scores[kept], atol=1e-6)


def test_hidden_listings_are_no_result_and_set_no_scale() -> None:
    query = HybridQuery(np.array([1, 0, 0], dtype=np.float32), tokenize("red linen shirt"))
    found = rank(gallery(), query, {"vectors": 0.5, "words": 0.5}, 5, hidden=[0])
    assert 0 not in found.rows
    assert found.scores[0] == pytest.approx(1.0, abs=0.3)
    assert max(found.shares["vectors"]) == pytest.approx(0.5, abs=1e-5)


def test_an_approximate_index_gives_candidates_and_exact_scores() -> None:
    rng = np.random.default_rng(0)
    matrix = unit(rng.normal(size=(4 * CANDIDATES, 8)).tolist())
    words = index_words([["red" if i % 7 == 0 else "blue", f"n{i}"] for i in range(len(matrix))])
    flat = Gallery(matrix, center_of(matrix), words)
    near = replace(flat, nearest=lambda query, k: exact_search(matrix, query[None], k)[1][0])
    query, weights = HybridQuery(matrix[5] + 0.1, ["red", "n9"]), EACH
    exact, through = rank(flat, query, weights, 20), rank(near, query, weights, 20)
    assert exact.rows.tolist() == through.rows.tolist()
    np.testing.assert_allclose(exact.scores, through.scores, atol=1e-5)
    allowed = np.zeros(len(matrix), dtype=bool)
    allowed[-3:] = True
    assert sorted(rank(near, query, weights, 20, allowed=allowed).rows.tolist()) == np.flatnonzero(allowed).tolist()


def named() -> Named:
    return index_pairs(
        [
            [("color", "navy"), ("neckline", "V-neck")],
            [("Color", "Navy"), ("pattern", "polka dot")],
            [("lining", "navy"), ("size", "M"), ("pieces", "2")],
            [],
        ]
    )


def test_a_query_names_values_and_the_longest_phrase_counts() -> None:
    known = named()
    wishes = known.wishes("navy polka dot v-neck dress size M 2", {})
    assert [wish.words for wish in wishes] == ["navy", "polka dot", "v neck"]
    assert known.holders(wishes[0]).tolist() == [0, 1, 2], "of any key"
    assert known.pairs_of(2, wishes) == {"lining": "navy"}
    written = known.wishes("", {"color": "NAVY", "fit": "slim"})
    assert [known.holders(wish).tolist() for wish in written] == [[0, 1]], "attributes name their own key"


def test_who_has_all_that_is_named_scores_one_and_rare_things_count_more() -> None:
    known = named()
    scores = known.scores(known.wishes("navy v-neck", {}))
    assert scores[0] == pytest.approx(1.0)
    assert scores[0] > scores[1] == scores[2] > scores[3] == 0
    assert known.scores(known.wishes("navy", {}))[1] == pytest.approx(1.0)
    assert scores[1] < 0.5
    assert not known.scores([]).any()


def test_pairs_of_two_sources_are_alternatives() -> None:
    own = index_pairs([[], [], [], [("color", "navy")]])
    both = Named.joined(own, named())
    [wish] = both.wishes("navy", {})
    assert both.holders(wish).tolist() == [0, 1, 2, 3]
    assert both.scores([wish]).tolist() == pytest.approx([1, 1, 1, 1])


def test_colours_survive_eight_bits_and_a_listing_without_a_photo_has_none() -> None:
    rng = np.random.default_rng(0)
    colors = unit(rng.normal(size=(3, 1024)).tolist())
    stored = Colors.of([colors[0], None, colors[2]])
    scores = stored.scores(colors[2])
    assert scores[1] == 0
    np.testing.assert_allclose(scores[[0, 2]], colors[[0, 2]] @ colors[2], atol=0.02)
    own = stored.colors(2)
    assert own is not None and own @ colors[2] > 0.999
    assert stored.colors(1) is None


def test_what_describes_is_a_value_and_what_numbers_is_none() -> None:
    fields = [
        {"id": f"s{i}", "brand": "Luma", "category": "Women/Tops", "color": ("red", "blue")[i % 2], "ean": f"40{i}"}
        for i in range(6)
    ]
    made: Lexicon = make_lexicon(["shirt"] * 6, fields, ["fit: slim, long"] * 6, np.eye(6, dtype=np.float32))
    assert sorted(made.own.pairs) == [
        ("brand", "Luma"),
        ("category", "Tops"),
        ("category", "Women"),
        ("color", "blue"),
        ("color", "red"),
    ]
    assert made.generated.pairs == [("fit", "slim"), ("fit", "long")]


def test_parts_that_are_not_wanted_are_not_looked_at() -> None:
    query = HybridQuery(np.array([1, 0, 0], dtype=np.float32), tokenize("red"))
    assert set(scaled_scores(gallery(), query, ["words"]).parts) == {"words"}
