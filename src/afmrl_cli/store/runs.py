"""Folders of commands that trained or evaluated: resolved settings and metrics, kept under the time they began."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from .files import make_folder, read_object, reading


def new_run(runs: Path, command: str) -> Path:
    """Return a new folder `<UTC time>-<command>` in `runs`; two commands in one second get two folders."""
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


def in_order(documents: Iterable[Path]) -> list[Path]:
    """Return the documents (JSON) of runs, the run that was begun last at the end.

    By the `number` that each holds: times of files follow a clock that may go backwards, and copying changes them.
    Documents of earlier versions have none and come first, by their times. DataError when one is damaged.
    """
    return sorted(documents, key=lambda path: (_number(path), path.stat().st_mtime))


def next_number(documents: Iterable[Path]) -> int:
    """Return the number of a run that begins now. DataError when a document is damaged."""
    return 1 + max(map(_number, documents), default=0)


def _number(document: Path) -> int:
    with reading(document):
        return int(read_object(document).get("number", 0))
