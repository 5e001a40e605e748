"""The retailer's table: a file; a folder of Parquet files that stands for one (`catalog.parquet/`, as Spark and others
write it); or `catalog.parquet.url`, a file with the address of such a folder or file in a bucket (`s3://shop/catalog`),
opened by fsspec and the user's own package for it (s3fs, gcsfs, adlfs). All are read where they lie.

A bucket's content is known by its listing: names, sizes and ETags (else times). Nothing of it is read to compare it.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..errors import AfmrlError, DataError, UsageError
from ..own import is_trusted, own_file, own_settings
from .files import hash_file

SUFFIX, MAGIC = ".parquet", b"PAR1"
ADDRESS_SUFFIX, LONGEST_ADDRESS = ".parquet.url", 2048
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "fsspec",
}
"""What an address may begin with, and the package that opens it. Others of fsspec's would reach into this machine."""
STATES = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
"""Where the packages say what tells one content of an object from another, the best first."""


@dataclass(frozen=True)
class Part:
    """A Parquet file of a table: `name` within it, `file` for messages and, on this disk, to open; in a bucket `place`
    is its path for the file system `system`, and `state` what tells whether it has changed.
    """

    name: PurePosixPath
    file: Path
    system: Any = None
    place: str = ""
    size: int = 0
    state: str = ""

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open it. Raises DataError for all that goes wrong in a bucket while the block reads."""
        if self.system is None:
            with self.file.open("rb") as source:
                yield source
            return
        with _reaching(self.file), self.system.open(self.place, "rb") as source:
            yield source


def is_address(path: Path) -> bool:
    """Tell whether `path` is a file that names a table in a bucket, by its name."""
    return path.name.lower().endswith(ADDRESS_SUFFIX) and path.is_file()


def is_table_folder(path: Path) -> bool:
    """Tell whether `path` stands for a table of several files, here or in a bucket, by its name."""
    return (path.name.lower().endswith(SUFFIX) and path.is_dir()) or is_address(path)


def address_of(file: Path) -> str:
    """Return the address in a file. Raises DataError for what is none, or of another kind than PACKAGES knows."""
    try:
        with file.open("rb") as source:
            text = source.read(LONGEST_ADDRESS + 1).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    protocol, separator, rest = text.partition("://")
    if not separator or not rest or protocol not in PACKAGES or len(text.split()) != 1 or "::" in text:
        shown = f"{text[:80]!r} is " if text else ""
        hint = "it is to hold one line, such as s3://bucket/catalog.parquet (s3, gs or abfs)"
        raise DataError(f"{file}: {shown}no address of a bucket", hint)
    return text


def parts_of(table: Path) -> list[Part]:
    """Return the Parquet files of a table, in the order of their names; what begins with . or _ is none of them.

    Raises DataError for a folder without any, for a link that leads out of it, and for a bucket that can't be read.
    """
    there = _in_bucket(table) if is_address(table) else _on_disk(table)
    found = [part for part in there if not any(name.startswith((".", "_")) for name in part.name.parts)]
    if not found:
        raise DataError(f"{table}: a folder without Parquet files", "give the catalog's file, such as catalog.csv")
    return sorted(found, key=lambda part: part.name.parts)


def _on_disk(table: Path) -> Iterator[Part]:
    for file in table.rglob(f"*{SUFFIX}"):
        if file.is_file():
            inside = PurePosixPath(file.relative_to(table))
            if not file.resolve().is_relative_to(table.resolve()):
                raise DataError(f"{file}: is a link that leads out of {table.name}", "copy the file here")
            yield Part(inside, file)


def _in_bucket(table: Path) -> Iterator[Part]:
    import fsspec

    address = address_of(table)
    protocol, _, rest = address.partition("://")
    package, bucket = PACKAGES[protocol], f"{protocol}://{rest.split('/')[0]}"
    if bucket not in own_settings().allowed_hosts and not is_trusted(table.parent.resolve()):
        raise UsageError(
            f"{table}: would read {bucket[:200]} with your access: a folder can't allow that by itself",
            f"if that is what you want: allowed_hosts = [{bucket[:200]!r}] in {own_file()}",
        )
    try:
        system, root = fsspec.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{table}: {address} is opened by {package}", f"pip install {package}") from error
    with _reaching(table):
        system.invalidate_cache()
        listed = system.find(root, detail=True)
    for place, info in listed.items():
        inside = PurePosixPath(place.removeprefix(root).lstrip("/") or PurePosixPath(place).name)
        if place.endswith(SUFFIX) or place == root:
            state = next((str(info[key]) for key in STATES if info.get(key)), "")
            yield Part(inside, table / inside, system, place, int(info["size"]), state)


@contextmanager
def _reaching(file: Path) -> Iterator[None]:
    """Raise DataError for what fails in the block: each package has errors of its own for refusals and lost lines."""
    try:
        yield
    except AfmrlError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{file}: the bucket can't be read: {said}", "check the address, your access and the network"
        ) from error


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
    """Return what tells cheaply that a table has not been touched: its bytes, and when it changed last (ns); of a
    bucket's a number that follows from its listing.
    """
    if is_address(table):
        parts = parts_of(table)
        return sum(part.size for part in parts), zlib.crc32(_listing(parts))
    if not is_table_folder(table):
        status = table.stat()
        return status.st_size, status.st_mtime_ns
    states = [part.file.stat() for part in parts_of(table)]
    folders = [table.stat(), *(path.stat() for path in table.rglob("*") if path.is_dir())]
    return sum(state.st_size for state in states), max(each.st_mtime_ns for each in [*states, *folders])


def hash_of(table: Path) -> str:
    """Return SHA-256 (hex) of a table's content: of a folder, of its files' names and contents; of a bucket's, of its
    listing.
    """
    if is_address(table):
        return hashlib.sha256(_listing(parts_of(table))).hexdigest()
    if not is_table_folder(table):
        return hash_file(table)
    whole = hashlib.sha256()
    for part in parts_of(table):
        whole.update(f"{part.name}\0{hash_file(part.file)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _listing(parts: list[Part]) -> bytes:
    return "".join(f"{part.place}\0{part.size}\0{part.state}\n" for part in parts).encode("utf-8", "surrogateescape")
