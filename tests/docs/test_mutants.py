"""`make mutants`: which faults it makes, that its table is true, and that it can tell what is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import mutants

SOURCE = '''
"""Text, 1 < 2."""
MOST, LEAST = 3, 0.5


def f(a: int = 1, *, wide: bool = False) -> int:
    """Says 1 + 1."""
    if a < 2 and not wide:
        raise ValueError(f"{a + 1} is too small")
    a += 1
    return max(a - 1, MOST)
'''


def test_the_faults_of_a_file() -> None:
    made = {(fault.old, fault.new) for fault in mutants.faults_of("x.py", SOURCE)}
    assert made == {
        ("1", "2"), ("False", "True"), ("a < 2", "(a <= 2)"), ("2", "3"), ("not wide", "(wide)"),
        ("a < 2 and not wide", "(a < 2 or not wide)"), ("a < 2 and not wide", "(not (a < 2 and (not wide)))"),
        ('raise ValueError(f"{a + 1} is too small")', "pass"), ("a += 1", "pass"), ("a - 1", "(a + 1)"),
        ("max(a - 1, MOST)", "(min(a - 1, MOST))"), ("return max(a - 1, MOST)", "return None"),
    }  # fmt: skip


def test_every_file_of_the_table_is_there_with_its_tests() -> None:
    for file, tests in mutants.TESTS.items():
        assert len(mutants.faults_of(file, (mutants.ROOT / mutants.SOURCE / file).read_text("utf-8"))) > 10, file
        assert tests and all((mutants.ROOT / test).exists() for test in mutants.tests_of(file)), tests


@pytest.mark.slow
def test_a_fault_is_noticed_and_the_project_is_left_alone() -> None:
    file: Path = mutants.ROOT / mutants.SOURCE / "scores.py"
    before = file.read_bytes()
    command = [sys.executable, "-m", "benchmarks.mutants", "--count", "1", "--only", "scores.py", "--fail-under", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(mutants.ROOT), str(mutants.ROOT / "src")])}
    done = subprocess.run(command, cwd=mutants.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 of 1 noticed (100%)") and "scores.py" in done.stderr
    assert file.read_bytes() == before
