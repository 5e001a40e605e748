"""The shell that every training runs in, with a method that trains nothing: a fifth one needs no more than this."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from afmrl_cli.store.training_products import training_products
from afmrl_cli.training.estimate import Estimate
from afmrl_cli.training.loop import write_metrics
from afmrl_cli.training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_training
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.training.shop import write_shop


@dataclass
class Fifth:
    """A method in the section of SFT that writes a row of metrics and keeps no step; what it did is in `done`."""

    done: list[str] = field(default_factory=list)

    def method(self) -> Method:
        return Method(
            "sft",
            "Fifth",
            "generator",
            self.plan,
            self.prepare,
            check=lambda work, corpus: None,
            trial=lambda settings: settings,
            uses=self.uses,
            samples="max_products",
            not_the_result={"name"},
        )

    def uses(self, settings: Settings) -> frozenset[str]:
        return frozenset()

    def plan(self, job: Job) -> Planned:
        settings = job.work.settings
        described: dict[str, object] = {"seed": settings.sft.seed}
        return Planned(settings, f"key{settings.sft.seed}", "data", training_products([], []), {}, described, None)

    def prepare(self, job: Job, planned: Planned, run: Path) -> Training:
        def train() -> Outcome:
            self.done.append("train")
            write_metrics(run, {"step": 1, "loss": 0.5})
            (run / "state-1").mkdir()
            return Outcome(None, {}, {"metrics": {"loss": 0.5}}, ("loss", "accuracy"), 0, 1.5)

        def measure() -> tuple[Estimate, dict[str, Any]]:
            self.done.append("measure")
            return Estimate(2**20, 0.5, 5.0), {"shares": 1}

        return Training(planned.settings, planned.description, train, measure)


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return CatalogFolder(write_shop(tmp_path / "shop", 2) / "catalog.csv")


def run(fifth: Fifth, folder: CatalogFolder, /, dry_run: bool = False, force: bool = False, **flags: object) -> Any:
    work = Workspace(
        folder, load_settings(None, {f"sft.{name}": value for name, value in flags.items()}, NANO), Silent()
    )
    summary = run_training(fifth.method(), work, dry_run=dry_run, force=force)
    assert isinstance(summary, TrainingSummary)
    return summary


def test_a_run_is_done_once_and_found_again(folder: CatalogFolder) -> None:
    fifth = Fifth()
    first = run(fifth, folder)
    assert first.run.name == "train-sft-key0" and first.checkpoint == "" and first.seconds == 1.5
    names = {path.name for path in first.run.iterdir()}
    assert names == {"settings.json", "plan.json", "metrics.jsonl", "curve.svg", "done.json"}, "no state is left"
    again = run(fifth, folder)
    assert (
        again.already_done and (again.details, again.plan) == (first.details, {"seed": 0}) and fifth.done == ["train"]
    )
    assert not run(fifth, folder, seed=1).already_done, "another key is another run"
    assert not run(fifth, folder, force=True).already_done and fifth.done == ["train"] * 3


def test_a_finished_run_of_an_earlier_version_says_nothing_of_its_plan(folder: CatalogFolder) -> None:
    first = run(Fifth(), folder)
    done = json.loads((first.run / "done.json").read_text())
    del done["plan"]
    (first.run / "done.json").write_text(json.dumps(done))
    again = run(Fifth(), folder)
    assert again.already_done and again.plan == first.plan and again.details == first.details


def test_a_dry_run_measures_and_writes_nothing(folder: CatalogFolder) -> None:
    fifth = Fifth()
    summary = run(fifth, folder, dry_run=True)
    assert summary.estimate == Estimate(2**20, 0.5, 5.0) and summary.details == {"shares": 1}
    assert fifth.done == ["measure"] and not folder.runs.exists()


def test_a_command_that_writes_is_waited_for_by_none(folder: CatalogFolder) -> None:
    with writer_lock(folder.store, "afmrl embed"), pytest.raises(DataError, match="afmrl embed"):
        run(Fifth(), folder)


def test_one_process_where_a_batch_can_not_be_shared(folder: CatalogFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="train-sft works in one process"):
        run(Fifth(), folder)


def test_a_run_whose_done_file_is_damaged_is_named(folder: CatalogFolder) -> None:
    first = run(Fifth(), folder)
    (first.run / "done.json").write_text("{")
    with pytest.raises((DataError, ModelError), match=r"done\.json"):
        run(Fifth(), folder)
