"""Ctrl-C between steps, so that a state can be saved before the program ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether the user asked to stop."""

    wanted: bool = False


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Stop]:
    """Stop at Ctrl-C: the first asks to stop after the step at hand, the second one stops at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.wanted = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
