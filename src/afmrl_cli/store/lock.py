"""One writer at a time in a catalog's `.afmrl`; readers need no lock, since files are renamed into place."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError, UsageError
from .files import make_folder, remove_leftovers, write_json
from .folder import check_store

POLL_SECONDS = 0.2
_lent: set[Path] = set()
"""Stores whose lock this process holds for a command that is made of others."""


class Taken(DataError):
    """The lock is held by another command."""


@contextlib.contextmanager
def writer_lock(
    store: Path, command: str, wait_seconds: float = 0.0, *, lend: bool = False, doing: str = "is writing here"
) -> Iterator[None]:
    """Hold the store's lock while the block runs; the kernel releases it even after kill -9.

    `lend`: whatever asks for the same lock inside the block, in this process, goes ahead under it. Raises Taken
    naming the other writer's command and process, and what it is `doing`, when the lock is still taken after
    `wait_seconds`, and DataError when something in the store is a link.
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
        raise Taken(f"{store}: {_who(holder)} {doing}", "wait for it to end, or stop it, and try again") from None
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


@contextlib.contextmanager
def shared_lock(store: Path, command: str, wait_seconds: float) -> Iterator[None]:
    """Hold the store's lock together with all others that hold it so; no `writer_lock` is given meanwhile.

    What the block writes must be its own. Raises as `writer_lock` does, UsageError where there are no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UsageError(f"{command}: needs locks that this system does not have", "Linux and macOS do") from None
    check_store(store)
    make_folder(store)
    end = time.monotonic() + wait_seconds
    while True:
        handle = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:  # else its holder has removed the file since it was opened
                break
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(handle)
                hint = "wait for it to end, or stop it, and try again"
                raise Taken(f"{store}: {_who(store / 'lock.json')} is writing here", hint) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(POLL_SECONDS)
    try:
        (store / "lock.json").unlink(missing_ok=True)  # of a writer that was killed
        yield
    finally:
        os.close(handle)


def _who(holder: Path) -> str:
    shards = sorted(holder.parent.glob("shards/*/*/lock.json"))
    holder = holder if holder.is_file() or not shards else shards[0]
    try:
        content = json.loads(holder.read_text("utf-8"))
        return f"{content['command']} (process {content['pid']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged, or the writer has just begun or ended
        return "another afmrl command"
