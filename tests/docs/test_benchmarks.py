"""Every benchmark of the table runs, and so do its figures into the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.stages_table import table

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def result(seed: int, **rows: dict[str, float]) -> dict[str, Any]:
    """What `stages` leaves of a run: the recall@1 of two queries about each of two products, by row."""
    asked = {name: {query: [hit] * 4 for query, hit in hits.items()} for name, hits in rows.items()}
    return {
        "shop": "s",
        "seed": seed,
        "set": {},
        "phones": [],
        "identities": {"a1": "a", "a2": "a", "b1": "b", "b2": "b"},
        "rows": {name: {"test": {"queries": queries}} for name, queries in asked.items()},
    }


def test_the_table_of_stages_compares_the_same_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = {"a1": 0.0, "a2": 0.0, "b1": 1.0, "b2": 0.0}, {"a1": 1.0, "a2": 0.0, "b1": 1.0, "b2": 0.0}
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "s-0-x-losses.json"
    file.write_text(json.dumps(result(0, base=before, InfoNCE=after, **{"folds: + attributes": after})))
    table(tmp_path, "test")
    rows = {cells[0]: cells[5:8] for line in capsys.readouterr().out.splitlines() if (cells := line[2:].split(" | "))}
    assert rows["InfoNCE"] == ["base", "+25.0", "+0.0 to +50.0"]
    assert rows["folds: + attributes"] == ["folds: AGCL", "", ""]  # what it goes on from was not run
    file.write_text(json.dumps(result(0, base=before, InfoNCE={"a1": 1.0, "a2": 0.0, "b1": 1.0, "c": 0.0})))
    with pytest.raises(ValueError, match="other queries"):
        table(tmp_path, "test")


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
