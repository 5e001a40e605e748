"""Vectors by key, in small files that are written once: what a killed `afmrl embed` goes on from, and what `afmrl eval`
need not encode again.

A chunk is `<name>.npy` (float32 [n, d]) and `<name>.json` (its n keys), the latter written last: a chunk without it
does not count. The name is a hash of the keys, so that two processes that add the same chunk write the same file.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..store.files import hash_json, make_folder, write_json, writing

OPEN_CHUNKS = 8
ROW_BITS = 32


class VectorCache:
    """The chunks in a folder, which need not exist yet. Only their keys are kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: list[str] = []
        self._place: dict[str, int] = {}
        # The number of a chunk and a row in it, in one integer: a pair takes twice as much, for every listing.
        for file in sorted(folder.glob("*.json")):
            self._take(file)
        self._open = lru_cache(OPEN_CHUNKS)(lambda name: np.load(folder / f"{name}.npy", mmap_mode="r"))

    def _take(self, file: Path) -> None:
        try:
            keys = json.loads(file.read_text("utf-8"))
            rows = np.load(file.with_suffix(".npy"), mmap_mode="r").shape[0]
        except (OSError, ValueError, EOFError):
            # Half a chunk after a power cut: it is made again, which is what a cache is for.
            file.unlink(missing_ok=True)
            return
        if rows == len(keys):
            self._put(file.stem, keys)

    def _put(self, name: str, keys: Sequence[str]) -> None:
        first = len(self._chunks) << ROW_BITS
        self._chunks.append(name)
        self._place.update((key, first + row) for row, key in enumerate(keys))

    def _find(self, key: str) -> tuple[str, int]:
        """The chunk and row of a key that is there (KeyError else)."""
        place = self._place[key]
        return self._chunks[place >> ROW_BITS], place & ((1 << ROW_BITS) - 1)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __len__(self) -> int:
        return len(self._place)

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep `vectors` [n, d] under `keys`; on disk when this returns."""
        make_folder(self.folder)
        name = hash_json(list(keys))[:24]
        with writing(self.folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            # Through Python's own file: what np.save raises on a full disk does not say so.
            whole = io.BytesIO()
            np.save(whole, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
            file.write(whole.getbuffer())
        write_json(self.folder / f"{name}.json", list(keys))
        self._put(name, keys)

    def get(self, key: str) -> NDArray[np.float32]:
        """The vector [d] of a key that is there (KeyError else)."""
        name, row = self._find(key)
        vector: NDArray[np.float32] = self._open(name)[row]
        return vector

    def prune(self, limit: int) -> None:
        """Remove the oldest chunks until at most `limit` vectors are left."""
        sizes = Counter(self._chunks[place >> ROW_BITS] for place in self._place.values())
        left, gone = len(self), set[str]()
        for file in sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
            if left <= limit:
                break
            left -= sizes[file.stem]
            gone.add(file.stem)
            file.unlink(missing_ok=True)
            file.with_suffix(".npy").unlink(missing_ok=True)
        self._place = {key: place for key, place in self._place.items() if self._chunks[place >> ROW_BITS] not in gone}
