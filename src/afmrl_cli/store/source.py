"""The retailer's table on disk: a file, or a folder of Parquet files that stands for one (`catalog.parquet/`, as Spark
and others write it), which is read where it lies.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from .files import hash_file

SUFFIX, MAGIC = ".parquet", b"PAR1"


def is_table_folder(path: Path) -> bool:
    """Tell whether `path` is a folder that stands for a table, by its name."""
    return path.name.lower().endswith(SUFFIX) and path.is_dir()


def parts_of(table: Path) -> list[Path]:
    """Return the Parquet files of a folder, in the order of their names; what begins with . or _ is none of them.

    Raises DataError for a folder without any, and for a link that leads out of it.
    """
    found = []
    for file in sorted(table.rglob(f"*{SUFFIX}")):
        inside = file.relative_to(table)
        if file.is_file() and not any(name.startswith((".", "_")) for name in inside.parts):
            if not file.resolve().is_relative_to(table.resolve()):
                raise DataError(f"{file}: is a link that leads out of {table.name}", "copy the file here")
            found.append(file)
    if not found:
        raise DataError(f"{table}: a folder without Parquet files", "give the catalog's file, such as catalog.csv")
    return found


@contextmanager
def opened(table: Path) -> Iterator[BinaryIO]:
    """Open a table's file; a folder is opened as what a Parquet file begins with, its parts by who reads them."""
    if is_table_folder(table):
        parts_of(table)
        yield io.BytesIO(MAGIC)
        return
    try:
        source = table.open("rb")
    except FileNotFoundError:
        raise DataError(f"{table}: no such file", "give the catalog's file, such as catalog.csv") from None
    with source:
        yield source


def state_of(table: Path) -> tuple[int, int]:
    """Return what tells cheaply that a table has not been touched: its bytes, and when it changed last (ns)."""
    if not is_table_folder(table):
        status = table.stat()
        return status.st_size, status.st_mtime_ns
    parts = [file.stat() for file in parts_of(table)]
    folders = [table.stat(), *(path.stat() for path in table.rglob("*") if path.is_dir())]
    return sum(part.st_size for part in parts), max(each.st_mtime_ns for each in [*parts, *folders])


def hash_of(table: Path) -> str:
    """Return SHA-256 (hex) of a table's content: of a folder, of its files' names and contents."""
    if not is_table_folder(table):
        return hash_file(table)
    whole = hashlib.sha256()
    for file in parts_of(table):
        whole.update(f"{file.relative_to(table)}\0{hash_file(file)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
