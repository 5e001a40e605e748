"""What a step takes, for --dry-run: found by doing a part of one."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import ModelError


@dataclass(frozen=True)
class Estimate:
    """What one step was found to take: peak memory of the process and seconds; `whole_seconds` is for all steps."""

    peak_bytes: int
    step_seconds: float
    whole_seconds: float


def measure(work: Callable[[], torch.Tensor], device: torch.device, parts: float, steps: int) -> Estimate:
    """Do `work`, of which a step has `parts`, twice, since the first time warms up; `work` returns its loss.

    Raises ModelError when that is no number.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        begin = time.monotonic()
        loss = work()
        if cuda:
            torch.cuda.synchronize()
        seconds = (time.monotonic() - begin) * parts
    if not torch.isfinite(loss):
        raise ModelError("the loss is no number on the first batch", "try model.precision=fp32")
    return Estimate(peak_bytes(device), seconds, seconds * steps)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory in use so far: what torch has allocated on a GPU, the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
