"""Several processes (torchrun, accelerate launch): each does its part of a batch, all come to the same step.

A loss over a whole batch: the vectors of all processes are gathered, and every process computes the same loss, weights
and masks included, which are computed from the batch and so stand in the same order everywhere. Its gradient with
respect to a process's own vectors is exactly that of one big batch. A loss that is a sum over examples: each process
has its examples' part of it, divided by what the whole batch holds. Either way the parameters' gradients are summed
over the processes, not averaged. What is decided, by a validation say, is decided of what all have gathered.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ModelError, UsageError

Found = TypeVar("Found")

PATIENCE = timedelta(hours=12)
"""How long processes wait for one that encodes a gallery, say; torchrun ends them when it dies."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes and talks."""
        return self.rank == 0

    @property
    def key(self) -> dict[str, int]:
        """Return what a run's key has of this: dropout differs by process. {} for one, as earlier versions had it."""
        return {"processes": self.size} if self.size > 1 else {}

    def share(self, count: int, setting: str) -> range:
        """Return this process's part of `count` things, the value of `setting`; UsageError when they can't be divided
        evenly.
        """
        if count % self.size:
            raise UsageError(
                f"{setting} = {count} can't be divided among {self.size} processes",
                f"set {setting} to a multiple of {self.size}",
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def part(self, things: Sequence[Found]) -> Sequence[Found]:
        """Return every `size`-th of some things, from this process's own on: parts of as good as one size."""
        return things[self.rank :: self.size]

    def need_one_each(self, count: int, setting: str) -> None:
        """Raise UsageError when the `count` things that `setting` asks for are fewer than the processes."""
        if count < self.size:
            raise UsageError(
                f"{setting} = {count} can't be divided among {self.size} processes",
                f"raise {setting}, or start fewer processes",
            )


def join_world() -> World:
    """Meet the other processes that torchrun started (RANK, WORLD_SIZE); alone when there are none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    return World(dist.get_rank(), size)


def leave_world(world: World) -> None:
    """Leave what `join_world` joined."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def reporting_ended(world: World) -> Iterator[None]:
    """Turn what a process meets inside the block when another one has ended into a ModelError that says so."""
    try:
        yield
    except RuntimeError as error:
        # Of gloo there is no type to know it by: its messages begin with the file in its sources.
        if world.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        hint = "its own message says why, unless it was killed; the same command goes on from the last state"
        raise ModelError("another process of this training has ended", hint) from error


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Gather [k, d] of each process -> [size * k, d] in the order of the processes, the same everywhere; no
    gradient.
    """
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_parts(rows: Tensor, count: int, world: World) -> Tensor:
    """Gather the rows [k, d] that each process made of its `World.part` of `count` things -> [count, d] in the order of
    the things, the same everywhere; no gradient.
    """
    if world.size == 1:
        return rows
    each = -(-count // world.size)
    filled = rows.new_zeros(each, *rows.shape[1:])
    filled[: len(rows)] = rows
    return gather_rows(filled, world)[[i % world.size * each + i // world.size for i in range(count)]]


def gather_objects(own: Any, world: World) -> list[Any]:
    """Return what each process gives, in their order."""
    if world.size == 1:
        return [own]
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, own)
    return found


def divided(count: int, work: Callable[[Sequence[int]], Sequence[Found]], world: World) -> list[Found]:
    """Return what `work` gives for the numbers 0 .. `count` - 1, one for each, every process doing its part."""
    parts = gather_objects(list(work(world.part(range(count)))), world)
    return [parts[i % world.size][i // world.size] for i in range(count)]


def in_turn(work: Callable[[], Found], world: World) -> Found:
    """Return what `work` gives, done by the first process before the others, which find what it has written."""
    if not world.first:
        gather_objects(None, world)
    found = work()
    if world.first:
        gather_objects(None, world)
    return found


def mean_gradients(parameters: Iterable[Tensor], world: World) -> None:
    """Replace every gradient by its mean over the processes: of losses that transformers multiplies by their number, or
    that each process divides by what it has.
    """
    if world.size == 1:
        return
    chosen = list(parameters)
    sum_gradients(chosen, world)
    for parameter in chosen:
        if parameter.grad is not None:
            parameter.grad /= world.size


def sum_gradients(parameters: Iterable[Tensor], world: World) -> None:
    """Replace every gradient by its sum over the processes."""
    if world.size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
