"""The measurements for a GPU, whose code runs here on the CPU with tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gpu
from benchmarks.gpu_models import SIZES, config_of
from benchmarks.gpu_tasks import STAGES, Task, run_task

ROOT = Path(__file__).parents[2]
PUBLISHED = {"qwen2_vl": 2_208_985_600, "qwen2_5_vl": 3_754_622_976, "qwen3_vl": 2_127_532_032}
"""Parameters of the hub's models, their head being the matrix of their vocabulary."""


@pytest.mark.parametrize("architecture", SIZES)
def test_the_models_are_as_large_as_the_published_ones(architecture: str) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(architecture))
    assert sum(each.numel() for each in model.parameters()) == PUBLISHED[architecture]


def test_a_measurement_finds_something(tmp_path: Path) -> None:
    task = Task("make", "", precision="fp32")
    assert run_task(task, tmp_path, tiny=True)["parameters"] > 1e6
    found = run_task(replace(task, kind="embed"), tmp_path, tiny=True)
    assert found["seconds"] > 0 and found["rate"] > 0 and found["process_gib"] > 0
    differs = run_task(replace(task, kind="equal"), tmp_path, tiny=True)
    assert max(differs[f"{way}_differs"] for way in ("batch", "prefix", "gradient")) < 1e-5


@pytest.mark.slow
def test_each_stage_is_measured(tmp_path: Path) -> None:
    task = Task("make", "", precision="fp32")
    run_task(task, tmp_path, tiny=True)
    for stage in STAGES:
        assert run_task(replace(task, kind=stage), tmp_path, tiny=True)["seconds"] > 0, stage


def row(task: Task, **more: Any) -> gpu.Row:
    return {**asdict(task), "status": "ok", **more}


def test_a_smaller_cap_is_run_only_where_it_may_matter() -> None:
    large, small = Task("embed", "", cap_gib=24), Task("embed", "", cap_gib=8)
    below = gpu.implied(small, [row(large, seconds=1.0, reserved_gib=5.0)])
    assert below is not None and below["why"] == "as under 24 GiB" and below["seconds"] == 1.0
    assert gpu.implied(small, [row(large, reserved_gib=9.0)]) is None
    assert gpu.implied(small, [row(large)]) is None  # on the CPU nothing is capped
    assert gpu.implied(small, [row(Task("attributes", "", cap_gib=24), reserved_gib=5.0)]) is None


def test_what_does_not_fit_into_the_minutes_is_named(tmp_path: Path) -> None:
    rows = list(gpu.measure(gpu.plan(), 0, tmp_path, True))
    assert {each["status"] for each in rows} == {"skipped"} and len(rows) == len(gpu.plan())
    assert {each["why"] for each in rows} == {"no time was left", "its model was not made"}
    assert "| skipped, no time was left |" in gpu.table(rows)


@pytest.mark.slow
def test_a_failure_and_one_that_is_too_slow_cost_a_row_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setattr(gpu, "unmade", lambda task, rows: False)
    tasks = [Task("embed", "nobody has made its model"), Task("make", "slow", limit_s=0.01)]
    failed, slow = gpu.measure(tasks, 2, tmp_path, True)
    assert failed["status"] == "failed" and "no such folder" in failed["why"]
    assert slow["status"] == "too slow" and "Traceback" in (tmp_path / "log-0.txt").read_text()


@pytest.mark.slow
def test_the_whole_of_it_tiny(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
    words = ["--tiny", "--only", "check,embed,against-trl", "--out", str(tmp_path / "gpu.json")]
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {each["status"] for each in rows} == {"ok"}, rows
    assert {each["kind"] for each in rows} == {"make", "check", "embed", "against-trl"}
    assert "| RAR step against stock TRL | bf16 |" in done.stdout
