"""SQLite in `.afmrl/afmrl.sqlite`: attribute texts by what they were made from, and the content hashes of photos.

In WAL mode a writer never blocks readers. Every batch is one transaction, so that a kill loses at most that batch.
SQLite notices a damaged page only where its structure suffers, so that every row has a checksum: one that does not fit
counts as not stored, and is made again.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DataError
from .files import make_folder

SCHEMA_VERSION = 3
CAPTIONS = "caption-"
"""What the prompt of a row begins with whose text is a caption and holds no attributes (`recommender.captions`)."""
BUSY_SECONDS = 30.0
LOOKUP_CHUNK = 500
"""Fingerprints or paths in one query: SQLite allows 999 variables in old builds."""

ATTRIBUTES = """CREATE TABLE attributes (
        fingerprint TEXT NOT NULL, generator TEXT NOT NULL, prompt TEXT NOT NULL,
        listing TEXT NOT NULL, text TEXT NOT NULL, failure TEXT, created REAL NOT NULL, viewed INTEGER NOT NULL,
        crc32 INTEGER, confidence TEXT, PRIMARY KEY (fingerprint, generator, prompt)) WITHOUT ROWID"""
COLUMNS = "fingerprint, generator, prompt, listing, text, failure, created, viewed, confidence, crc32"
EARLIER = """SELECT fingerprint, generator, prompt, listing, text, failure, created, 0 AS viewed, NULL AS confidence,
    NULL AS crc32 FROM {} WHERE sample = 0"""
"""The rows of version 1, which had several samples in mind, did not know what a text was written from, and had no
checksums. Version 2 had no confidence."""
SCHEMA = (
    ATTRIBUTES,
    """CREATE TABLE images (
        path TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
        crc32 INTEGER) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class StoredAttributes:
    """One generated text. `fingerprint` is that of what the generator was shown (`attributes.views`), `generator` the
    model's id, `prompt` the prompt's hash, `listing` the product's id (for people), `created` seconds since 1970.
    `failure` None: `text` is valid attribute text; else the failure's name, and `text` what the model wrote. Without
    `viewed` the row is of an earlier version, under the whole product, and what the generator saw is not known.
    `confidence`: that of each pair, as attribute text (`attributes.agreement`); None where the generator gave none."""

    fingerprint: str
    generator: str
    prompt: str
    listing: str
    text: str
    failure: str | None
    created: float
    viewed: bool = True
    confidence: str | None = None


@dataclass(frozen=True, slots=True)
class StoredImageHash:
    """The SHA-256 of a photo's bytes, valid while its size (bytes) and change time (nanoseconds) stay."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    if writable:
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    # Another user's, or a read-only disk: SQLite may read it as long as it need not make the journal's files.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None)


class Database:
    """The catalog's database; made when it is not there. Use as a context manager. One that can't be written
    can be read (`writable`). What is not in it is looked for in `below`, which is only read: a shard's lies over the
    store's.

    Raises DataError when it can't be opened or was written by a newer afmrl; a damaged file raises
    sqlite3.DatabaseError, a full disk sqlite3.OperationalError (both have their message in `cli.errors`).
    """

    def __init__(self, path: Path, below: Path | None = None, *, read_only: bool = False) -> None:
        make_folder(path.parent)
        may_write = os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)
        self.writable = not path.is_file() or (may_write and not read_only)
        self._below = Database(below, read_only=True) if below is not None and below.is_file() else None
        try:
            self._connection = _connect(path, self.writable)
        except sqlite3.OperationalError as error:
            raise DataError(f"{path}: {error}", "check the owner and mode of the file and its folder") from error
        try:
            self._open(path)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, path: Path) -> None:
        try:
            version = self._version()
            if version == 0:
                self._connection.execute("PRAGMA journal_mode = WAL")
                with self._transaction():
                    if self._version() == 0:  # nobody else has made it since
                        for statement in SCHEMA:
                            self._connection.execute(statement)
                        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version == 1:
                self._from_version_1()
            elif version == 2:
                self._from_version_2()
        except sqlite3.OperationalError as error:
            if "unable to open" in str(error) or "readonly" in str(error):
                raise DataError(f"{path}: {error}", "check the owner and mode of the file and its folder") from error
            raise
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{path}: written by a newer afmrl (schema {version}, this one knows {SCHEMA_VERSION})",
                "upgrade afmrl, or move the file away to start afresh",
            )
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")  # damage must not raise
        # In WAL mode NORMAL can't damage the file; a power cut may lose the last batches, which are made again.
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def _from_version_1(self) -> None:
        """Bring a store of version 1 up to date, in one transaction; one that can't be written is read as it is."""
        if not self.writable:
            # A name in the temporary schema goes before the same one in the file.
            self._connection.execute(f"CREATE TEMP VIEW attributes AS {EARLIER.format('main.attributes')}")
            self._connection.execute("CREATE TEMP VIEW images AS SELECT *, NULL AS crc32 FROM main.images")
            return
        with self._transaction():
            if self._version() == 1:  # nobody else has done it since
                self._connection.execute("ALTER TABLE attributes RENAME TO earlier")
                self._connection.execute(ATTRIBUTES)
                self._connection.execute(f"INSERT INTO attributes ({COLUMNS}) {EARLIER.format('earlier')}")
                self._connection.execute("DROP TABLE earlier")
                self._connection.execute("ALTER TABLE images ADD COLUMN crc32 INTEGER")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _from_version_2(self) -> None:
        """Bring a store of version 2 up to date; one that can't be written is read as it is."""
        if not self.writable:
            self._connection.execute("CREATE TEMP VIEW attributes AS SELECT *, NULL AS confidence FROM main.attributes")
            return
        with self._transaction():
            if self._version() == 2:  # nobody else has done it since
                self._connection.execute("ALTER TABLE attributes ADD COLUMN confidence TEXT")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is pending, since every batch is its own transaction."""
        self._connection.close()
        if self._below is not None:
            self._below.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # after a full disk SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")
            raise

    def attributes(self, generator: str, prompt: str, fingerprints: Sequence[str]) -> dict[str, StoredAttributes]:
        """Return what is stored under these fingerprints, failures too; what is not stored is left out."""
        found = {} if self._below is None else self._below.attributes(generator, prompt, fingerprints)
        for at in range(0, len(fingerprints), LOOKUP_CHUNK):
            chunk = fingerprints[at : at + LOOKUP_CHUNK]
            rows = self._connection.execute(
                f"SELECT {COLUMNS} FROM attributes "
                f"WHERE generator = ? AND prompt = ? AND fingerprint IN ({','.join('?' * len(chunk))})",
                (generator, prompt, *chunk),
            )
            found.update((row[0], StoredAttributes(*row)) for row in _sound(rows))
        return found

    def attribute_sources(self) -> dict[str, int]:
        """Count valid attribute texts by generator, the most frequent first; captions are none."""
        rows = self._connection.execute(
            f"SELECT generator, COUNT(*) AS number FROM attributes WHERE failure IS NULL "
            f"AND prompt NOT LIKE '{CAPTIONS}%' GROUP BY generator ORDER BY number DESC, generator"
        )
        return {generator: int(number) for generator, number in rows}

    def invalid_attributes(self, generator: str) -> int:
        """Return how many answers of a generator are stored as failures."""
        query = "SELECT COUNT(*) FROM attributes WHERE generator = ? AND failure IS NOT NULL"
        return int(self._connection.execute(query, (generator,)).fetchone()[0])

    def valid_attributes(self, generator: str, prompt: str) -> list[StoredAttributes]:
        """Return all valid texts of a generator under a prompt."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM attributes WHERE generator = ? AND prompt = ? AND failure IS NULL",
            (generator, prompt),
        )
        return [StoredAttributes(*row) for row in _sound(rows)]

    def attributes_state(self, generator: str, prompt: str) -> tuple[int, float]:
        """Return how many texts a generator has stored under a prompt, and when the last one was written: what tells
        cheaply that nothing was written since.
        """
        query = "SELECT COUNT(*), COALESCE(MAX(created), 0) FROM attributes WHERE generator = ? AND prompt = ?"
        number, last = self._connection.execute(query, (generator, prompt)).fetchone()
        return int(number), float(last)

    def put_attributes(self, rows: Sequence[StoredAttributes]) -> None:
        """Store `rows` in one transaction; one with the same key (fingerprint, generator, prompt) is
        replaced."""
        with self._transaction():
            self._put_attributes(map(astuple, rows))

    def _put_attributes(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany(
            f"INSERT OR REPLACE INTO attributes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_checked, rows)
        )

    def join(self, others: Sequence[Path]) -> int:
        """Take over what the databases `others` hold, in one transaction; of texts with the same key the newest stays.

        Returns how many attribute texts they hold.
        """
        texts = 0
        key = "fingerprint = ? AND generator = ? AND prompt = ?"
        newer = f"SELECT 1 FROM attributes WHERE {key} AND created >= ?"
        with self._transaction():
            for path in others:
                with Database(path) as other:
                    for row in _sound(other._connection.execute(f"SELECT {COLUMNS} FROM attributes")):
                        texts += 1
                        if not self._connection.execute(newer, (*row[:3], row[6])).fetchone():
                            self._put_attributes([row])
                    photos = other._connection.execute("SELECT path, size, mtime_ns, sha256, crc32 FROM images")
                    self._put_image_hashes(_sound(photos))
        return texts

    def image_hashes(self, paths: Sequence[str]) -> dict[str, StoredImageHash]:
        """Return what is stored of these photos, by path; what is not stored is left out."""
        found = {} if self._below is None else self._below.image_hashes(paths)
        for at in range(0, len(paths), LOOKUP_CHUNK):
            chunk = paths[at : at + LOOKUP_CHUNK]
            rows = self._connection.execute(
                f"SELECT path, size, mtime_ns, sha256, crc32 FROM images WHERE path IN ({','.join('?' * len(chunk))})",
                chunk,
            )
            found.update((row[0], StoredImageHash(*row)) for row in _sound(rows))
        return found

    def put_image_hashes(self, rows: Sequence[StoredImageHash]) -> None:
        """Store `rows` in one transaction; a row of the same path is replaced."""
        with self._transaction():
            self._put_image_hashes(map(astuple, rows))

    def _put_image_hashes(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", map(_checked, rows))


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return `row` with its checksum at the end; a last value of None, such as no confidence, is no part of it."""
    known = row[:-1] if row[-1] is None else row
    parts = [repr(float(value) if isinstance(value, int) else value) for value in known]  # 1 comes back as 1.0
    return *row, zlib.crc32("\0".join(parts).encode("utf-8", "backslashreplace"))


def _sound(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Return the rows, without their checksum, that have the right one or none (as version 1 wrote them)."""
    return (row[:-1] for row in rows if row[-1] is None or _checked(row[:-1]) == row)
