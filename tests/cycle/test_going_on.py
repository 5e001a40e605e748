"""A cycle that is stopped, killed or damaged: it says so, the store stays whole, and the same figures come out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.cli.errors import explain
from afmrl_cli.cycle import report
from afmrl_cli.cycle.run import Cycle, CycleSummary
from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.page import render
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import TEMPORARY_PREFIX, read_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from ..conftest import MakeDisk, fill, kill_once
from .shop import Heard, copied, cycle_settings, metrics, rendered, run

Whole = tuple[CatalogFolder, CycleSummary]


def stray(folder: CatalogFolder) -> list[Path]:
    """What a killed writer or a half-done training would leave."""
    return [*folder.store.rglob(f"{TEMPORARY_PREFIX}*"), *folder.store.rglob("state-*")]


class Interrupting(Silent):
    """Ctrl-C in the first step of a training."""

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        if what == "training" and done:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_to_the_same_metrics(whole: Whole, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(folder, Interrupting())
    known = explain(stopped.value)
    assert known and known[2] == 130 and "goes on from here" in known[1]
    assert list(folder.runs.glob("train-sft-*/state-1")) or list(folder.runs.glob("train-sft-*/*/state-1"))
    kill_once(lambda: list(folder.runs.glob("train-rar-*/state-1")), lambda: run(folder))
    heard = Heard()
    summary = run(folder, heard)
    assert metrics(summary) == metrics(whole[1])
    assert "1-agcl" not in heard.done and "1-rar" in heard.done
    names = [[manifest.name for manifest in Checkpoints(each.checkpoints).list()] for each in (folder, whole[0])]
    assert names[0] == names[1] and not stray(folder)
    assert _files(folder) == _files(whole[0])


def _files(folder: CatalogFolder) -> set[str]:
    """What lies in the store, without what is named by chance."""
    paths = (path.relative_to(folder.store) for path in folder.store.rglob("*"))
    return {path.as_posix() for path in paths if path.parts[0] not in ("embeddings", "cache")}


class Changing(Heard):
    """The user makes a `change` while the first stage is done; Ctrl-C comes with the stage after."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self.change = change

    def note(self, message: str) -> None:
        super().note(message)
        if self.done == ["checks", "base-score"]:
            self.change()
        elif self.done[-1:] == ["1-sft"]:
            raise KeyboardInterrupt


def without_last(file: Path) -> str:
    return file.read_text().rstrip("\n").rpartition("\n")[0] + "\n"


@pytest.mark.slow
def test_what_changes_in_the_middle_is_done_again(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop")
    queries, photo = folder.root / "queries.jsonl", next((folder.root / "images").rglob("*.jpg"))
    shorter, qrels = without_last(queries), folder.root / "qrels.trec"

    gone = json.loads(queries.read_text().splitlines()[-1])["qid"]
    judged = [line for line in qrels.read_text().splitlines(True) if line.split()[0] != gone]

    def change() -> None:
        queries.write_text(shorter)
        qrels.write_text("".join(judged))
        Image.new("RGB", (56, 56)).save(photo)

    heard = Changing(change)
    with pytest.raises(KeyboardInterrupt):
        run(folder, heard)
    assert heard.done == ["checks", "base-score", "checks", "base-score", "1-sft"]
    what = "the catalog or its photos, the queries changed while base-score was being done"
    assert f"warning: {what}: what depends on it is done again" in heard.said


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "shop", 4)
    root, catalog = folder.root, folder.catalog
    for name in ("right.csv", "said.csv", "asked.txt"):
        (root / name).write_text("id,other_id,verdict\n" if name == "said.csv" else "{product}\n")
    own = {"sft.file": "right.csv", "dedupe.verdicts": ["said.csv"], "attributes.template": "asked.txt"}
    cycle = Cycle(Workspace(folder, cycle_settings(**own, **{"cycle.sft": "no"}), Silent()), dry=True)
    photo = next((root / "images").rglob("*.jpg"))
    for change, expected in (
        (lambda: [path.write_bytes(path.read_bytes()) for path in (catalog, photo)], []),
        (lambda: catalog.write_text(without_last(catalog)), ["the catalog or its photos", "the catalog's columns"]),
        (lambda: Image.new("RGB", (56, 56)).save(photo), ["the catalog or its photos"]),
        (photo.unlink, ["the catalog or its photos"]),
        (lambda: (root / "qrels.trec").write_text("q 0 d 1\n"), ["the queries"]),
        (lambda: (root / "right.csv").write_text("id,attributes\n"), ["the targets file"]),
        (lambda: (root / "said.csv").write_text("id,other_id,verdict\nL1,L2,same\n"), ["the verdicts"]),
        (lambda: (root / "asked.txt").write_text("Say: {product}\n"), ["the prompt"]),
        (lambda: None, []),
    ):
        change()
        assert cycle._changed() == expected


def test_a_damaged_checkpoint_is_named_and_not_used(whole: Whole, tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    name = whole[1].content["leaderboard"][2]["embedder"]
    weights = folder.checkpoints / name / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"adapter_model.safetensors: damaged") as caught:
        run(folder)
    assert caught.value.exit_code == 4 and "remove this checkpoint" in caught.value.hint


@pytest.mark.slow
def test_a_damaged_database_is_named_and_attributes_are_written_again(whole: Whole, tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    for path in folder.store.glob("afmrl.sqlite*"):
        path.unlink()
    folder.database.write_bytes(b"no database at all" * 300)
    flags = cycle_settings().model_dump(exclude_defaults=True)
    options = [f"--set={section}.{key}={value}" for section, each in flags.items() for key, value in each.items()]
    result = CliRunner().invoke(app, ["cycle", str(folder.catalog), *options])
    assert result.exit_code == 3 and "afmrl.sqlite" in result.stderr and "move the file away" in result.stderr
    assert folder.database.read_bytes() == b"no database at all" * 300
    folder.database.unlink()
    heard = Heard()
    assert metrics(run(folder, heard)) == metrics(whole[1])
    assert heard.done == ["1-attributes", "1-rar-attributes"]
    assert any("1-attributes is done again: 28 products have no stored answer" in line for line in heard.said)


class Filling(Heard):
    """Nothing is left of the disk when, in `stage`, the progress of `what` has come to `done`; with `what` "" when the
    stage begins.
    """

    def __init__(self, disk: Path, stage: str, what: str, done: int) -> None:
        super().__init__()
        self.disk, self.moment, self.ballast = disk, (stage, what, done), disk

    def note(self, message: str) -> None:
        super().note(message)
        self._look("", 0)

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        self._look(what, done)

    def _look(self, what: str, done: int) -> None:
        if self.ballast == self.disk and ("".join(self.done[-1:]), what, done) == self.moment:
            self.ballast = fill(self.disk)


def lose(folder: CatalogFolder, run_folder: Path, stage: str) -> None:
    """Remove what the stage has made, so that it is done again and no other."""
    result = read_json(run_folder / "stages" / f"{stage}.json")["result"]
    if "checkpoint" in result:
        shutil.rmtree(folder.checkpoints / result["checkpoint"])
        shutil.rmtree(folder.runs / result["run"])
    elif "place" in result:
        shutil.rmtree(run_folder / "scores" / result["place"])
        shutil.rmtree(folder.embeddings)
    else:
        with sqlite3.connect(folder.database) as database:
            database.execute("DELETE FROM attributes WHERE generator = ?", [result["generator"]])
        database.close()


@pytest.mark.parametrize(
    ("stage", "what", "done", "told"),
    [
        pytest.param("1-sft", "training", 1, "weights", marks=pytest.mark.slow),  # the state, written by transformers
        ("1-rar-attributes", "", 0, "afmrl.sqlite"),
        pytest.param("1-agcl", "training", 2, "best-2", marks=pytest.mark.slow),  # the adapter of the last step
        ("1-agcl-score", "embedding", 28, "embeddings"),
        pytest.param("1-agcl-score", "statistics", 0, "scores", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_costs_the_save_at_hand(
    stage: str, what: str, done: int, told: str, whole: Whole, make_disk: MakeDisk
) -> None:
    size = sum(path.stat().st_size + 4096 for path in whole[0].root.rglob("*"))
    disk = make_disk(f"{size // 2**20 + 16}m")
    folder = copied(whole[0], disk / "shop")
    lose(folder, folder.runs / whole[1].run.name, stage)
    filling = Filling(disk, stage, what, done)
    with pytest.raises(Exception) as caught:
        run(folder, filling)
    known = explain(caught.value)
    assert known and known[2] == 3 and "full" in known[0] and told in known[0], caught.value
    filling.ballast.unlink()
    heard = Heard()
    assert metrics(run(folder, heard)) == metrics(whole[1])
    assert heard.done == [stage] and not stray(folder) and _files(folder) == _files(whole[0])


ROOM = 2**17
"""Bytes for the small files that a finished cycle writes before its report."""


def test_a_full_disk_while_the_report_is_written(
    whole: Whole, make_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size + 4096 for path in whole[0].root.rglob("*"))
    disk = make_disk(f"{size // 2**20 + 2}m")
    folder = copied(whole[0], disk / "shop")
    page = folder.runs / whole[1].run.name / "report.html"
    before = page.read_text()
    ballast = fill(disk)
    os.truncate(ballast, ballast.stat().st_size - ROOM)
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        # A larger shop's page, which the room is too small for.
        patch.setattr(report, "render", lambda *names, **values: render(*names, **values) + " " * ROOM)
        run(folder)
    known = explain(caught.value)
    assert known and known[2] == 3 and "report.html" in known[0] and "full" in known[0]
    assert page.read_text() == before and not stray(folder)
    ballast.unlink()
    run(folder)
    assert page.read_text() == before


def test_a_clock_that_went_backwards(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(whole[0], tmp_path / "shop")
    last = whole[1].run.name
    (folder.runs / last / "stages" / "1-rar-score.json").unlink()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7 * 86400)
    heard = Heard()
    summary = run(folder, heard)
    assert heard.done == ["1-rar-score"] and metrics(summary) == metrics(whole[1])
    assert summary.content["seconds"] >= summary.content["stage_seconds"] > 0
