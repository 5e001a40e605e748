"""Whole runs of `train-recommender` on a tiny model: what is learnt from, what is left, going on after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from afmrl_cli.attributes.views import open_views
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.models.base import Bases
from afmrl_cli.next_item.histories import questions_of
from afmrl_cli.next_item.measure import measure
from afmrl_cli.next_item.retrieval import open_retrieval
from afmrl_cli.recommend.split import TEST
from afmrl_cli.recommender import run as module
from afmrl_cli.recommender.load import as_trained, how_trusted, load_recommender
from afmrl_cli.recommender.plan import Plan
from afmrl_cli.recommender.questions import Example
from afmrl_cli.recommender.run import RECOMMENDER, Run, train_recommender
from afmrl_cli.recommender.sft import Collator
from afmrl_cli.recommender.validation import NAMES
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import TrainingSummary, start_job
from tests.conftest import kill_once
from tests.recommender.shop import MakeSettings, recommender_settings, workspace, write_shop
from tests.training.test_run import Heard

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def settings(tiny_model: TinyModel) -> MakeSettings:
    return recommender_settings(tiny_model("qwen2_vl"))


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop")


@dataclass
class Trained:
    """A shop with a recommender, how it was trained, and what was heard; `towers` are the vision towers that were
    loaded for it, `seen` one entry for each call of one; `draws` which draw each question's candidates were."""

    shop: CatalogFolder
    summary: TrainingSummary
    heard: Heard
    towers: list[torch.nn.Module]
    seen: list[int]
    draws: list[tuple[int, int]]


@pytest.fixture(scope="module")
def trained(settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    towers, seen, draws = list[torch.nn.Module](), list[int](), list[tuple[int, int]]()
    heard, begin, drawn = Heard(), Run.__init__, Plan.drawn

    def watched(self: Run, *args: Any) -> None:
        begin(self, *args)
        towers.append(self.generator.loaded.trunk.visual)
        towers[-1].register_forward_hook(lambda *_: seen.append(1))

    def noted(self: Plan, number: int, draw_number: int) -> Example:
        draws.append((number, draw_number))
        return drawn(self, number, draw_number)

    shop = write_shop(tmp_path_factory.mktemp("trained") / "shop")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "__init__", watched)
        patched.setattr(Plan, "drawn", noted)
        summary = run(shop, settings(), heard)
    return Trained(shop, summary, heard, towers, seen, draws)


def run(folder: CatalogFolder, settings: Settings, heard: Heard | None = None, **options: bool) -> TrainingSummary:
    return train_recommender(workspace(folder, settings, heard or Heard()), **options)


def plan_of(folder: CatalogFolder, settings: Settings) -> tuple[Plan, Any]:
    job = start_job(RECOMMENDER, workspace(folder, settings))
    plan: Plan = RECOMMENDER.plan(job).content
    return plan, job


def weights(folder: CatalogFolder, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder.checkpoints / name / "adapter_model.safetensors")
    return found


def rows_of(summary: TrainingSummary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]


def test_both_stages_leave_one_checkpoint_that_ranks(trained: Trained, settings: MakeSettings) -> None:
    shop, summary = trained.shop, trained.summary
    assert summary.checkpoint == "recommender-1"
    assert summary.details["stages"].keys() == {"sft", "grpo"} and summary.details["kept"] in ("sft", "grpo")
    manifest = Checkpoints(shop.checkpoints).get("recommender-1")
    assert manifest.role == "recommender" and manifest.metrics == summary.details["metrics"]
    rows = rows_of(summary)
    grpo = [row for row in rows if row["stage"] == "grpo" and "kl" in row]
    assert [row["step"] for row in grpo] == [5, 6], "they go on from those of SFT"
    assert grpo[0]["kl"] == pytest.approx(0, abs=1e-6), "the reference is what SFT has made"
    assert (summary.run / "curve.svg").is_file() and not list(summary.run.glob("*/state-*"))
    again = run(shop, settings())
    assert again.already_done and again.checkpoint == "recommender-1"

    named = settings(**{"model.recommender_checkpoint": "recommender-1"})
    retrieval = open_retrieval(workspace(shop, named))
    asked = questions_of(retrieval.histories, TEST)[:5]
    found = load_recommender(workspace(shop, named), retrieval.fused).scores(asked)
    assert found.shape == (5, 24) and np.isfinite(found).all()
    first = np.sort(np.argsort(-retrieval.fused.scores(asked), axis=1, kind="stable")[:, :5])
    assert (np.sort(np.argsort(-found, axis=1)[:, :5]) == first).all(), "the same shortlist, in another order"


def test_candidates_are_drawn_anew_for_each_step_of_grpo_as_no_step_of_sft_has_shown_them(trained: Trained) -> None:
    shown = 4 * 4  # steps of SFT and questions in each
    assert {draw for _, draw in trained.draws} == set(range(shown)) | {shown, shown + 1}
    assert len({number for number, draw in trained.draws if draw == shown}) == 2, "two questions a step"


@pytest.mark.parametrize(("change", "kept"), [(-0.1, "sft"), (0.0, "sft"), (0.1, "grpo")])
def test_grpo_is_kept_where_it_ranks_better_than_what_it_started_from(
    change: float, kept: str, trained: Trained, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(trained.shop.root, tmp_path / "copy")
    shop = CatalogFolder(tmp_path / "copy" / "catalog.csv")
    [place] = shop.runs.glob("train-recommender-*")
    (place / "done.json").unlink()
    shutil.rmtree(shop.checkpoints)
    done = json.loads((place / "grpo" / "done.json").read_text())
    done["metrics"] = done["start"] | {"ndcg@10": done["start"]["ndcg@10"] + change}
    (place / "grpo" / "done.json").write_text(json.dumps(done))
    summary = run(shop, settings())
    assert summary.details["kept"] == kept and summary.details["metrics"] == summary.details["stages"][kept]["best"]
    best = json.loads((place / kept / "done.json").read_text())["best"]
    one, other = load_file(place / kept / best / "adapter_model.safetensors"), weights(shop, summary.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_photo_is_looked_at_in_training_and_ranking(trained: Trained) -> None:
    assert trained.towers and not trained.seen, "the vision tower ran"
    trained.towers[0](torch.zeros(4, 3 * 2 * 14 * 14), grid_thw=torch.tensor([[1, 2, 2]]))
    assert trained.seen, "the hook sees the tower"


def test_the_loss_is_of_the_answer_alone(shop: CatalogFolder, settings: MakeSettings, tmp_path: Path) -> None:
    plan, job = plan_of(shop, settings())
    training = Run(job, plan, tmp_path, Bases())
    batch = Collator(training.generator, plan)([plan[0], plan[1]])
    tokenizer = training.generator.processor.tokenizer
    for i in range(2):
        learnt = batch["labels"][i][batch["labels"][i] >= 0]
        assert tokenizer.decode(learnt) == plan.answer(plan[i]) + "<|im_end|>"
        shown = tokenizer.decode(batch["input_ids"][i])
        assert plan.question(plan[i]) in shown and shown.endswith(plan.answer(plan[i]) + "<|im_end|>")


def test_what_is_learnt_from_is_of_the_training_part_alone(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan, job = plan_of(shop, settings())
    retrieval = open_retrieval(job.work)
    training = retrieval.histories.training
    last = retrieval.histories.seconds[training].max()
    assert plan.train and all(each.seconds <= last for each in plan.train)
    assert plan.validation is not None and all(each.seconds > last for each in plan.validation.questions)


def test_a_question_has_other_candidates_in_each_epoch(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan, _ = plan_of(shop, settings(**{"recommender.steps": 100}))
    by_key: dict[str, set[tuple[str, ...]]] = {}
    for position in range(len(plan)):
        asked = plan[position]
        by_key.setdefault(asked.key, set()).add(asked.candidates)
    assert len(by_key) == len(plan.train)
    assert min(map(len, by_key.values())) > 1
    assert plan[7] == plan_of(shop, settings(**{"recommender.steps": 100}))[0][7], "the same in a second process"


def test_a_run_killed_in_either_stage_goes_on_to_the_same_weights(
    trained: Trained, shop: CatalogFolder, settings: MakeSettings
) -> None:
    kill_once(lambda: list(shop.runs.glob("train-recommender-*/sft/state-2")), lambda: run(shop, settings()))
    kill_once(lambda: list(shop.runs.glob("train-recommender-*/grpo/state-1")), lambda: run(shop, settings()))
    assert list(shop.runs.glob("train-recommender-*/sft/done.json"))
    summary = run(shop, settings())
    assert summary.resumed_from > 0
    one, other = weights(trained.shop, "recommender-1"), weights(shop, "recommender-1")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_policy_that_is_never_valid_is_an_error_with_what_it_writes(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    with pytest.raises(ModelError, match="none of the sampled answers of 3 steps is valid") as raised:
        run(shop, settings(**{"recommender.steps": 1, "recommender.grpo_steps": 5, "recommend.validation": 0.02}))
    assert "recommender.epochs" in str(raised.value.hint)


def test_reward_inflation_stops_the_run_and_says_so(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    """A ranking that never moves while every reward counts as risen."""
    plan, job = plan_of(shop, settings(**{"recommender.grpo_steps": 40, "recommender.validation_questions": 20}))
    training = Run(job, plan, tmp_path, Bases())
    training.validate = lambda: dict.fromkeys(NAMES, 0.5)  # type: ignore[method-assign]
    (tmp_path / "grpo").mkdir()
    trainer = training.grpo(tmp_path / "grpo")
    trainer.inflation.first, trainer.every = -5.0, 1
    from afmrl_cli.training.loop import train_resumably

    train_resumably(trainer, Heard(), steps_per_epoch=1.0, at_start=trainer.start)
    assert "reward inflation" in trainer.stopped and trainer.state.global_step == 2
    assert trainer.is_over({"stopped": trainer.stopped})


def test_a_dry_run_trains_nothing(shop: CatalogFolder, settings: MakeSettings) -> None:
    summary = run(shop, settings(), dry_run=True)
    assert summary.estimate is not None and summary.estimate.peak_bytes > 0
    assert summary.details["grpo_step_seconds"] > 0
    assert not list(shop.runs.glob("train-recommender-*")) and not shop.checkpoints.exists()


def test_bad_requests_are_one_message(shop: CatalogFolder, settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no recommender to start from"):
        run(shop, settings(**{"recommender.stages": "grpo"}))
    with pytest.raises(UsageError, match="'photo' is no part"):
        run(shop, settings(**{"recommender.text": "title,photo"}))
    with pytest.raises(ModelError, match="no recommender: "):
        load_recommender(workspace(shop, settings()), open_retrieval(workspace(shop, settings())).fused)
    alone = write_shop(tmp_path / "alone", customers=5, length=1)
    with pytest.raises(DataError, match="no interaction of the training part has one of the same customer before"):
        run(alone, settings())


def test_too_few_held_out_keep_the_last_step(tmp_path: Path, settings: MakeSettings) -> None:
    few, heard = write_shop(tmp_path / "few", customers=6, length=4), Heard()
    summary = run(few, settings(**{"recommender.steps": 2, "recommender.grpo_steps": 1}), heard)
    assert summary.checkpoint and not summary.details["metrics"]
    assert any("too few to choose a step by" in each for each in heard.said)


def test_a_recommender_reads_as_it_was_trained(trained: Trained, settings: MakeSettings) -> None:
    manifest = Checkpoints(trained.shop.checkpoints).get("recommender-1")
    other = settings(**{"recommender.text": "title,attributes", "recommender.history": 7, "recommender.shortlist": 9})
    found = as_trained(other, manifest).recommender
    assert (found.text, found.history, found.shortlist) == (["title"], 3, 9), "how many are ordered is the user's"


@pytest.mark.parametrize("forged", [{"history": "nine"}, {"answers": 0}, {"text": 5}, {"item_tokens": None}, None])
def test_a_manifest_that_does_not_say_how_to_read_is_told(
    forged: dict[str, object] | None, trained: Trained, settings: MakeSettings
) -> None:
    manifest = Checkpoints(trained.shop.checkpoints).get("recommender-1")
    told = manifest.settings["recommender"] | forged if forged else "all"
    with pytest.raises(ModelError, match="recommender-1: it does not say how it was trained to read"):
        as_trained(settings(), replace(manifest, settings={"recommender": told}))


@pytest.mark.parametrize(("weight", "until"), [(-0.1, 0), (1e300, 0), (0.5, "now"), (0.5, -1), (0.5, 2**80)])
def test_a_forged_weight_or_time_is_told(weight: float, until: object, trained: Trained) -> None:
    manifest = Checkpoints(trained.shop.checkpoints).get("recommender-1")
    weighed, learnt = how_trusted(manifest)
    assert weighed == manifest.metrics["weight"] and learnt == trained.summary.plan["learnt_until"]
    forged = replace(manifest, metrics={"weight": weight}, settings={"plan": {"learnt_until": until}})
    with pytest.raises(ModelError, match="recommender-1: its weight or its plan"):
        how_trusted(forged)


def test_an_evaluation_says_when_the_recommender_has_seen_its_questions(
    trained: Trained, settings: MakeSettings
) -> None:
    """The later split's questions are what the earlier one had for training."""
    named = {"model.recommender_checkpoint": "recommender-1", "eval.max_queries": 10}
    work = workspace(trained.shop, settings(**named))
    fused = open_retrieval(work).fused
    system = load_recommender(work, fused)
    later: dict[str, object] = {"recommend.validation": 0.2, "recommend.test": 0.7}
    for changed, seen in ((dict[str, object](), False), (later, True)):
        work = workspace(trained.shop, settings(**named, **changed))
        measured = measure(work, open_retrieval(work).histories, TEST, [fused, system], "fused", {})
        assert any("recommender learnt from interactions up to" in note for note in measured.content["notes"]) == seen
        assert [each["system"] for each in measured.content["systems"]] == ["fused", "recommender"]


def test_a_server_that_writes_attributes_is_no_reason_not_to_train(shop: CatalogFolder, settings: MakeSettings) -> None:
    served = {"attributes.endpoint": "http://127.0.0.1:9/v1", "attributes.endpoint_model": "m"}
    assert plan_of(shop, settings(**served))[0].train


def test_a_generators_texts_are_named_as_learnt_from_only_where_they_are_read(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    job = start_job(RECOMMENDER, workspace(shop, settings(**{"recommender.text": "title,attributes"})))
    assert RECOMMENDER.plan(job).inputs == {}, "the shop's own columns"
    [product, *_] = read_products(shop, job.work.settings.catalog, Problems())
    source = job.work.source
    with open_views(job.work, source) as views:
        [key] = views.fingerprints([product])
        row = StoredAttributes(key, source.generator, source.prompt, product.id, "colour: mauve", None, 0.0)
        views.database.put_attributes([row])
    planned = RECOMMENDER.plan(job)
    assert planned.inputs == {"attributes": source.generator}
    assert planned.content.texts.lines[0].startswith(f"{product.title}; m"), "cut to item_tokens"


@pytest.mark.parametrize("place", ["prompt", "answer"])
def test_reasoning_stands_where_it_is_set_and_nowhere_without_its_history(
    place: str, shop: CatalogFolder, settings: MakeSettings
) -> None:
    plan, _ = plan_of(shop, settings(**{"recommender.steps": 100, "reasoning.place": place}))
    plan = plan.with_reasonings(dict.fromkeys(plan.keys, "likes navy"))
    shown = [(asked, plan.question(asked), plan.answer(asked)) for asked in map(plan.__getitem__, range(len(plan)))]
    bare = [each for each in shown if not each[0].history]
    assert 0.05 < len(bare) / len(shown) < 0.15
    assert not any("likes navy" in question + answer for _, question, answer in bare)
    for asked, question, answer in shown:
        if asked.history:
            assert ("likes navy" in question, "likes navy" in answer) == (place == "prompt", place == "answer")


def test_the_run_is_in_no_cycle() -> None:
    from afmrl_cli.methods import METHODS

    assert module.RECOMMENDER.name not in METHODS
