"""Folders of commands that trained or evaluated: resolved settings and figures, kept under the time they began."""

from __future__ import annotations

import time
from pathlib import Path

from .files import make_folder


def new_run(runs: Path, command: str) -> Path:
    """A new folder `<UTC time>-<command>` in `runs`; two commands in one second get two folders."""
    make_folder(runs)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{command}"
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder
