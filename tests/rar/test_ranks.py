"""`train-rar` in two processes is that in one: answers, rewards, gradients, what is kept, going on after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from afmrl_cli.errors import UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.rar.plan import make_plan
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import trainable
from afmrl_cli.training.loop import train_resumably
from afmrl_cli.training.parallel import World, join_world, leave_world
from tests.conftest import alone
from tests.processes import finish
from tests.rar.rig import ANY_ROOM, FLAGS, add_slight, make_rig, rar_settings
from tests.training.shop import write_shop

STARTED = {"model.generator_checkpoint": "sft", "model.embedder_checkpoint": "judge"}
TIMES = ("seconds/rollout", "seconds/reward", "step_time", "pictures_computed")
"""What differs from run to run; each process computes its own pictures."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of 30 products; nano adapters "sft" and "judge"."""
    root = write_shop(tmp_path_factory.mktemp("ranks") / "shop", 30)
    for name, role in (("sft", "generator"), ("judge", "embedder")):
        add_slight(CatalogFolder(root / "catalog.csv"), rar_settings(), name, role)  # type: ignore[arg-type]
    return root


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradient that the optimiser gets."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.found = {name: each.grad.clone() for name, each in trainable(model).items() if each.grad is not None}


def save_step(folder: CatalogFolder, settings: Settings, run: Path, place: dict[str, str]) -> None:
    """Do one step as one of several processes; `place` are the variables that torchrun would set."""
    os.environ |= place
    world = join_world()
    own = run / "first" if world.first else run / "other"
    trainer = make_rig(folder, settings, own, world=world).trainer
    gradients = Gradients()
    trainer.add_callback(gradients)
    train_resumably(trainer, Silent(), steps_per_epoch=trainer.steps_per_epoch, at_start=trainer.start)
    assert trainer.own.numbers == [trainer.rollouts.numbers[i] for i in world.share(2, "rar.prompts")]
    save_file(gradients.found, own / "gradients.safetensors")
    leave_world(world)


def step(folder: CatalogFolder, settings: Settings, run: Path, processes: int) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of a run of one step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    places = [place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    # Forked: importing the libraries again takes longer than the step.
    started = [
        multiprocessing.get_context("fork").Process(target=alone, args=(save_step, folder, settings, run, each))
        for each in places
    ]
    for process in started:
        process.start()
    finish(started)
    assert not (run / "other" / "metrics.jsonl").exists(), "the first process writes"
    return rows_of(run / "first")


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


slow = pytest.mark.slow


@pytest.mark.parametrize("loss", ["dr_grpo", *(pytest.param(each, marks=slow) for each in ("grpo", "dapo", "pairs"))])
def test_a_step_of_two_processes_is_that_of_one(template: Path, tmp_path: Path, loss: str) -> None:
    """Held-out metrics, what was sampled and got as reward, loss, KL, and the gradient in both."""
    chosen = rar_settings(**STARTED, **{"rar.loss": loss, "rar.steps": 1, "rar.chunk_answers": 2, "rar.margin": 1.0})
    folder = CatalogFolder(template / "catalog.csv")
    expected, found = (step(folder, chosen, tmp_path / str(number), number) for number in (1, 2))
    assert len(expected) == len(found) == 3 and expected[1]["reward_std"] > 0
    for ours, row in zip(found, expected, strict=True):
        assert ours == pytest.approx(row, rel=1e-4, abs=1e-6)
    gradients = load_file(tmp_path / "1" / "first" / "gradients.safetensors")
    for process in ("first", "other"):
        own = load_file(tmp_path / "2" / process / "gradients.safetensors")
        assert own.keys() == gradients.keys()
        for name, slope in gradients.items():
            assert slope.norm() > 0 and (own[name] - slope).norm() <= 1e-4 * slope.norm(), name


def test_queries_that_processes_can_not_share_evenly(template: Path, tmp_path: Path) -> None:
    """As set, or because there are no more of them."""
    rig = make_rig(CatalogFolder(template / "catalog.csv"), rar_settings(**STARTED), tmp_path)
    for changes in ({"rar.prompts": 9}, {"rar.prompts": 12, "rar.queries": 9}):
        train = rig.plan.environments.train.under(rar_settings(**STARTED, **changes))
        with pytest.raises(UsageError, match=r"rar\.prompts = 9 can't be divided among 2 processes"):
            make_plan(replace(rig.plan.environments, train=train), ANY_ROOM, rig.plan.base, None, "", world=World(0, 2))


def torchrun(root: Path, processes: int) -> subprocess.Popen[str]:
    """The whole command, four steps."""
    own = {"rar.steps": 4, "rar.validate_every": 2, "rar.margin": 1.0, "rar.learning_rate": 1e-5, "rar.prompts": 4}
    sets = [word for name, value in (FLAGS | STARTED | own).items() for word in ("--set", f"{name}={value}")]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "afmrl_cli"]
    command = [sys.executable, *run, "train-rar", str(root), *sets, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(root: Path, processes: int) -> tuple[Path, dict[str, Any]]:
    """(the run's folder, what the command says) of a run to its end."""
    process = torchrun(root, processes)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    said = json.loads(out)
    [run] = (root / ".afmrl" / "runs").glob("train-rar-*/done.json")
    return run.parent, said


def kill_one_process(root: Path) -> None:
    """End the second of two processes by SIGKILL as soon as there is a state."""
    process = torchrun(root, 2)
    while process.poll() is None and not list((root / ".afmrl" / "runs").glob("*/state-2")):
        time.sleep(0.01)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {Path(f"/proc/{each}/environ").read_bytes().split(b"\0RANK=")[1][:1]: int(each) for each in workers}
    os.kill(ranks[b"1"], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0


@slow
def test_the_command_by_torchrun_in_two_processes_and_one_of_them_killed(template: Path, tmp_path: Path) -> None:
    roots = {name: Path(shutil.copytree(template, tmp_path / name)) for name in ("one", "two", "killed")}
    one, expected = finished(roots["one"], 1)
    two, said = finished(roots["two"], 2)
    kill_one_process(roots["killed"])
    assert list((roots["killed"] / ".afmrl" / "runs").glob("*/state-*")), "what it goes on from"
    killed, resumed = finished(roots["killed"], 2)
    assert resumed["resumed_from"] in (2, 3, 4)
    assert expected["checkpoint"] == said["checkpoint"] == resumed["checkpoint"] == "generator-1"
    assert expected["step"] == said["step"] == resumed["step"]
    assert rows_of(two) == rows_of(killed), "bit for bit"
    for ours, row in zip(rows_of(two), rows_of(one), strict=True):
        assert ours == pytest.approx(row, rel=1e-3, abs=1e-5)
    start, first, second, third = (weights(root, name) for root, name in learnt(roots))
    for name, tensor in second.items():
        assert torch.equal(third[name], tensor), name
        moved = (first[name] - start[name]).norm()
        assert (first[name] - tensor).norm() <= 0.02 * moved, name


def learnt(roots: dict[str, Path]) -> list[tuple[Path, str]]:
    return [(roots["one"], "sft"), *((root, "generator-1") for root in roots.values())]


def weights(root: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(root / ".afmrl" / "checkpoints" / name / "adapter_model.safetensors")
    return found
