"""What is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.cli.output import Output


def test_json_mode_prints_one_document_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(json_mode=True) as out:
        out.text("for people")
        out.table(["a"], [[1]])
        out.note("a note")
        out.document("afmrl.x/1", {"path": Path("a"), "score": np.float32(0.5)})
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout) == {"schema": "afmrl.x/1", "path": "a", "score": 0.5}
    assert stderr == "a note\n"


def test_quiet_keeps_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(quiet=True) as out:
        out.note("a note")
        out.progress("work", 1, 2)
        out.warn("look")
    assert capsys.readouterr().err == "warning: look\n"


def test_markup_in_data_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.table(["title"], [["[red]blouse[/red]"]])
    out.warn("[bold]x[/bold]")
    stdout, stderr = capsys.readouterr()
    assert "[red]blouse[/red]" in stdout
    assert "[bold]x[/bold]" in stderr


def test_progress_in_a_pipe_is_a_plain_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = Output()
    for done in range(100):
        now[0] += 0.2
        out.progress("embedding", done, 100)
    out.end_progress()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "embedding: 25 of 100"


def test_a_product_text_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31mred\x9b0m\u202eback\ud83d\N{NO-BREAK SPACE}é \N{WOMAN}\N{ZERO WIDTH JOINER}\N{DRESS}"
    shown = "a\ufffd[31mred\ufffd0m\ufffdback\ufffd\N{NO-BREAK SPACE}é \N{WOMAN}\N{ZERO WIDTH JOINER}\N{DRESS}"
    out = Output()
    out.text(hostile)
    out.table(["title"], [[hostile]])
    out.warn(hostile)
    stdout, stderr = capsys.readouterr()
    assert stdout.splitlines()[0] == shown
    assert stderr == f"warning: {shown}\n"
    assert not {"\x1b", "\x9b", "\u202e", "\ud83d"} & set(stdout)
