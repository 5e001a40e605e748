"""Whole commands as torchrun starts them: one document, one voice, and what happens when a process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.composed.conftest import write_composed_shop
from tests.processes import MOST

from .shop import write_shop

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "afmrl_cli"]
NANO = ["--preset", "nano", "--set", "model.device=cpu", "--set", "split.validation=0.25"]
COMMANDS = {
    "train-agcl": ["--batch-size", "8", "--set", "agcl.attributes=given"],
    "train-sft": ["--batch-size", "4", "--source", "columns", "--set", "attributes.max_new_tokens=48"],
    "train-composed": ["--batch-size", "8", "--set", "triplets.attributes=given"],
    "train-vision": ["--batch-size", "8", "--grpo", "0", "--anchoring", "0", "--classes", "colour"],
}


@pytest.fixture
def shop(tmp_path: Path, command: str) -> Path:
    return (write_composed_shop if command == "train-composed" else write_shop)(tmp_path / "shop")


@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_speak_with_one_voice(shop: Path, command: str) -> None:
    words = [*TORCHRUN, command, str(shop), *NANO, *COMMANDS[command], "--steps", "2", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["schema"] == f"afmrl.{command}/1" and said["checkpoint"]
    notes = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(notes) > 2 and len(set(notes)) == len(notes), "nothing is said twice"
    rows = [json.loads(line) for line in (Path(said["run"]) / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(1, len(steps) + 1)), "nor written twice"


@pytest.mark.parametrize("command", ["train-sft"])
def test_one_dies_all_end_and_the_same_command_goes_on(shop: Path, command: str) -> None:
    words = [*TORCHRUN, command, str(shop), *NANO, *COMMANDS[command], "--steps", "12", "--set", "sft.save_every=1"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not list(shop.glob(".afmrl/runs/*/state-*")):
        time.sleep(0.05)
    os.kill(_second(running.pid), signal.SIGKILL)
    running.communicate(timeout=120)
    assert running.returncode != 0 and not list(shop.glob(".afmrl/runs/*/done.json"))
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["resumed_from"] > 0 and said["checkpoint"]


@pytest.mark.parametrize("command", ["train-composed"])
def test_a_batch_that_can_not_be_divided_names_its_setting(shop: Path, command: str) -> None:
    words = [*TORCHRUN, command, str(shop), *NANO, *COMMANDS[command], "--batch-size", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=MOST)
    assert done.returncode != 0
    assert "composed.batch_size = 1 can't be divided among 2 processes" in done.stderr


def _second(torchrun: int) -> int:
    """The process that torchrun has started as the second one."""
    for each in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        if b"\0RANK=1\0" in Path(f"/proc/{each}/environ").read_bytes():
            return int(each)
    raise AssertionError("torchrun has no second process")
