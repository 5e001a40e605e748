"""One writer at a time in a catalog's `.afmrl`; readers need no lock, since files are renamed into place."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .files import make_folder, remove_leftovers, write_json
from .folder import check_store

_lent: set[Path] = set()
"""Stores whose lock this process holds for a command that is made of others."""


@contextlib.contextmanager
def writer_lock(store: Path, command: str, wait_seconds: float = 0.0, *, lend: bool = False) -> Iterator[None]:
    """Hold the store's lock while the block runs; the kernel releases it even after kill -9.

    `lend`: whatever asks for the same lock inside the block, in this process, goes ahead under it. Raises DataError
    naming the other writer's command and process when the lock is still taken after `wait_seconds`, and when
    something in the store is a link.
    """
    from filelock import FileLock, Timeout

    if store.resolve() in _lent:
        yield
        return
    check_store(store)
    make_folder(store)
    lock, holder = FileLock(store / "lock"), store / "lock.json"
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise DataError(
            f"{store}: {_who(holder)} is writing here", "wait for it to end, or stop it, and try again"
        ) from None
    try:
        remove_leftovers(store)
        write_json(holder, {"command": command, "pid": os.getpid(), "since": int(time.time())})
        if lend:
            _lent.add(store.resolve())
        yield
    finally:
        _lent.discard(store.resolve())
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        content = json.loads(holder.read_text("utf-8"))
        return f"{content['command']} (process {content['pid']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged, or the writer has just begun or ended
        return "another afmrl command"
