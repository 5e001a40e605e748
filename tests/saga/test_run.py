"""Whole runs of `train-vision` on a tiny model: what is learnt and written, going on after a kill, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.saga import rollouts
from afmrl_cli.saga.adjudicator import Adjudication
from afmrl_cli.saga.batch_pairs import Pair, pairs_in_turn
from afmrl_cli.saga.model import Saga
from afmrl_cli.saga.page import PAGE
from afmrl_cli.saga.photos import LabelledPhoto
from afmrl_cli.saga.plan import Plan
from afmrl_cli.saga.replay import Group
from afmrl_cli.saga.rollouts import JudgedPair, read_answers
from afmrl_cli.saga.run import VISION, load_judge, make_saga, train_vision
from afmrl_cli.saga.trainer import VisionTrainer
from afmrl_cli.saga.validation import recall_by_class
from afmrl_cli.saga.verdicts import Verdicts
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import POOLER_WEIGHTS, WEIGHTS
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Photo
from afmrl_cli.training.shell import TrainingSummary, start_job
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.processes import copied, finished, kill_one, run_two
from tests.training.test_run import Heard

MakeSettings = Callable[..., Settings]
PLAIN = {"vision.grpo": 0.0, "vision.anchoring": 0.0}
"""Metric learning alone."""
SMALL = {
    "vision.classes": "colour",
    "vision.loss": "proxy-anchor",  # the one with weights of its own
    "vision.batch_size": 8,
    "vision.photos_per_class": 2,
    "vision.learning_rate": 0.005,
    "vision.steps": 4,
    "vision.validate_every": 2,
    "vision.save_every": 1,
    "vision.group": 4,
    "vision.pairs": 2,
    "vision.max_new_tokens": 16,
}


def run(folder: CatalogFolder, settings: Settings, heard: Heard | None = None, **options: bool) -> TrainingSummary:
    summary = train_vision(Workspace(folder, settings, heard or Heard()), **options)
    assert summary is not None
    return summary


def plan_of(folder: CatalogFolder, settings: Settings) -> Plan:
    plan: Plan = VISION.plan(start_job(VISION, Workspace(folder, settings, Silent()))).content
    return plan


def weights(folder: CatalogFolder, summary: TrainingSummary) -> dict[str, torch.Tensor]:
    place = folder.checkpoints / summary.checkpoint
    return {**load_file(place / WEIGHTS), **load_file(place / POOLER_WEIGHTS)}


def test_tower_and_pooler_learn_and_the_language_model_does_not_move(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    """The trainer's own steps, with answers that are known, since a small model's judgements are noise."""
    own = settings(**SMALL)
    job = start_job(VISION, Workspace(shop, own, Silent()))
    plan: Plan = VISION.plan(job).content
    saga, tower = make_saga(job, plan, load_judge(job, plan, Bases()))
    before = {name: each.detach().clone() for name, each in tower.named_parameters()}
    query = saga.pooler.query.detach().clone()
    trainer = VisionTrainer(plan, saga, tower, shop.runs / "x", lambda folder: None, Silent())
    trainer.create_optimizer()
    batch = next(plan.from_step(0, 0))
    assert float(trainer.gradients(None, batch, None)) > 0
    trainer.optimizer.step()
    moved = {name for name, each in tower.named_parameters() if not torch.equal(each, before[name])}
    assert moved and all(".visual." in name and ".default." in name for name in moved)
    assert not torch.equal(query, saga.pooler.query)
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.005, 0.025, 0.5]), "tower, pooler, proxies"


def test_a_run_leaves_a_checkpoint_that_says_what_it_is(shop: CatalogFolder, settings: MakeSettings) -> None:
    summary = run(shop, settings(**SMALL | PLAIN))
    manifest = Workspace(shop, settings(), Silent()).checkpoints.get(summary.checkpoint)
    assert summary.checkpoint == "vision-1" and manifest.role == "vision" and POOLER_WEIGHTS in manifest.files
    found = weights(shop, summary)
    assert all(".visual." in name for name in found if "lora" in name) and "query" in found
    assert set(summary.details["metrics"]) == {"recall@1", "recall@4"} == set(summary.details["before"])
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss", "metric"} <= set(row) for row in rows if "loss" in row)
    again = run(shop, settings(**SMALL | PLAIN))
    assert again.already_done and again.checkpoint == "vision-1"
    after = run(shop, settings(**SMALL | PLAIN | {"model.vision_checkpoint": "vision-1", "vision.name": "on"}))
    parent = Workspace(shop, settings(), Silent()).checkpoints.get(after.checkpoint)
    assert parent.parent == "vision-1", "training goes on from a vision encoder"


def test_a_killed_run_ends_with_the_same_weights_and_page(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    own = settings(**SMALL | PLAIN | {"vision.name": "whole"})
    whole = weights(shop, run(shop, own, force=True))
    (shop.checkpoints / "whole").rename(tmp_path / "whole")
    folder = plan_folder(shop, own)
    page = (folder / PAGE).read_bytes()
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    kill_once(lambda: bool(list(folder.glob("state-2*"))), lambda: run(shop, own))
    assert not (shop.checkpoints / "whole").exists()
    summary = run(shop, own)
    assert summary.resumed_from >= 1 and (folder / PAGE).read_bytes() == page
    for name, tensor in weights(shop, summary).items():
        assert torch.equal(tensor, whole[name]), name


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that counts as good enough, whose answers, of a small model noise, are rewarded by their first token."""

    def by_token(saga: Saga, pair: Pair, group: Group) -> JudgedPair:
        asked = read_answers(saga, pair, group)
        rewards = [float(answer[0] % 2) for answer in group.answers]
        read = [Adjudication(True, ((0, 3),), ((3, 9),)) for _ in group.answers]
        return dataclasses.replace(asked, rewards=rewards, read=read)

    monkeypatch.setattr(rollouts, "read_answers", by_token)
    monkeypatch.setattr("afmrl_cli.saga.run.share_of_right", lambda *_: Verdicts(180, 200, 0))


@pytest.mark.slow
@pytest.mark.usefixtures("noisy")
@pytest.mark.parametrize("losses", [PLAIN, {"vision.grpo": 0.5, "vision.anchoring": 0.5}], ids=["metric", "all"])
def test_two_processes_learn_and_choose_what_one_does(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path, losses: dict[str, float]
) -> None:
    both, own = copied(shop, tmp_path / "both"), settings(**SMALL | losses)
    one = run(shop, own)
    run_two(lambda: train_vision(Workspace(both, own, Silent())))
    two = finished(both)
    assert two.run.name == one.run.name, "without dropout any number of processes goes on with a run"
    assert two.details["pairs"] == one.details["pairs"]
    assert [path.name for path in two.run.glob("best-*")] == [path.name for path in one.run.glob("best-*")]
    assert two.details["metrics"] == pytest.approx(one.details["metrics"], abs=0.05)
    assert bool(one.details["pairs"]["differing"]) is (losses is not PLAIN)
    for found, same in zip(_losses(two), _losses(one), strict=True):
        assert found == pytest.approx(same, rel=1e-2, abs=1e-4)
    expected = weights(shop, one)
    for name, tensor in weights(both, two).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=1e-2)


def _losses(summary: TrainingSummary) -> list[dict[str, float]]:
    lines = (summary.run / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    names = ("loss", "metric", "grad_norm", "grpo", "anchoring")
    return [{name: row[name] for name in names if name in row} for row in rows]


@pytest.mark.slow
@pytest.mark.usefixtures("noisy")
def test_one_of_two_processes_is_killed_and_both_go_on(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    other, own = copied(shop, tmp_path / "other"), settings(**SMALL)
    run_two(lambda: train_vision(Workspace(shop, own, Silent())))
    kill_one(lambda: list(other.runs.glob("*/state-2")), lambda: train_vision(Workspace(other, own, Silent())))
    assert not (other.checkpoints / "vision-1").exists()
    run_two(lambda: train_vision(Workspace(other, own, Silent())))
    whole, resumed = finished(shop), finished(other)
    assert resumed.details == whole.details
    expected = weights(shop, whole)
    for name, tensor in weights(other, resumed).items():
        assert torch.equal(tensor, expected[name]), name


def plan_folder(shop: CatalogFolder, own: Settings) -> Path:
    job = start_job(VISION, Workspace(shop, own, Silent()))
    return shop.runs / f"train-vision-{VISION.plan(job).key}"


def test_a_generator_at_chance_is_refused_with_its_share(shop: CatalogFolder, settings: MakeSettings) -> None:
    with pytest.raises(ModelError) as refused:
        run(shop, settings(**SMALL | {"vision.validation_pairs": 8}))
    assert "is right about" in str(refused.value) and "chance" in str(refused.value)
    assert refused.value.hint and "sft.source=pairs" in refused.value.hint


def test_a_base_whose_tower_is_quantised_is_refused(
    shop: CatalogFolder, settings: MakeSettings, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = tiny_model("qwen2_vl")
    place = shutil.copytree(whole, tmp_path / "quantised")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["lm_head"])
    AutoModelForImageTextToText.from_pretrained(
        whole, quantization_config=config, device_map={"": "cpu"}
    ).save_pretrained(place)
    with pytest.raises(ModelError, match=r"the vision tower is quantised \(blocks\.0") as refused:
        run(shop, settings(**SMALL | PLAIN | {"model.generator": str(place)}))
    assert refused.value.hint


def test_a_language_model_in_4_bits_is_told_of_and_trained_through(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**SMALL | {"model.precision": "nf4", "vision.group": 2}), heard, dry_run=True)
    assert set(summary.details["parts"]) == {"tower", "rollouts", "replay"}
    assert any("4 bits" in note for note in heard.said)


def test_training_stops_where_no_answers_differ(shop: CatalogFolder, settings: MakeSettings) -> None:
    """All pairs trivially different, or as here none readable: there is nothing to learn from."""
    own = settings(**SMALL | {"vision.steps": 12, "vision.pairs": 1, "vision.group": 2, "vision.max_new_tokens": 16})
    folder = plan_folder(shop, own)
    folder.mkdir(parents=True)
    (folder / "judge.json").write_text('{"right": 180, "pairs": 200, "unreadable": 0}')
    with pytest.raises(DataError) as stopped:
        run(shop, own)
    assert "differ" in str(stopped.value) and stopped.value.hint


def test_a_dry_run_tells_what_each_kind_of_work_takes_and_writes_nothing(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    summary = run(shop, settings(**SMALL), dry_run=True)
    parts = summary.details["parts"]
    assert set(parts) == {"tower", "rollouts", "replay"} and all(each["seconds"] > 0 for each in parts.values())
    assert summary.estimate is not None and summary.estimate.whole_seconds > 0
    assert not shop.runs.exists() or not list(shop.runs.glob("train-vision*"))
    assert set(run(shop, settings(**SMALL | PLAIN), dry_run=True).details["parts"]) == {"tower"}


def test_batches_are_class_balanced_and_follow_from_the_seed(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings(**SMALL | PLAIN))
    stream = plan.from_step(0, 0)
    batches = [next(stream) for _ in range(12)]
    for _, _, numbers in batches:
        labels = [plan.photos.train.photos[i].label for i in numbers]
        assert len(set(numbers)) == len(numbers) and all(labels.count(label) == 2 for label in labels)
        assert len(numbers) >= plan.least_photos > 1
    epoch, at, _ = batches[5]
    assert next(plan.from_step(epoch, at)) == batches[6], "from where a state says that it stands"
    other = plan_of(shop, settings(**SMALL | PLAIN | {"vision.seed": 1}))
    assert next(other.from_step(0, 0)) != batches[0]


def test_pairs_are_half_of_one_class_and_half_near_wrong_ones() -> None:
    labels, listings = [0, 0, 0, 1, 1, 2], ["a", "a", "b", "c", "d", "e"]
    vectors = np.eye(6, dtype=np.float32)
    vectors[5] = vectors[0]  # the nearest wrong one of photo 0
    pairs = list(pairs_in_turn(labels, listings, vectors, np.random.default_rng(0)))
    assert [same for _, _, same in pairs] == [True, False] * (len(pairs) // 2)
    assert all((labels[a] == labels[b]) == same for a, b, same in pairs)
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs), "each once"
    assert not any({a, b} == {0, 1} for a, b, _ in pairs), "photos of one listing, where the class has others"
    assert {(a, b) for a, b, same in pairs if not same} & {(0, 5), (5, 0)}
    orders = [pairs_in_turn(labels, listings, vectors, np.random.default_rng(seed)) for seed in range(20)]
    first = [next(each) for each in orders]
    assert {a < b for a, b, _ in first} == {True, False}, "which stands first is sampled"
    alone = list(pairs_in_turn([0, 0, 1, 1], ["a", "a", "b", "b"], None, np.random.default_rng(0)))
    assert sum(same for _, _, same in alone) == 2, "a class of one listing has no other pairs"


def test_recall_by_class_hides_the_own_listing_where_there_are_others() -> None:
    def photo(listing: str, label: int) -> LabelledPhoto:
        return LabelledPhoto(Photo(Path("x"), (1, 1), ""), listing, listing, label)

    photos = [photo("a", 0), photo("a", 0), photo("b", 0), photo("c", 1), photo("c", 1)]
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = recall_by_class(vectors, photos)
    # a's two photos find c first (their own listing is hidden), b finds c, c's photos find each other.
    assert found == {"recall@1": pytest.approx(2 / 5), "recall@4": pytest.approx(1.0)}
    assert recall_by_class(np.ones((5, 2), dtype=np.float32), photos)["recall@1"] == 0, "equal vectors win nothing"
    assert recall_by_class(vectors[:1], photos[:1]) == {}
