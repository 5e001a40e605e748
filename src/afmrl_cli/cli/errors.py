"""One table from exception to message, hint and exit code. What is not in it is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import functools
import os
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import typer

from ..errors import AfmrlError, CheckFailed
from .output import Output

ISSUES_HINT = "this is a bug: please report it with the lines above"
DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only disk"}


def explain(error: BaseException) -> tuple[str, str, int] | None:
    """(message, hint, exit code) of a known failure, None of an unknown one."""
    if isinstance(error, AfmrlError):
        return str(error), error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "the same command goes on from here", 130
    if isinstance(error, PermissionError):
        return f"{error.filename}: no permission", "check the owner and mode of the file or folder", 3
    if isinstance(error, OSError) and error.errno in DISK:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{DISK[error.errno]}", "free some space and run the same command again: nothing is lost", 3
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return "the disk is full", "free some space and run the same command again: nothing is lost", 3
    if isinstance(error, sqlite3.DatabaseError):
        hint = "move .afmrl/afmrl.sqlite away to start afresh: attributes are then generated again"
        return f".afmrl/afmrl.sqlite: {error}", hint, 3
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory", "lower the batch size, model.max_pixels, or use a smaller model", 5
    return None


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with known failures shown in one or two lines and turned into their exit code.

    AFMRL_DEBUG=1 keeps the traceback of known failures too.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # `afmrl search ... | head`: the reader went away, which is no failure of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except BaseException as error:
            known = explain(error)
            if known is None or os.environ.get("AFMRL_DEBUG"):
                raise
            message, hint, code = known
            # A failed check has shown its result, and --json means one document.
            json_mode = bool(kwargs.get("json_mode")) and not isinstance(error, CheckFailed)
            Output(json_mode=json_mode).error(message, hint, code)
            raise typer.Exit(code) from None

    return run
