"""The index in a folder: Qdrant's own engine in this process (qdrant-edge), one process at a time.

    my-index/index.json        the mark of the folder, and the name of the collection that counts
    my-index/lock, lock.json   as in a catalog's store
    my-index/<version>/        card.json, and the engine's files in shard/

The engine writes through mapped memory, where a full disk would end this process with no word: whether there is room is
checked before each step.

What has been written survives `kill -9` by the engine's own log; a collection that was never finished is gone on with.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from ..errors import DataError, ModelError, UsageError
from ..listener import Listener
from ..store.files import TEMPORARY_PREFIX, make_folder, read_object, write_json
from ..store.folder import STORE_NAME
from ..store.lock import writer_lock
from .card import FAMILY, PUSH_HINT, SCHEMA, Card, Unreadable, read_card
from .conditions import Condition
from .engine import BUILD_EFFORT, EXACT_KB, LINKS, Near, near_in, numbers_in, prints_in
from .points import NUMBERS, PRINT, TAGS, Numbers

MARK, CARD, SHARD = "index.json", "card.json", "shard"
OWN = {MARK, "lock", "lock.json"}
"""What a push that was killed may leave beside collections and temporary files."""
VERSION = re.compile(r"[0-9a-f]{12}")
PAGE = 10_000
WAIT_SECONDS = 10.0
"""For another search: each holds the folder for as long as it takes."""
ROOM = 128 * 2**20
"""Bytes that the engine may take at a step for its log and the next pages of its files."""
BYTES_A_NUMBER, BYTES_A_POINT = 16, 2048
"""About what a stored number of a vector, and all else of a point, take on disk while the index is built."""
FULL = re.compile(r"no space left|os error 28|disk quota|os error 122", re.IGNORECASE)
_CONDITIONS = ("must", "should", "must_not")


@contextlib.contextmanager
def open_folder(place: Path, command: str, root: Path) -> Iterator[Folder]:
    """Hold the index in the folder `place`. Raises Taken while another process holds it, UsageError for a folder that
    is something else.
    """
    place, searching = place.absolute(), command == "afmrl search"
    _check_place(place, root)
    if searching and not (place / MARK).is_file():
        raise ModelError(f"{place}: no index here", PUSH_HINT)
    with writer_lock(place, command, WAIT_SECONDS, doing="is using it"):
        folder = Folder(place)
        try:
            yield folder
        finally:
            folder.close()


def _check_place(place: Path, root: Path) -> None:
    """Raise UsageError unless `place` is an index, empty, or not there yet."""
    resolved, hint = place.resolve(), "give a folder of its own"
    if resolved == root.resolve() or root.resolve() / STORE_NAME in (resolved, *resolved.parents):
        raise UsageError(f"{place}: belongs to the catalog", hint)
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place}: is a file", hint)
    if place.is_dir() and not _is_ours(place):
        raise UsageError(f"{place}: holds other files", hint)


def _is_ours(place: Path) -> bool:
    """Tell whether a folder has the mark of an index, or, where that is missing or damaged, holds nothing else."""
    if (place / MARK).is_file():
        with contextlib.suppress(DataError):
            return str(read_object(place / MARK).get("schema")).startswith(FAMILY)
    paths = list(place.iterdir())
    collections = {path for path in paths if _is_collection(path)}
    others = {path for path in paths if path.name not in OWN and not path.name.startswith(TEMPORARY_PREFIX)}
    return others <= collections and (bool(collections) or not (place / MARK).exists())


def _is_collection(path: Path) -> bool:
    """Tell whether a folder is a collection of an index, and nothing else."""
    if not VERSION.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    return all(each.name in (CARD, SHARD) or each.name.startswith(TEMPORARY_PREFIX) for each in path.iterdir())


class Folder:
    """An index in a folder; see `engine.Engine`."""

    def __init__(self, place: Path) -> None:
        self.place, self.shown = place, str(place)
        self._version = ""
        self._shard: Any = None

    @property
    def _own(self) -> Path:
        return self.place / self._version

    def mark(self, version: str) -> None:
        """Name the collection that counts."""
        write_json(self.place / MARK, {"schema": SCHEMA, "current": version})

    def close(self) -> None:
        """Let go of the engine's files."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def open(self) -> Card | None:
        """Open the collection that counts; None where there is none."""
        mark = self._read(MARK)
        if mark is None:
            if self._versions():
                raise Unreadable(f"{self.place / MARK}: is missing", PUSH_HINT)
            return None
        if mark.get("schema") != SCHEMA:
            read_card(mark, self.shown)
        version = mark.get("current")
        if version == "":
            return None
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            raise Unreadable(f"{self.place / MARK}: names no collection", PUSH_HINT)
        content = self._read(f"{version}/{CARD}")
        if content is None:
            raise Unreadable(f"{self.place / version / CARD}: is missing", PUSH_HINT)
        card = read_card({"schema": SCHEMA, **content}, self.shown)
        self._version = version
        self._load()
        return card

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a file of ours, None where it is not there. Unreadable where it is damaged."""
        try:
            return read_object(self.place / name)
        except FileNotFoundError:
            return None
        except DataError as error:
            raise Unreadable(str(error), PUSH_HINT) from error

    def _versions(self) -> list[str]:
        """Return the names of all collections, the one that counts first where that is known."""
        current = ""
        with contextlib.suppress(Unreadable):
            current = str((self._read(MARK) or {}).get("current"))
        return sorted((path.name for path in self.place.iterdir() if _is_collection(path)), key=lambda v: v != current)

    def there(self) -> Numbers | None:
        """Return the numbers of the points of what counts, or where that is not known of one that was begun; None where
        they can't be read.
        """
        try:
            versions = self._versions()
            if not versions:
                known = (self._read(MARK) or {}).get("schema") in (None, SCHEMA)
                return np.array([], dtype=np.uint64) if known else None
            self._version = versions[0]
            self._load()
            return numbers_in(self._points())
        except ModelError:
            return None
        finally:
            self.close()
            self._version = ""

    def prepare(self, card: Card) -> None:
        """Open the collection of `card.version`, made where there is none."""
        if self._shard is not None and self._version == card.version:
            return
        self.close()
        self._version = card.version
        if not self._goes_on():
            shutil.rmtree(self._own, ignore_errors=True)
            self._check_room(card.count * (card.dimension * BYTES_A_NUMBER + BYTES_A_POINT))
            make_folder(self._own / SHARD)
            with _naming_failures(self.place):
                vectors = edge.EdgeVectorParams(size=card.dimension, distance=edge.Distance.Cosine)
                graph = edge.HnswIndexConfig(m=LINKS, ef_construct=BUILD_EFFORT, full_scan_threshold=EXACT_KB)
                config = edge.EdgeConfig(vectors=vectors, hnsw_config=graph)
                self._shard = edge.EdgeShard.create(str(self._own / SHARD), config)
                tags = edge.KeywordIndexParams(prefix=True, enable_hnsw=False)
                self._shard.update(edge.UpdateOperation.create_field_index(TAGS, tags))
                self._shard.flush()
            self.write_card(card)
            if not (self.place / MARK).is_file():
                self.mark("")

    def _goes_on(self) -> bool:
        """Load the collection that was begun; False where there is none, or nothing that can be gone on with."""
        if not (self._own / CARD).is_file():  # without one it was killed while it was made
            return False
        try:
            self._load()
        except ModelError:
            if self._is_current():
                raise
            return False
        return True

    def _is_current(self) -> bool:
        with contextlib.suppress(Unreadable):
            return (self._read(MARK) or {}).get("current") == self._version
        return False

    def _load(self) -> None:
        self.close()
        with _naming_failures(self.place):
            self._shard = edge.EdgeShard.load(str(self._own / SHARD))

    def index(self, fields: Sequence[str]) -> None:
        """Have the numbers of `fields` indexed."""
        with _naming_failures(self.place):
            there = self._shard.info().payload_schema
            for name in (f"{NUMBERS}.{field}" for field in fields):
                if name not in there:
                    floats = edge.FloatIndexParams(enable_hnsw=False)
                    self._shard.update(edge.UpdateOperation.create_field_index(name, floats))

    def held(self) -> tuple[Numbers, Numbers]:
        """Return numbers and prints of all points [n], by number. ModelError where some are not afmrl's."""
        return prints_in(self._points(), self.shown)

    def _points(self) -> Iterator[Any]:
        offset = None
        while True:
            with _naming_failures(self.place):
                request = edge.ScrollRequest(offset=offset, limit=PAGE, with_payload=[PRINT])
                records, offset = self._shard.scroll(request)
            yield from records
            if offset is None:
                return

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""
        self._check_room(vectors.nbytes * BYTES_A_NUMBER // 4 + len(numbers) * BYTES_A_POINT)
        points = [
            edge.Point(id=int(number), vector=vector, payload=payload)
            for number, vector, payload in zip(numbers, vectors, payloads, strict=True)
        ]
        with _naming_failures(self.place):
            self._shard.update(edge.UpdateOperation.upsert_points(points))

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""
        with _naming_failures(self.place):
            self._shard.update(edge.UpdateOperation.delete_points([int(number) for number in numbers]))

    def finish(self, listener: Listener) -> None:
        """Build the engine's own index of all points, and wait until they are on disk."""
        listener.progress("indexing", 0, None)
        self._check_room(self.disk())  # parts are written anew before the old ones go
        with _naming_failures(self.place):
            self._shard.optimize()
            self._shard.flush()

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""
        write_json(self._own / CARD, card.describe())

    def replace(self) -> None:
        """Let the collection count from now on, and remove the others."""
        self.mark(self._version)
        for path in list(self.place.iterdir()):
            if path.name != self._version and _is_collection(path):
                shutil.rmtree(path)

    def count(self, condition: Condition | None = None) -> int:
        """Count the points that fulfil a condition."""
        with _naming_failures(self.place):
            return int(self._shard.count(edge.CountRequest(exact=True, filter=filter_of(condition))))

    def nearest(
        self,
        vector: NDArray[np.float32],
        k: int,
        condition: Condition | None = None,
        effort: int = 0,
        payload: bool = True,
    ) -> list[Near]:
        """Return the k points nearest to `vector` [d] that fulfil a condition, best first; `effort` is HNSW's ef."""
        acorn = None if condition is None else edge.AcornSearchParams(enable=True, max_selectivity=1.0)
        with _naming_failures(self.place):
            request = edge.QueryRequest(
                limit=k,
                query=edge.Query.Nearest(np.ascontiguousarray(vector, dtype=np.float32)),
                filter=filter_of(condition),
                with_payload=payload,
                params=edge.SearchParams(hnsw_ef=effort or None, acorn=acorn),
            )
            return near_in(self._shard.query(request))

    def point(self, number: int) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """Return vector and payload of a point."""
        with _naming_failures(self.place):
            found = self._shard.retrieve([number], with_payload=True, with_vector=True)
        return (np.array(found[0].vector, dtype=np.float32), found[0].payload or {}) if found else None

    def _check_room(self, needed: int) -> None:
        """Raise DataError unless `needed` bytes, and ROOM, are free."""
        needed, free = needed + ROOM, shutil.disk_usage(self.place).free
        if free < needed:
            raise DataError(
                f"{self.place}: {free / 2**20:,.0f} MiB are free, about {needed / 2**20:,.0f} MiB are needed",
                "free some space and run the same command again: what was written stays",
            )

    def disk(self) -> int:
        """Return the bytes that the collection takes on disk: the engine's files have holes."""
        files = (path.stat() for path in self._own.rglob("*") if path.is_file())
        return sum(getattr(each, "st_blocks", each.st_size // 512) * 512 for each in files)


def filter_of(condition: Condition | None) -> Any:
    """Return a condition as the engine's own filter."""
    if condition is None:
        return None
    return edge.Filter(**{name: [_one(each) for each in condition[name]] for name in _CONDITIONS if name in condition})


def _one(condition: Condition) -> Any:
    if "has_id" in condition:
        return edge.HasIdCondition({int(number) for number in condition["has_id"]})
    if "range" in condition:
        return edge.FieldCondition(condition["key"], range=edge.RangeFloat(**condition["range"]))
    if "match" in condition:
        [(kind, value)] = condition["match"].items()
        match = edge.MatchAny(value) if kind == "any" else edge.MatchPrefix(value)
        return edge.FieldCondition(condition["key"], match=match)
    return filter_of(condition)


@contextlib.contextmanager
def _naming_failures(place: Path) -> Iterator[None]:
    """Say of the engine's failures, which are all of one kind, what they are."""
    try:
        yield
    except BaseException as error:  # a panic of the engine is no Exception
        if type(error) is Exception or type(error).__name__ == "PanicException":
            _raise_for(place, " ".join(str(error).split()), error)
        raise


def _raise_for(place: Path, reason: str, error: BaseException) -> NoReturn:
    if FULL.search(reason):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
    if "WouldBlock" in reason:
        raise DataError(f"{place}: another process has this index open", "wait for it to end, and try again") from error
    reason = reason[:200]
    if "dimension" in reason.casefold():
        raise ModelError(f"{place}: {reason}", f"the index is of other vectors: {PUSH_HINT}") from error
    raise ModelError(f"{place}: the engine says: {reason}", f"remove the folder and {PUSH_HINT}") from error
