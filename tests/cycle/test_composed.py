"""Training for composed queries after the rounds: what it makes and scores, and what stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.composed.run import COMPOSED
from afmrl_cli.cycle.inputs import Inputs, read_catalog
from afmrl_cli.cycle.plan import cycle_key
from afmrl_cli.cycle.run import CycleSummary, run_cycle
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import read_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.composed.conftest import write_composed_shop
from tests.conftest import kill_once

from .shop import Heard, copied, cycle_settings, metrics, run

FLAGS: dict[str, object] = {
    "split.validation": 0.25,
    "split.test": 0.35,
    "cycle.infonce": False,
    "cycle.sft": "no",
    "rar.least_spread": 1.0,
    "rar.k": 1,
    "composed.batch_size": 8,
    "composed.steps": 2,
    "composed.validate_every": 1,
    "composed.save_every": 1,
}
WANTED: dict[str, object] = {**FLAGS, "cycle.composed": True}
Whole = tuple[CatalogFolder, CycleSummary]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A shop of variants, and its cycle without training for composed queries."""
    root = write_composed_shop(tmp_path_factory.mktemp("variants") / "shop", 4)
    folder = CatalogFolder(root / "catalog.csv")
    return folder, run(folder, **FLAGS)


@pytest.fixture(scope="module")
def made(plain: Whole, tmp_path_factory: pytest.TempPathFactory) -> tuple[CatalogFolder, CycleSummary, Heard]:
    """The same cycle gone on with when that is wanted."""
    folder, heard = copied(plain[0], tmp_path_factory.mktemp("made") / "shop"), Heard()
    return folder, run(folder, heard, **WANTED), heard


Made = tuple[CatalogFolder, CycleSummary, Heard]


def test_a_finished_cycle_goes_on_with_that_stage_alone(plain: Whole, made: Made) -> None:
    _, summary, heard = made
    assert summary.run.name == plain[1].run.name and cycle_key(cycle_settings(**FLAGS)) in summary.run.name
    own = ["composed", "composed-score"]
    tests = ["composed-test", "composed-before-test", "composed-after-test"]
    assert [name for name in heard.done if name != "checks"] == own + tests
    before, after = metrics(plain[1]), metrics(summary)
    assert after[:-1] == before and plain[1].content["composed"] is None
    assert summary.content["lineage"] == plain[1].content["lineage"]
    assert (after[-1]["name"], after[-1]["baseline"]) == ("composed", True)
