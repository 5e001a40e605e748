"""Whole runs of `train-rar` on the nano model: what they write, going on after a kill, stopping when they collapse."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from afmrl_cli.catalog.folds import Fold, Folds, Part
from afmrl_cli.errors import AfmrlError, DataError, ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.generator import load_generator
from afmrl_cli.rar import run
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.corpus import Corpus
from afmrl_cli.training.shell import TrainingSummary
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.rar.rig import add_slight, rar_settings, train
from tests.training.shop import write_shop

STARTED = {"model.generator_checkpoint": "sft", "model.embedder_checkpoint": "judge"}


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append("warning: " + message)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of 30 products with an SFT checkpoint and an embedder's, made once."""
    root = write_shop(tmp_path_factory.mktemp("template") / "shop", 30)
    for name, role in (("sft", "generator"), ("judge", "embedder")):
        add_slight(CatalogFolder(root / "catalog.csv"), rar_settings(), name, role)  # type: ignore[arg-type]
    return root


@pytest.fixture
def shop(template: Path, tmp_path: Path) -> CatalogFolder:
    shutil.copytree(template, tmp_path / "shop")
    return CatalogFolder(tmp_path / "shop" / "catalog.csv")


def rows_of(summary: TrainingSummary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]


def weights(folder: CatalogFolder, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder.checkpoints / name / "adapter_model.safetensors")
    return found


def test_a_run_writes_a_checkpoint_that_the_generator_uses(shop: CatalogFolder) -> None:
    heard = Heard()
    looking = {"rar.query": "photos", "attributes.max_new_tokens": 48, "rar.temperature": 1.0}
    chosen = rar_settings(
        **STARTED, **looking, **{"rar.margin": 1.0, "rar.learning_rate": 1e-4, "rar.steps": 2, "rar.validate_every": 2}
    )
    summary = train(Workspace(shop, chosen, heard))
    rows = rows_of(summary)
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert [row["step"] for row in rows if "eval_recall@3" in row] == [0, 2]
    assert steps[0]["kl"] == 0.0, "the reference is the policy that training starts from"
    assert steps[1]["kl"] > 0.0
    assert {"reward", "valid_share", "frac_reward_zero_std", "entropy", "completions/mean_length"} <= steps[0].keys()
    room = summary.plan["room"]
    assert isinstance(room, dict) and room["groups"] == 10 and room["answers"] == 4
    assert any(line.startswith("room: recall@3 0.") and "on average of 4 answers" in line for line in heard.said)
    assert any(line.startswith("    rewarded by rank: ") for line in heard.said)
    assert any(line.startswith("only 10 queries") for line in heard.said)
    gallery = json.loads((shop.runs / "train-rar-gallery" / "gallery.json").read_text())
    assert gallery.items() <= summary.plan.items() and gallery["k"] == 3
    names = {path.name for path in summary.run.iterdir()}
    assert {"settings.json", "plan.json", "curve.svg", "samples.json", "samples.md", "done.json"} <= names
    assert not any(name.startswith(("state-", "checkpoint-")) for name in names)
    samples = json.loads((summary.run / "samples.json").read_text())["samples"]
    assert len(samples) == 6 and all(sample["before"] and sample["photos"] for sample in samples)

    assert summary.checkpoint == "generator-1" and summary.details["metrics"]["mrr"] >= summary.details["start"]["mrr"]
    manifest = Checkpoints(shop.checkpoints).get("generator-1")
    plan = manifest.settings["plan"]
    assert manifest.parent == "sft" and "judge" in plan["embedder"] and len(plan["gallery"]) == 64
    assert {path.name for path in (shop.checkpoints / "generator-1").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "README.md",
    }, "no ref/ of TRL's"
    stored = weights(shop, "generator-1")
    assert stored and all("language_model" in name and ".ref." not in name for name in stored)
    assert any(not torch.equal(stored[name], value) for name, value in weights(shop, "sft").items())

    used = rar_settings(**{"model.generator_checkpoint": "generator-1"})
    assert "generator-1" in load_generator(used.model, used.attributes, Checkpoints(shop.checkpoints)).id
    again = train(Workspace(shop, chosen, Silent()))
    assert (
        again.already_done and again.checkpoint == "generator-1" and again.details["start"] == summary.details["start"]
    )


class InterruptedAt(Silent):
    """Ctrl-C as soon as a step has ended."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        if what == "training" and done == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_killed_or_interrupted_and_going_on_gives_the_same_weights(shop: CatalogFolder, tmp_path: Path) -> None:
    """Answers, in several chunks a step, follow from the step's number."""
    other, third = (
        CatalogFolder(Path(shutil.copytree(shop.root, tmp_path / name)) / "catalog.csv") for name in ("other", "third")
    )
    changes = {"rar.steps": 4, "rar.chunk_answers": 4, "rar.validate_every": 2}
    # So small a rate changes no held-out answer: every step is as good as the start, so that the last one is kept.
    chosen = rar_settings(**STARTED, **changes, **{"rar.margin": 1.0, "rar.learning_rate": 1e-5})
    whole = train(Workspace(shop, chosen, Silent()))

    kill_once(lambda: list(other.runs.glob("*/state-2")), lambda: train(Workspace(other, chosen, Silent())))
    assert [each.name for each in Checkpoints(other.checkpoints).list()] == ["sft", "judge"]
    resumed = train(Workspace(other, chosen, Silent()))
    assert resumed.resumed_from in (2, 4)
    assert resumed.checkpoint == whole.checkpoint and whole.checkpoint
    with pytest.raises(KeyboardInterrupt):
        train(Workspace(third, chosen, InterruptedAt(1)))
    assert [path.name for path in third.runs.glob("*/state-*")] == ["state-1"]
    stopped = train(Workspace(third, chosen, Silent()))
    assert stopped.resumed_from == 1
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name
        assert torch.equal(weights(third, stopped.checkpoint)[name], tensor), name
    timed = ("seconds/rollout", "seconds/reward", "step_time", "pictures_computed")
    both = [[{k: v for k, v in row.items() if k not in timed} for row in rows_of(each)] for each in (whole, resumed)]
    assert both[0] == both[1]
    assert (whole.run / "samples.json").read_text() == (resumed.run / "samples.json").read_text()


@pytest.mark.slow
def test_no_better_step_makes_no_checkpoint(shop: CatalogFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from afmrl_cli.rar.held_out import HeldOut, Validation

    recalls = iter([0.9, 0.8])
    validate = HeldOut.validate

    def worse(self: HeldOut) -> Validation:
        found = validate(self)
        return Validation(found.metrics | {self.main: next(recalls)}, found.answers)

    monkeypatch.setattr(HeldOut, "validate", worse)
    heard = Heard()
    chosen = rar_settings(**STARTED, **{"rar.steps": 1, "rar.margin": 0.5})
    summary = train(Workspace(shop, chosen, heard))
    assert summary.checkpoint == "" and summary.details["step"] == 0 and not summary.details["collapsed"]
    assert any("no step was as good as the start" in line for line in heard.said)
    assert train(Workspace(shop, chosen, Silent())).already_done


@pytest.mark.slow
def test_a_schema_that_is_never_satisfied(shop: CatalogFolder) -> None:
    chosen = rar_settings(**STARTED, **{"attributes.keys": {"sku": {"values": ["1", "2"]}}})
    with pytest.raises(ModelError, match="none of 6 answers is valid") as error:
        train(Workspace(shop, chosen, Silent()))
    assert error.value.exit_code == 4 and "train-sft" in error.value.hint
    assert len(Checkpoints(shop.checkpoints).list()) == 2


@pytest.mark.slow
def test_sampled_answers_that_are_never_valid(shop: CatalogFolder) -> None:
    with pytest.raises(ModelError, match=r"of those not sampled [1-9]\d*% were") as error:
        train(Workspace(shop, rar_settings(**STARTED, **{"rar.temperature": 1000.0, "rar.steps": 20}), Silent()))
    assert error.value.exit_code == 4 and "rar.temperature" in error.value.hint


def test_dry_run_trains_nothing(shop: CatalogFolder) -> None:
    summary = train(Workspace(shop, rar_settings(**{"rar.from_base": True}), Silent()), dry_run=True)
    assert summary.estimate is not None and summary.estimate.peak_bytes > 0
    assert summary.estimate.whole_seconds == pytest.approx(3 * summary.estimate.step_seconds)
    assert summary.details["spread_by_k"] and summary.plan["reference"] == "the base"
    assert not summary.run.exists() and len(Checkpoints(shop.checkpoints).list()) == 2


BAD: list[tuple[dict[str, object], type[AfmrlError], str]] = [
    ({}, ModelError, "no SFT checkpoint to start from"),
    ({"model.generator_checkpoint": "sft", "rar.from_base": True}, UsageError, "contradict each other"),
    ({"model.generator_checkpoint": "judge"}, ModelError, "belongs to the embedder"),
    ({"rar.from_base": True, "model.embedder_checkpoint": "embedder-9"}, ModelError, "no checkpoint 'embedder-9'"),
    ({"rar.from_base": True, "attributes.endpoint": "http://localhost:1"}, UsageError, "only a local generator"),
    ({"rar.from_base": True, "rar.k": 50}, DataError, "the gallery has 2[0-9] products"),
    ({"rar.from_base": True, "rar.query": "listings"}, DataError, "fewer than 5 training products"),
    ({"rar.from_base": True, "embed.enrich": "none"}, UsageError, "queries get no attributes"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(shop: CatalogFolder, changes: dict[str, object], kind: type[AfmrlError], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        train(Workspace(shop, rar_settings(**changes), Silent()))
    assert error.value.hint and "\n" not in str(error.value)


def test_the_hint_names_the_sft_checkpoint_that_there_is(shop: CatalogFolder) -> None:
    with pytest.raises(ModelError) as error:
        train(Workspace(shop, rar_settings(), Silent()))
    assert "model.generator_checkpoint=sft" in error.value.hint


def test_a_base_that_differs_from_the_checkpoints(shop: CatalogFolder, tiny_model: Any) -> None:
    changes = {"model.generator_checkpoint": "sft", "model.generator": str(tiny_model("qwen2_vl"))}
    with pytest.raises(ModelError, match="was trained on"):
        train(Workspace(shop, rar_settings(**changes), Silent()))


def test_what_changes_the_result_is_another_run() -> None:
    corpus = Corpus([], [], [], "fingerprint", 0)
    key = run._key(rar_settings(), ["generator", "embedder", "task"], corpus)
    same = {"rar.save_every": 9, "rar.name": "x", "rar.chunk_answers": 4}
    for name, value in same.items():
        assert run._key(rar_settings(**{name: value}), ["generator", "embedder", "task"], corpus) == key, name
    for name, value in {"rar.beta": 0.5, "rar.steps": 9, "rar.seed": 1, "embed.enrich": "both"}.items():
        assert run._key(rar_settings(**{name: value}), ["generator", "embedder", "task"], corpus) != key, name
    assert run._key(rar_settings(), ["another", "embedder", "task"], corpus) != key
    folds = Folds({"a": 2.0}, {"a": 3})
    asks: list[frozenset[Fold]] = [frozenset({"a"}), frozenset()]
    keys = {run._key(rar_settings(), [], corpus, Part(folds, frozenset({"a"}), ask)) for ask in asks}
    assert len(keys | {run._key(rar_settings(), [], corpus)}) == 3, "who asks is part of it"
