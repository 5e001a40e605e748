"""A cycle that is stopped, killed or damaged: it says so, the store stays whole, and the same figures come out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import afmrl_cli
from afmrl_cli.cli.app import app
from afmrl_cli.cli.errors import explain
from afmrl_cli.cycle.run import CycleSummary
from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import TEMPORARY_PREFIX
from afmrl_cli.store.folder import CatalogFolder

from ..conftest import MakeDisk, fill
from .shop import Heard, copied, cycle_settings, figures, rendered, run

Whole = tuple[CatalogFolder, CycleSummary]


def stray(folder: CatalogFolder) -> list[Path]:
    """What a killed writer or a half-done training would leave."""
    return [*folder.store.rglob(f"{TEMPORARY_PREFIX}*"), *folder.store.rglob("state-*")]


class Interrupting(Silent):
    """Ctrl-C in the first step of a training."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        if what == "training" and done:
            signal.raise_signal(signal.SIGINT)


def test_stopped_and_killed_it_goes_on_to_the_same_figures(whole: Whole, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(folder, Interrupting())
    known = explain(stopped.value)
    assert known and known[2] == 130 and "goes on from here" in known[1]
    assert list(folder.runs.glob("train-sft-*/state-1")) or list(folder.runs.glob("train-sft-*/*/state-1"))
    path = os.pathsep.join([str(Path(afmrl_cli.__file__).parents[1]), str(Path(__file__).parents[2])])
    program = [sys.executable, "-m", "tests.cycle.shop", str(folder.catalog)]
    process = subprocess.Popen(program, env=os.environ | {"PYTHONPATH": path})
    try:
        while process.poll() is None and not list(folder.runs.glob("train-rar-*/state-1")):
            time.sleep(0.01)
        assert process.poll() is None, "ended before RAR had saved a state"
    finally:
        process.kill()
        process.wait()
    heard = Heard()
    summary = run(folder, heard)
    assert figures(summary) == figures(whole[1])
    assert "1-agcl" not in heard.done and "1-rar" in heard.done
    names = [[manifest.name for manifest in Checkpoints(each.checkpoints).list()] for each in (folder, whole[0])]
    assert names[0] == names[1] and not stray(folder)
    assert _files(folder) == _files(whole[0])


def _files(folder: CatalogFolder) -> set[str]:
    """What lies in the store, without what is named by chance."""
    paths = (path.relative_to(folder.store) for path in folder.store.rglob("*"))
    return {path.as_posix() for path in paths if path.parts[0] not in ("embeddings", "cache")}


class Changing(Heard):
    """Somebody drops the catalog's last row while `stage` is done; Ctrl-C comes with the stage after."""

    def __init__(self, folder: CatalogFolder, text: str) -> None:
        super().__init__()
        self.folder, self.text = folder, text

    def note(self, message: str) -> None:
        super().note(message)
        if self.done == ["base-score"]:
            self.folder.catalog.write_text(self.text)
        elif self.done[-1:] == ["1-sft"]:
            raise KeyboardInterrupt


def test_the_catalog_changes_in_the_middle(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    text = folder.catalog.read_text()
    for content, times in ((text, 1), (text.rstrip("\n").rpartition("\n")[0] + "\n", 2)):
        heard = Changing(folder, content)
        shutil.rmtree(folder.store, ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            run(folder, heard)
        # The same catalog written anew changes nothing.
        assert heard.done == ["base-score"] * times + ["1-sft"]
        told = [line for line in heard.said if "the catalog was changed while base-score was being done" in line]
        assert len(told) == times - 1


def test_a_damaged_checkpoint_is_named_and_not_used(whole: Whole, tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    name = whole[1].content["ladder"][2]["embedder"]
    weights = folder.checkpoints / name / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"adapter_model.safetensors: damaged") as caught:
        run(folder)
    assert caught.value.exit_code == 4 and "remove this checkpoint" in caught.value.hint


def test_a_damaged_database_is_named_and_attributes_are_written_again(whole: Whole, tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    for path in folder.store.glob("afmrl.sqlite*"):
        path.unlink()
    folder.database.write_bytes(b"no database at all" * 300)
    flags = cycle_settings().model_dump(exclude_defaults=True)
    told = [f"--set={section}.{key}={value}" for section, each in flags.items() for key, value in each.items()]
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), *told])
    assert result.exit_code == 3 and "afmrl.sqlite" in result.stderr and "move the file away" in result.stderr
    assert folder.database.read_bytes() == b"no database at all" * 300
    folder.database.unlink()
    heard = Heard()
    assert figures(run(folder, heard)) == figures(whole[1])
    assert heard.done == ["1-attributes", "1-rar-attributes"]
    assert any("1-attributes is done again: 28 products have no stored answer" in line for line in heard.said)


def test_a_full_disk_costs_the_stage_at_hand(whole: Whole, make_disk: MakeDisk) -> None:
    size = sum(path.stat().st_size + 4096 for path in whole[0].root.rglob("*"))
    disk = make_disk(f"{size // 2**20 + 8}m")
    folder = copied(whole[0], disk / "shop")
    lost = whole[1].content["ladder"][2]["embedder"]
    shutil.rmtree(folder.checkpoints / lost)
    run_folder = folder.runs / Checkpoints(whole[0].checkpoints).get(lost).run
    shutil.rmtree(run_folder)
    ballast = fill(disk)
    with pytest.raises(Exception) as caught:
        run(folder)
    known = explain(caught.value)
    assert known and known[2] == 3 and "full" in known[0], caught.value
    assert lost not in [manifest.name for manifest in Checkpoints(folder.checkpoints).list()]
    ballast.unlink()
    heard = Heard()
    assert figures(run(folder, heard)) == figures(whole[1])
    assert heard.done == ["1-agcl"] and not stray(folder)


def test_a_clock_that_went_backwards(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    last = whole[1].run.name
    (folder.runs / last / "stages" / "1-rar-score.json").unlink()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7 * 86400)
    heard = Heard()
    summary = run(folder, heard)
    assert heard.done == ["1-rar-score"] and figures(summary) == figures(whole[1])
    assert summary.content["seconds"] >= summary.content["stage_seconds"] > 0
