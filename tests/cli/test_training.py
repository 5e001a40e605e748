"""What the commands that train share, as it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.cli.options import Session
from afmrl_cli.cli.output import Output
from afmrl_cli.cli.training import show_estimate, show_plan
from afmrl_cli.listener import Silent
from afmrl_cli.settings import ModelSettings, Settings
from afmrl_cli.store.folder import find_folder
from afmrl_cli.training.estimate import Estimate
from afmrl_cli.workspace import Workspace


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "catalog.csv").write_text("id,title\n1,Shorts\n", "utf-8")
    return Session(
        Workspace(find_folder(tmp_path), Settings(model=ModelSettings(preset="nano")), Silent()), Output(), frozenset()
    )


@pytest.mark.parametrize(("seconds", "said"), [(69.0, "1.1 min in all"), (5400.0, "1.5 h in all")])
def test_an_estimate_is_in_minutes_or_hours_and_in_lines_of_the_terminal(
    session: Session, capsys: pytest.CaptureFixture[str], seconds: float, said: str
) -> None:
    show_estimate(session, "train-agcl", Estimate(2**30, 2.3, seconds))
    lines = capsys.readouterr().out.splitlines()
    assert said in lines[0] and "lower agcl.chunk_tokens" in " ".join(" ".join(lines).split())
    assert all(len(line) <= 80 for line in lines)


def test_a_method_without_a_formula_of_its_memory_shows_what_was_measured(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    show_estimate(session, "train-dpo", Estimate(2**30, 2.0, 60.0))
    assert capsys.readouterr().out == "measured: 2.00 s a step, 1.0 min in all; peak memory 1.00 GiB\n"


def test_names_in_a_plan_are_folded_between_them(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["accent", "belt", "closure", "colour", "length", "neckline", "pattern", "pocket", "shape", "sleeve"]
    show_plan(session, "sft", {"keys": names, "what stands before them": ""})
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [word for word in words if word in names] == names


def test_a_number_that_is_set_is_not_shown_as_the_hash_that_has_its_name_in_the_plan(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    show_plan(session, "rar", {"gallery": 32 * "ab", "k": 3})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rar.gallery", "10000"] in rows and ["gallery", "ababababab"] in rows and ["rar.k", "3"] in rows
