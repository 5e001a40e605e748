"""Work done by two processes side by side, as torchrun starts them, and one of them killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from afmrl_cli.errors import ModelError
from afmrl_cli.store.files import parse_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.parallel import World, join_world, leave_world
from afmrl_cli.training.shell import TrainingSummary
from tests.conftest import alone

MOST = 300.0
"""Seconds that work of some processes may take."""
NOTICED = 3
"""The exit code of a process that says that another one has ended."""
PATIENCE = 60.0
"""Seconds after which the one that is left has to have noticed."""


def run_two(work: Callable[[], object]) -> None:
    """Do `work` in two processes that find each other."""
    finish(_start(work))


def tensors_of_two(learnt: Callable[[World], dict[str, torch.Tensor]], folder: Path) -> list[dict[str, torch.Tensor]]:
    """What `learnt` gives in each of two processes, by way of files in `folder`."""

    def save() -> None:
        world = join_world()
        save_file(learnt(world), folder / f"{world.rank}.safetensors")
        leave_world(world)

    run_two(save)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


def finish(processes: Sequence[ForkProcess]) -> None:
    """Wait until all have ended well; what still waits for another one after MOST is ended."""
    end = time.monotonic() + MOST
    try:
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def kill_one(there: Callable[[], object], work: Callable[[], object]) -> None:
    """Do `work` in two processes, and end the second by SIGKILL as soon as `there()`: the first one ends by itself."""

    def noticing() -> None:
        try:
            work()
        except ModelError as error:
            assert "another process of this training has ended" in str(error)
            sys.exit(NOTICED)

    processes = _start(noticing)
    try:
        while not there() and all(process.is_alive() for process in processes):
            time.sleep(0.01)
        assert all(process.is_alive() for process in processes), "ended before one was killed"
        processes[1].kill()
        processes[0].join(PATIENCE)
        assert processes[0].exitcode == NOTICED
    finally:
        for process in processes:
            process.kill()
            process.join()


def _start(work: Callable[[], object]) -> list[ForkProcess]:
    """Forked: importing the libraries again would take longer than the work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        multiprocessing.get_context("fork").Process(target=alone, args=(_as_one_of_two, work, rank, port))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    return processes


def _as_one_of_two(work: Callable[[], object], rank: int, port: int) -> None:
    """Do `work` with the variables that torchrun would set."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # this test's own process was alone
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    work()


def finished(folder: CatalogFolder) -> TrainingSummary:
    """What the one run of a folder that is done says of itself."""
    (place,) = folder.runs.glob("*/done.json")
    done = parse_json(place.read_text())
    return TrainingSummary(place.parent, done.pop("plan"), done.pop("checkpoint"), done, seconds=done.pop("seconds"))


def copied(folder: CatalogFolder, root: Path) -> CatalogFolder:
    """The same catalog at `root`."""
    return CatalogFolder(Path(shutil.copytree(folder.root, root)) / folder.catalog.name)
