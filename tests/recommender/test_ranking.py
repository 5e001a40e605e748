"""What a model says of each candidate, and what becomes of the retrieval's order by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, open_role
from afmrl_cli.models.batching import Batches
from afmrl_cli.models.generator import LocalGenerator
from afmrl_cli.next_item.histories import Question, Scores
from afmrl_cli.recommender.load import make_generator
from afmrl_cli.recommender.ranking import Shown, line_scores, request_of
from afmrl_cli.recommender.shortlist import Reader, Shortlists, TrainedRecommender, fuse, put_first
from afmrl_cli.recommender.texts import Texts
from afmrl_cli.recommender.validation import NAMES, Validation, fit_weight, make_validation, metrics_of
from afmrl_cli.store.checkpoints import Checkpoints
from tests.recommender.shop import recommender_settings
from tests.tiny import ARCHITECTURES

TinyModel = Callable[[str], Path]


def generator_of(model: Path, tmp_path: Path) -> LocalGenerator:
    settings = recommender_settings(model)()
    opened = open_role(settings.model, "recommender", Checkpoints(tmp_path / "checkpoints"), Bases(), Silent())
    return make_generator(opened, settings, Silent())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_the_models_own_log_probabilities(architecture: str, tiny_model: TinyModel, tmp_path: Path) -> None:
    """The question once for all candidates, in batches with others, against a forward of each row in full."""
    generator = generator_of(tiny_model(architecture), tmp_path)
    shown = [
        Shown(("red shirt", "blue shirt"), ("green coat", "a navy hat", "hat")),
        Shown(("hat",), ("red shirt", "white coat with a zip")),
    ]
    found = line_scores(generator, shown, 2, Batches(6, Silent(), "ranking"))
    assert [each.shape for each in found] == [(2, 3), (2, 2)]
    for each, scores in zip(shown, found, strict=True):
        for turned, row in zip((each, Shown(each.history, each.candidates[::-1])), scores, strict=True):
            expected = dict(zip(turned.candidates, _in_full(generator, turned), strict=True))
            assert row == pytest.approx([expected[line] for line in each.candidates], abs=2e-4)


def test_a_question_too_long_for_the_model_names_the_settings(tiny_model: TinyModel, tmp_path: Path) -> None:
    generator = generator_of(tiny_model("qwen2_vl"), tmp_path)
    shown = [Shown(("red shirt " * generator.processor.max_positions,), ("hat", "coat"))]
    with pytest.raises(ModelError, match="a question with its answer is too long") as raised:
        line_scores(generator, shown, 2, Batches(6, Silent(), "ranking"))
    assert "recommender.shortlist" in str(raised.value.hint)


def _in_full(generator: LocalGenerator, shown: Shown) -> list[float]:
    tokenizer, found = generator.processor.tokenizer, []
    prompt = tokenizer(generator.text(request_of(shown, 2)))["input_ids"]
    for line in shown.candidates:
        own = tokenizer(f"- {line}\n", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt + own])
        with torch.inference_mode():
            logits = generator.loaded.causal(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).logits
        logps = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        found.append(float(logps.gather(1, torch.tensor(own)[:, None]).sum()))
    return found


class Fixed:
    """A retrieval that ranks by the listing's number, the first one best."""

    name = "fixed"

    def scores(self, questions: Sequence[Question]) -> Scores:
        return np.tile(-np.arange(6, dtype=np.float32), (len(questions), 1))


def question(target: int) -> Question:
    return Question(np.array([5], dtype=np.int32), np.array([0], dtype=np.int64), 9, target, 0)


def test_metrics_are_of_the_retrieval_of_the_recommender_and_of_both() -> None:
    validation = make_validation(Fixed(), [question(1), question(0), question(4)], 3)
    assert validation.ranks.tolist() == [2, 1, 5], "the third is not on its shortlist"
    said = [np.array([[0.0, 3.0, 0.0]] * 2), np.array([[0.0, 0.0, 0.6]] * 2), np.zeros((2, 3))]
    found = metrics_of(validation, said)
    assert found.keys() == NAMES
    assert found["hr@1_retrieval"] == found["hr@1"] == pytest.approx(1 / 3)
    assert found["weight"] == fit_weight(validation, said) > 1 / 3, "so much brings the first before the other"
    assert found["hr@1_fused"] == pytest.approx(2 / 3)
    assert found["ndcg@10_fused"] == pytest.approx((1 + 1 + 1 / math.log2(6)) / 3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6)) / 3), "tied ones keep the order"


def test_what_is_put_first_stands_before_all_others() -> None:
    row = np.array([5.0, 1.0, 9.0, -np.inf], dtype=np.float32)
    put_first(row, np.array([1, 0]), np.array([-7.0, -8.0]))
    assert np.argsort(-row).tolist() == [1, 0, 2, 3] and row[2] == 9


def test_the_weight_is_that_of_a_planted_choice_and_0_of_noise() -> None:
    """Listings are chosen by 3 (v + 2 s); s is then exchanged between questions, and turned round."""
    rng = np.random.default_rng(3)
    values, said, asked = [], [], []
    for _ in range(400):
        v, s = rng.normal(size=6), rng.normal(size=6)
        values.append(v)
        said.append(np.stack([s, s]))
        asked.append(question(int((3 * (v + 2 * s) + rng.gumbel(size=6)).argmax())))
    validation = Validation(Shortlists(asked, [np.arange(6)] * 400, values), np.ones(400, dtype=np.int64))
    assert fit_weight(validation, said) == pytest.approx(2, rel=0.25)
    assert fit_weight(validation, [*said[1:], said[0]]) < 0.2
    assert fit_weight(validation, [-each for each in said]) == 0
    nowhere = Validation(Shortlists([question(9)], [np.arange(6)], values[:1]), np.array([10]))
    assert fit_weight(nowhere, said[:1]) == 0, "nothing to go by"


def test_the_bias_by_place_is_measured_in_both_orders() -> None:
    """One who always takes what is shown first: right where the target is first, and another in reverse."""
    validation = Validation(Shortlists([question(0)], [np.arange(3)], [np.zeros(3)]), np.array([1]))
    found = metrics_of(validation, [np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])])
    assert (found["changed"], found["hr@1_first"], found["hr@1_last"]) == (1.0, 1.0, 0.0)


def test_the_shortlist_is_ordered_anew_and_stays_before_all_others(tiny_model: TinyModel, tmp_path: Path) -> None:
    generator = generator_of(tiny_model("qwen2_vl"), tmp_path)
    lines = ("red shirt", "blue shirt", "red shirt", "a navy hat", "white coat", "hat")
    texts = Texts(tuple("abcdef"), lines, lines, tuple("abcdef"), 0)
    reader = Reader(generator, texts, 3, 2, Batches(8, Silent(), "ranking"))
    trained = TrainedRecommender(Fixed(), reader, 0.9, 4)
    row = trained.scores([question(-1)])[0]
    assert sorted(np.argsort(-row)[:4].tolist()) == [0, 1, 2, 3]
    assert row[0] > row[2], "of one text: the retrieval decides"
    assert np.argsort(-row)[4:].tolist() == [4, 5]
    said = reader.read([question(-1)], [np.arange(4)])[0]
    assert np.argsort(-row)[:4].tolist() == np.argsort(-fuse(-np.arange(4.0), said, 0.9), kind="stable").tolist()


def test_among_a_few_listings_all_are_shown(tiny_model: TinyModel, tmp_path: Path) -> None:
    generator = generator_of(tiny_model("qwen2_vl"), tmp_path)
    lines = ("one", "two", "three", "four", "five", "six")
    texts = Texts(tuple("abcdef"), lines, lines, tuple("abcdef"), 0)
    reader = Reader(generator, texts, 3, 2, Batches(8, Silent(), "ranking"))
    found = TrainedRecommender(Fixed(), reader, 1.0, 3).among([question(5)], np.array([[5, 0, 3]]))
    shown = Shown(("six",), ("one", "four", "six"))
    both = line_scores(generator, [shown, Shown((), shown.candidates)], 2, Batches(8, Silent(), "ranking"))
    expected = (both[0] - both[1]).mean(axis=0) + np.array([0, -3, -5])
    assert np.diff(found[0][[1, 2, 0]]) == pytest.approx(np.diff(expected), abs=1e-4)
    of_more = TrainedRecommender(Fixed(), reader, 1.0, 2).among([question(5)], np.array([[5, 0, 3]]))[0]
    assert of_more[0] < min(of_more[1:]), "behind the retrieval's first two, which alone are shown"
