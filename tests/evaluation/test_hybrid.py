"""How the weights of the hybrid search are chosen: by other queries than those that are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.catalog.product import Product, product_text
from afmrl_cli.evaluation.hybrid import STEPS, HybridTask, Judged, choose_weights, grid, tuned_run, tuned_weights
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.systems import Encoded
from afmrl_cli.evaluation.task import Document, Query, Task
from afmrl_cli.nano.shop import ShopPlan
from afmrl_cli.nano.shop import write_shop as write_drawn
from afmrl_cli.retrieval.hybrid import KINDS, Floats, Kind, Part, Scaled, Weights
from afmrl_cli.retrieval.listings import make_listing
from afmrl_cli.retrieval.weights import (
    DEFAULTS,
    HybridWeights,
    Tuned,
    default_weights,
    read_weights,
    write_weights,
)
from afmrl_cli.store.folder import CatalogFolder
from tests.retrieval.shop import shop_rows, work_of, write_shop

PRODUCTS = 60


def judged(vectors: list[float], words: list[float], right: int, group: str) -> Judged:
    rows = np.arange(len(vectors))
    parts: dict[Part, Floats] = {"vectors": np.array(vectors, np.float32), "words": np.array(words, np.float32)}
    grades = np.array([float(row == right) for row in rows])
    return Judged(Scaled(rows, parts, np.zeros(len(rows), np.float32)), grades, 1.0, group)


def test_all_weights_in_steps_sum_to_one() -> None:
    choices = grid(("vectors", "words", "attributes"))
    assert len(choices) == (STEPS + 1) * (STEPS + 2) // 2
    np.testing.assert_allclose(choices.sum(axis=1), 1, atol=1e-6)


def test_the_best_weights_are_chosen_and_of_equal_ones_those_nearest_to_the_defaults() -> None:
    by_words = [judged([1, 0.2, 0], [0, 1, 0.1], 1, f"p{i}") for i in range(3)]
    weights, value = choose_weights(by_words, {"vectors": 0.9, "words": 0.1})
    assert weights == {"vectors": 0.5, "words": 0.5} and value == 1.0  # 0.5 > 0.5 x 0.2 + 0.5, and not at 0.6
    either = [judged([0, 1, 0], [0, 1, 0], 1, "p") for _ in range(3)]
    assert choose_weights(either, {"vectors": 0.3, "words": 0.7})[0] == {"vectors": 0.3, "words": 0.7}


def test_what_may_be_luck_does_not_move_the_defaults() -> None:
    vectors_right = [judged([1, 0], [0, 1], 0, f"v{i}") for i in range(16)]
    words_right = [judged([1, 0], [0, 1], 1, f"w{i}") for i in range(14)]
    default: Weights = {"vectors": 0.3, "words": 0.7}
    assert choose_weights([*vectors_right, *words_right], default)[0] == default
    assert choose_weights(vectors_right, default)[0]["vectors"] > 0.4


def test_too_few_products_choose_nothing() -> None:
    few: list[tuple[Kind, Judged]] = [("text", judged([1, 0], [0, 1], 1, f"p{i % 19}")) for i in range(100)]
    assert tuned_weights(few, DEFAULTS) == {}
    enough = [*few, ("text", judged([1, 0], [0, 1], 1, "another"))]
    [(kind, (weights, tuned))] = tuned_weights(enough, DEFAULTS).items()
    assert (kind, tuned.queries, tuned.products) == ("text", 101, 20)
    assert weights["words"] > weights["vectors"]


def task(tmp_path: Path, side: str) -> tuple[Task, Encoded]:
    """Products whose own word finds them; their vectors find the next one."""
    documents, queries = [], []
    vectors = np.eye(PRODUCTS, dtype=np.float32)
    for i in range(PRODUCTS):
        product = Product(f"{side}{i}", title=f"thing word{i}")
        documents.append(Document(product, make_listing(product, product.id, product.id, "", tmp_path), {}))
        queries.append(Query(f"q{side}{i}", f"word{i}", (), group=f"{side}{i}"))
        assert product_text(product)
    qrels = {query.id: {document.id: 1} for query, document in zip(queries, documents, strict=True)}
    made = Task("queries", queries, documents, qrels)
    shifted = [(query, np.roll(vectors, -1, axis=0)[i]) for i, query in enumerate(queries)]
    return made, Encoded(documents, vectors, shifted)


@pytest.mark.parametrize("with_validation", [True, False])
def test_weights_come_from_other_queries_and_rank_as_search_does(tmp_path: Path, with_validation: bool) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")
    work = work_of(CatalogFolder(tmp_path / "catalog.csv"))
    scored, encoded = task(tmp_path, "a")
    tuning = HybridTask(*task(tmp_path, "b"), work, {}) if with_validation else None
    run, weights = tuned_run(HybridTask(scored, encoded, work, {}), tuning, 10)
    assert evaluate(run, scored.qrels, ["recall@1"]).means["recall@1"] == 1.0
    assert all(each.weights["words"] > each.weights.get("vectors", 0) and each.value == 1.0 for each in weights)
    assert sum(each.scored for each in weights) == PRODUCTS
    if with_validation:
        assert [(each.source, each.tuned_on) for each in weights] == [("validation", PRODUCTS)]
    else:
        assert [each.source for each in weights] == ["other half"] * 2
        assert all(each.tuned_on == PRODUCTS - each.scored for each in weights)


def test_stored_weights_are_read_back_and_others_stay_as_they_were(tmp_path: Path) -> None:
    assert read_weights(tmp_path, DEFAULTS).of("photo") == DEFAULTS["photo"]
    own: dict[Kind, Weights] = {**DEFAULTS, "text": {"vectors": 0.2, "words": 0.8}}
    tuned: dict[Kind, Tuned] = {"text": Tuned(150, 120, "validation", "ndcg@10", 0.7)}
    write_weights(tmp_path, HybridWeights(own, tuned, {"data": "d"}))
    found = read_weights(tmp_path, DEFAULTS)
    assert found.of("text") == {"vectors": 0.2, "words": 0.8} and found.of("photo") == DEFAULTS["photo"]
    assert found.words("text") == "tuned on 150 validation queries" and found.words("photo") == "defaults"
    assert found.state == {"data": "d"}


def test_the_built_in_model_counts_for_little_but_in_drawn_shops(tmp_path: Path) -> None:
    write_drawn(tmp_path / "drawn", ShopPlan(products=4, text_queries=0, photo_queries=0, size=64))
    other = write_shop(tmp_path / "other", shop_rows(4))
    home = default_weights(work_of(CatalogFolder(tmp_path / "drawn" / "catalog.csv")))
    abroad = default_weights(work_of(other))
    for kind in KINDS:
        assert home[kind]["vectors"] >= 0.4 and abroad[kind]["vectors"] == 0.1
        assert all(sum(each[kind].values()) == pytest.approx(1) for each in (home, abroad, DEFAULTS))


@pytest.mark.parametrize("text", ["{}", '{"schema": "afmrl.hybrid/1"}', "[", '{"schema": "afmrl.hybrid/2"}'])
def test_damaged_weights_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "hybrid.json").write_text(text)
    with pytest.raises(Exception, match=r"hybrid\.json: damaged"):
        read_weights(tmp_path, DEFAULTS)
