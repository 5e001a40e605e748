"""Writing that a kill can't spoil: beside the place, then renamed; and content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError

TEMPORARY_PREFIX = ".writing-"
# Made once: json.dumps makes an encoder at every call that asks for anything but its defaults.
_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def make_folder(path: Path) -> Path:
    """Make `path` and its parents; a DataError that names it when that is not allowed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: can't make this folder: {reason}", "the catalog's folder must be writable") from error
    return path


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """The user knows a file by its own name: give it to failures that name none, or a temporary one."""
    try:
        yield
    except OSError as error:
        # A full disk is that of what is written, even where a copy names what is read.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        named = error.filename is not None and TEMPORARY_PREFIX not in str(error.filename)
        if error.errno is None or (named and not full):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write a file to; renamed onto `path` at the end, removed on any error."""
    make_folder(path.parent)
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
            temporary.chmod(mode)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed onto it at the end; `path` must not exist yet."""
    make_folder(path.parent)
    with naming(path):
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    try:
        with naming(path):
            yield temporary
            for written in temporary.rglob("*"):
                if written.is_file():
                    with written.open("rb+") as file:
                        os.fsync(file.fileno())
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder` and below it; call it only while holding the folder's lock."""
    for path in list(folder.rglob(f"{TEMPORARY_PREFIX}*")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, content: Any) -> None:
    """`content` as indented UTF-8 JSON at `path`, atomically."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. DataError when the file is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        hint = "remove this file: the command that wrote it makes it again"
        raise DataError(f"{path}: damaged: {error}", hint) from error


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """SHA-256 (hex) of `content` as canonical JSON: the fingerprint of settings and of lists of fingerprints."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
