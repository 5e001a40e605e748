"""The sequential baseline: what it learns, what it can't know, and what is stored of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.next_item.histories import Histories, Question, questions_of
from afmrl_cli.next_item.measure import measure
from afmrl_cli.next_item.metrics import rank_targets
from afmrl_cli.next_item.popularity import Popularity
from afmrl_cli.next_item.sequential import Sequential, load_sequential
from afmrl_cli.recommend.split import TEST
from tests.recommend.shop import call, shop, workspace

LISTINGS, STEPS = 24, 6


def planted(customers: int = 150) -> Histories:
    """Return customers who begin anywhere and take the listing after the one before, three times in four; the last
    listing is taken by nobody in training."""
    rng = np.random.default_rng(5)
    item = np.empty((customers, STEPS), dtype=np.int32)
    item[:, 0] = rng.integers(LISTINGS - 1, size=customers)
    for step in range(1, STEPS):
        after = (item[:, step - 1] + 1) % (LISTINGS - 1)
        item[:, step] = np.where(rng.random(customers) < 0.75, after, rng.integers(LISTINGS - 1, size=customers))
    part = np.zeros((customers, STEPS), dtype=np.uint8)
    part[:, -2], part[:, -1] = 1, 2
    return Histories(
        tuple(f"L{number:02d}" for number in range(LISTINGS)),
        np.repeat(np.arange(customers, dtype=np.int32), STEPS),
        item.ravel(),
        np.tile(np.arange(STEPS, dtype=np.int64), customers),
        part.ravel(),
        np.arange(1, customers + 1, dtype=np.uint64),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Histories, Sequential]:
    root, held = shop(tmp_path_factory.mktemp("sequential")), planted()
    return root, held, load_sequential(workspace(root), held, 0)


def targets(questions: list[Question]) -> np.ndarray:
    return np.array([question.target for question in questions], dtype=np.int32)


def test_it_learns_what_comes_after_what(trained: tuple[Path, Histories, Sequential]) -> None:
    root, held, model = trained
    content = measure(workspace(root), held, TEST, [Popularity(held), model], model.name, {}).content

    popularity, sequential = (system["metrics"] for system in content["systems"])
    assert sequential["hr@1"] > 0.6 > 0.2 > popularity["hr@1"]
    (compared,) = content["comparisons"]
    assert {each["verdict"] for each in compared["differences"]} == {"worse"}
    assert content["sequential"]["best"] <= content["sequential"]["epochs"]
    assert content["sequential"]["threads"] >= 1


def test_a_listing_without_a_training_row_ranks_behind_all_others(trained: tuple[Path, Histories, Sequential]) -> None:
    _, held, model = trained
    unknown = LISTINGS - 1
    only_new = Question(np.array([unknown], dtype=np.int32), np.array([0]), 9, unknown)

    found = model.scores([only_new, questions_of(held, TEST)[0]])

    assert np.isfinite(found).all()
    assert (found[:, :unknown] > found[:, [unknown]]).all()


def test_a_question_has_one_answer_whatever_is_asked_beside_it(trained: tuple[Path, Histories, Sequential]) -> None:
    _, held, model = trained
    asked = questions_of(held, TEST)[:9]
    short = Question(asked[0].history[:1], asked[0].times[:1], 1)
    together, alone = model.scores([*asked, short])[-1], model.scores([short])[0]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_histories_longer_than_it_reads_are_learnt_from_in_pieces(tmp_path: Path) -> None:
    """Of one customer with 260 rows nothing is left out: what came first is as well known as what came last."""
    count = 260
    item = np.where(np.arange(count) < 130, np.arange(count) % 5, 5 + np.arange(count) % 5).astype(np.int32)
    held = Histories(
        tuple("abcdefghij"),
        np.zeros(count, dtype=np.int32),
        item,
        np.arange(count, dtype=np.int64),
        np.zeros(count, dtype=np.uint8),
        np.array([1], dtype=np.uint64),
    )
    model = load_sequential(workspace(shop(tmp_path)), held, 0)

    asked = [Question(item[:at], np.arange(at), at, int(item[at])) for at in (60, 100, 200, 250)]

    assert model.training.validation is None
    assert rank_targets(model.scores(asked), targets(asked), "sequential").mean.max() <= 2


def test_it_is_trained_once_and_anew_where_it_is_damaged(trained: tuple[Path, Histories, Sequential]) -> None:
    root, held, model = trained
    asked = questions_of(held, TEST)[:5]
    place = root / ".afmrl" / "recommend" / "sequential"

    again = load_sequential(workspace(root), held, 0)
    assert again.training.before and not model.training.before
    assert (again.scores(asked) == model.scores(asked)).all()

    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    anew = load_sequential(workspace(root), held, 0)
    assert not anew.training.before
    np.testing.assert_allclose(anew.scores(asked), model.scores(asked), atol=1e-5)


def test_forgetting_a_customer_removes_it(trained: tuple[Path, Histories, Sequential]) -> None:
    root, _, _ = trained
    place = root / ".afmrl" / "recommend" / "sequential"
    assert place.is_dir()
    assert call(root, "--forget", "anna@example.com").exit_code == 0
    assert not place.exists()
