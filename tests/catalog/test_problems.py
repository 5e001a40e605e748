from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from afmrl_cli.catalog.problems import MEND, Kind, Problem, Problems, clipped
from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent


class Ear(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_every_kind_says_how_to_mend_it() -> None:
    assert set(MEND) == set(get_args(Kind))


def test_all_are_counted_and_the_first_kept_and_reported_once() -> None:
    problems, ear = Problems(keep=2), Ear()
    for row in range(2, 1002):
        problems.add(Problem("no id", row, "the id is empty"))
    problems.add(Problem("image url", 5, "a link", "image", "A"))
    problems.tell(ear)
    assert problems.counts == {"no id": 1000, "image url": 1} and problems.errors == 1000
    assert [p.row for p in problems.first("no id")] == [2, 3]
    assert len(ear.warnings) == 2
    assert ear.warnings[0].startswith("no id: row 2: the id is empty, and 999 more; give every row an id")
    assert ear.warnings[1].startswith("image url: row 5, column image (id A): a link; ")


def test_a_warning_is_never_fatal() -> None:
    problems = Problems()
    problems.report(Problem("image url", 2, "a link"), "fail", Path("c.csv"))
    with pytest.raises(DataError, match=r"c\.csv: row 3: no id"):
        problems.report(Problem("no id", 3, "the id is empty"), "fail", Path("c.csv"))
    assert problems.errors == 0  # what is raised is not reported a second time


def test_clipped() -> None:
    assert clipped("a\n b") == "a b"
    assert clipped("x" * 300, 10) == "x" * 9 + "…"
    assert len(clipped(" " * 100_000 + "x", 10)) <= 10
