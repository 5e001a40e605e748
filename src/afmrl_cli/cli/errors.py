"""One table from exception to message, hint and exit code. What is not in it is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from typing import Any, TextIO

import typer

from ..errors import AfmrlError, CheckFailed
from .output import Output

FREE_SPACE = "free some space and run the same command again: nothing is lost"
DATABASE = ".afmrl/afmrl.sqlite"
DATABASE_DISK_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}  # the latter: no room for the index of its journal
DATABASE_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}
DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only disk"}

OS_ERROR = re.compile(r"\(os error (\d+)\)")


def explain(error: BaseException) -> tuple[str, str, int] | None:
    """Return (message, hint, exit code) of a known failure, None of an unknown one."""
    if isinstance(error, AfmrlError):
        return str(error), error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "the same command goes on from here", 130
    if isinstance(error, PermissionError):
        return f"{error.filename}: no permission", "check the owner and mode of the file or folder", 3
    if isinstance(error, OSError) and error.errno in DISK:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{DISK[error.errno]}", FREE_SPACE, 3
    # Transformers lets safetensors write a training's state, which gives the system's error in words.
    found = OS_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    if found and int(found[1]) in DISK:
        return f"weights can't be saved: {DISK[int(found[1])]}", FREE_SPACE, 3
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {error.strerror}", "see that the path is right and the disk in order", 3
    if isinstance(error, FileNotFoundError) and not error.filename:
        return "the current folder is gone", "change into a folder that is there", 3
    if isinstance(error, sqlite3.DatabaseError):
        return *_database_failure(error), 3
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory", "lower the batch size, model.max_pixels, or use a smaller model", 5
    return None


def _database_failure(error: sqlite3.DatabaseError) -> tuple[str, str]:
    """Return (message, hint). Only for a damaged file may the hint be to move it away."""
    name = getattr(error, "sqlite_errorname", "")
    if name in DATABASE_DISK_FULL:
        return f"{DATABASE}: the disk is full", FREE_SPACE
    if name in DATABASE_DAMAGED:
        return f"{DATABASE}: {error}", "move the file away to start afresh: attributes are then generated again"
    if name.startswith("SQLITE_READONLY"):
        return f"{DATABASE}: {error}", "check the owner and mode of the file and its folder"
    return f"{DATABASE}: {error}", "see that the disk is in order, and run the same command again: nothing is lost"


def _to_nowhere(stream: TextIO) -> None:
    """Discard what is written to `stream` from now on, and what waits in it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command`: known failures are shown in one or two lines and become their exit code.

    AFMRL_DEBUG=1 keeps the traceback of known failures too.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        """Run the command; show what it raises."""
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # `afmrl search ... | head`: the reader went away, which is no failure of ours.
            _to_nowhere(sys.stdout)
            raise typer.Exit(0) from None
        except BaseException as error:
            known = explain(error)
            if known is None or os.environ.get("AFMRL_DEBUG"):
                raise
            message, hint, code = known
            unwritable = isinstance(error, OSError) and not error.filename and error.errno in DISK
            if unwritable:  # standard output itself: nothing more goes there, not even what is still waiting
                _to_nowhere(sys.stdout)
                message, hint = f"standard output: {message}", "write to a place that has room"
            # A failed check has shown its result, and --json means one document.
            json_mode = bool(kwargs.get("json_mode")) and not isinstance(error, CheckFailed) and not unwritable
            Output(json_mode=json_mode).error(message, hint, code)
            raise typer.Exit(code) from None

    # Help shows the ends of lines as they stand in a docstring; the width of a terminal is another than the code's.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    return run
