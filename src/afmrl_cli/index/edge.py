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
from ..store.files import make_folder, read_object, write_json
from ..store.folder import STORE_NAME
from ..store.lock import writer_lock
from .card import PUSH_HINT, SCHEMA, Card, read_card
from .conditions import Condition
from .engine import BUILD_EFFORT, EXACT_KB, LINKS, Near, number_in
from .points import NUMBERS, PRINT, TAGS, Numbers

MARK, CARD, SHARD = "index.json", "card.json", "shard"
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
    if searching and not (place / MARK).is_file():
        raise ModelError(f"{place}: no index here", PUSH_HINT)
    _check_place(place, root)
    with writer_lock(place, command, WAIT_SECONDS):
        folder = Folder(place)
        try:
            if not (place / MARK).is_file():
                folder.mark("")
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
    if place.is_dir() and not (place / MARK).is_file() and any(p.name != "lock" for p in place.iterdir()):
        raise UsageError(f"{place}: holds other files", hint)


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
        mark = read_object(self.place / MARK)
        if mark.get("schema") != SCHEMA:
            read_card(mark, self.shown)
        version = mark.get("current")
        if not version:
            return None
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            raise ModelError(f"{self.place / MARK}: names no collection", f"remove {self.place} and {PUSH_HINT}")
        self._version = version
        card = read_card(read_object(self._own / CARD), self.shown)
        self._load()
        return card

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
            with _told(self.place):
                vectors = edge.EdgeVectorParams(size=card.dimension, distance=edge.Distance.Cosine)
                graph = edge.HnswIndexConfig(m=LINKS, ef_construct=BUILD_EFFORT, full_scan_threshold=EXACT_KB)
                config = edge.EdgeConfig(vectors=vectors, hnsw_config=graph)
                self._shard = edge.EdgeShard.create(str(self._own / SHARD), config)
                tags = edge.KeywordIndexParams(prefix=True, enable_hnsw=False)
                self._shard.update(edge.UpdateOperation.create_field_index(TAGS, tags))
                self._shard.flush()
            self.write_card(card)

    def _goes_on(self) -> bool:
        """Load the collection that was begun; False where there is none, or nothing that can be gone on with."""
        if not (self._own / CARD).is_file():  # without one it was killed while it was made
            return False
        try:
            self._load()
        except ModelError:
            if read_object(self.place / MARK).get("current") == self._version:
                raise
            return False
        return True

    def _load(self) -> None:
        self.close()
        with _told(self.place):
            self._shard = edge.EdgeShard.load(str(self._own / SHARD))

    def index(self, fields: Sequence[str]) -> None:
        """Have the numbers of `fields` indexed."""
        with _told(self.place):
            there = self._shard.info().payload_schema
            for name in (f"{NUMBERS}.{field}" for field in fields):
                if name not in there:
                    floats = edge.FloatIndexParams(enable_hnsw=False)
                    self._shard.update(edge.UpdateOperation.create_field_index(name, floats))

    def held(self) -> tuple[Numbers, Numbers]:
        """Return numbers and prints of all points [n], by number."""
        numbers, prints, offset = list[int](), list[int](), None
        while True:
            with _told(self.place):
                request = edge.ScrollRequest(offset=offset, limit=PAGE, with_payload=[PRINT])
                records, offset = self._shard.scroll(request)
            for record in records:
                numbers.append(number_in(record.id))
                prints.append(int((record.payload or {}).get(PRINT) or "0", 16))
            if offset is None:
                return np.array(numbers, dtype=np.uint64), np.array(prints, dtype=np.uint64)

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""
        self._check_room(vectors.nbytes * BYTES_A_NUMBER // 4 + len(numbers) * BYTES_A_POINT)
        points = [
            edge.Point(id=int(number), vector=vector, payload=payload)
            for number, vector, payload in zip(numbers, vectors, payloads, strict=True)
        ]
        with _told(self.place):
            self._shard.update(edge.UpdateOperation.upsert_points(points))

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""
        with _told(self.place):
            self._shard.update(edge.UpdateOperation.delete_points([int(number) for number in numbers]))

    def finish(self, listener: Listener) -> None:
        """Build the engine's own index of all points, and wait until they are on disk."""
        listener.progress("indexing", 0, None)
        self._check_room(self.disk())  # parts are written anew before the old ones go
        with _told(self.place):
            self._shard.optimize()
            self._shard.flush()

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""
        write_json(self._own / CARD, card.describe())

    def replace(self) -> None:
        """Let the collection count from now on, and remove the others."""
        self.mark(self._version)
        for path in self.place.iterdir():
            if path.is_dir() and VERSION.fullmatch(path.name) and path.name != self._version:
                shutil.rmtree(path)

    def count(self, condition: Condition | None = None) -> int:
        """Count the points that fulfil a condition."""
        with _told(self.place):
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
        with _told(self.place):
            request = edge.QueryRequest(
                limit=k,
                query=edge.Query.Nearest(np.ascontiguousarray(vector, dtype=np.float32)),
                filter=filter_of(condition),
                with_payload=payload,
                params=edge.SearchParams(hnsw_ef=effort or None),
            )
            return [
                Near(number_in(each.id), float(each.score), each.payload or {}) for each in self._shard.query(request)
            ]

    def point(self, number: int) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """Return vector and payload of a point."""
        with _told(self.place):
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
def _told(place: Path) -> Iterator[None]:
    """Say of the engine's failures, which are all of one kind, what they are."""
    try:
        yield
    except BaseException as error:  # a panic of the engine is no Exception
        if type(error) is Exception or type(error).__name__ == "PanicException":
            _raise_for(place, str(error), error)
        raise


def _raise_for(place: Path, said: str, error: BaseException) -> NoReturn:
    if FULL.search(said):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
    if "WouldBlock" in said:
        raise DataError(f"{place}: another process has this index open", "wait for it to end, and try again") from error
    said = " ".join(said.split())[:200]
    if "dimension" in said.casefold():
        raise ModelError(f"{place}: {said}", f"the index is of other vectors: {PUSH_HINT}") from error
    raise ModelError(f"{place}: the engine says: {said}", f"remove the folder and {PUSH_HINT}") from error
