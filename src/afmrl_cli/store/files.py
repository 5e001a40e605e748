"""Writing that a kill can't spoil: beside the place, then renamed; and content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError

TEMPORARY_PREFIX = ".writing-"
FILES, SEAL = "files", "seal"
CHUNK = 1 << 20
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
    """Give the user's own name of a file to failures that name none, or a temporary one."""
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
    """Yield a temporary path beside `path` to write a file to; renamed onto `path` at the end, removed on any error."""
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
    """Yield a temporary folder beside `path`, renamed onto it at the end; `path` must not exist yet."""
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
    """Write `content` as indented UTF-8 JSON at `path`, atomically."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Return what `write_json` wrote. DataError when the file is damaged."""
    try:
        return parse_json(path.read_text("utf-8"))
    except ValueError as error:
        hint = "remove this file: the command that wrote it makes it again"
        raise DataError(f"{path}: damaged: {error}", hint) from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that `write_json` wrote. DataError when the file is damaged or holds anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        hint = "remove this file: the command that wrote it makes it again"
        raise DataError(f"{path}: damaged: not a JSON object", hint)
    return content


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a document that is not what we wrote leads to (no such key, another type) into a DataError that names
    the file or folder."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        said = f"{type(error).__name__} {error}"[:200]
        raise DataError(f"{path}: damaged: {said}", "remove it: the command that wrote it makes it again") from error


def parse_json(text: str | bytes) -> Any:
    """Parse as json.loads does, but raise ValueError for all that is no JSON that anybody writes, nesting without end
    included.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sealed(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return `content` for the file that describes `folder`, with the checksums of the other files there and
    its own.
    """
    sums = content.get(FILES) or {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.is_file()}
    whole = {**content, FILES: sums}
    whole.pop(SEAL, None)
    return {**whole, SEAL: hash_json(whole)[:16]}


def find_damage(content: Mapping[str, Any], folder: Path) -> str:
    """Return what differs in `folder` from what `sealed` has written down, "" when nothing does."""
    if content.get(SEAL) != hash_json({key: value for key, value in content.items() if key != SEAL})[:16]:
        return "what describes them is not what was stored"
    for name, expected in content[FILES].items():
        path = folder / Path(name).name
        if not path.is_file():
            return f"{path.name} is missing"
        if checksum(path) != expected:
            return f"{path.name} is not what was stored"
    return ""


def checksum(path: Path) -> int:
    """Return CRC-32 of a file's bytes: tells damage, at a gigabyte a second, and no malice."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def hash_file(path: Path) -> str:
    """Return SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """Return SHA-256 (hex) of `content` as canonical JSON: the fingerprint of settings and of lists of fingerprints."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
