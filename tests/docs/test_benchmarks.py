"""Every benchmark of the table runs, and so do its figures into the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_all_of_them_tiny() -> None:
    done = run("--quick", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    content = json.loads(done.stdout)
    assert {"torch", "transformers", "faiss-cpu"} <= content["machine"]["versions"].keys()
    figures = {figure["name"]: figure for figure in content["figures"]}
    assert len(figures) == len(content["figures"]) >= 20
    for figure in figures.values():
        assert figure["ours"] > 0 or figure["name"].startswith("growth"), figure  # of tiny ones there is no slope
        assert figure["other"] is None or figure["ratio"] > 0, figure
    starts = ("check 200 rows", "attributes: batches", "embed, from JPEG", "AGCL step", "BM25", "RAR step", "dedupe")
    assert all(any(name.startswith(start) for name in figures) for start in starts)


def test_a_name_that_is_none() -> None:
    done = run("--quick", "nothing")
    assert done.returncode == 2
    assert "no such benchmark: nothing; there are start, beside" in done.stderr
