"""Vectors by key, in small files that are written once: what a killed `afmrl embed` goes on from, and what `afmrl eval`
need not encode again.

A chunk is `<name>.npy` (float32 [n, d]) and `<name>.json` (its n keys and the other file's checksum), the latter
written last: a chunk without it, or whose vectors are not what was written, does not count and is made again. The name
is a hash of the keys, so that two processes that add the same chunk write the same file.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ModelError
from ..store.files import checksum, hash_json, make_folder, read_object, write_json, writing

OPEN_CHUNKS = 8
ROW_BITS = 32


class VectorCache:
    """The chunks in a folder, which need not exist yet. Only their keys are kept in memory. With a `dimension`, chunks
    of other vectors do not count. Chunks in folders `beside` it are read, too.
    """

    def __init__(self, folder: Path, dimension: int = 0, beside: Sequence[Path] = ()) -> None:
        self.folder, self.dimension = folder, dimension
        self._chunks: list[Path] = []
        self._place: dict[str, int] = {}
        # The number of a chunk and a row in it, in one integer: a pair takes twice as much, for every listing.
        for place in (folder, *beside):
            for file in sorted(place.glob("*.json")):
                self._take(file)
        # The catalog's order goes through all folders side by side.
        self._open = lru_cache(OPEN_CHUNKS + 2 * len(beside))(open_matrix)

    def _take(self, file: Path) -> None:
        try:
            content, place = read_object(file), file.with_suffix(".npy")
            keys, vectors = content["keys"], open_matrix(place)
            named = isinstance(keys, list) and file.stem == _name(keys) and all(isinstance(key, str) for key in keys)
            known = vectors.shape[1] == (self.dimension or vectors.shape[1])
            fits = named and known and len(vectors) == len(keys) and checksum(place) == content["crc32"]
        except (OSError, DataError, ValueError, KeyError):
            fits = False
        if fits:
            self.dimension = vectors.shape[1]
            self._put(place, keys)
        else:  # half a chunk after a power cut, or bits that have changed
            file.unlink(missing_ok=True)

    def _put(self, chunk: Path, keys: Sequence[str]) -> None:
        first = len(self._chunks) << ROW_BITS
        self._chunks.append(chunk)
        self._place.update((key, first + row) for row, key in enumerate(keys))

    def _find(self, key: str) -> tuple[Path, int]:
        """Return the chunk and row of a key that is there (KeyError else)."""
        place = self._place[key]
        return self._chunks[place >> ROW_BITS], place & ((1 << ROW_BITS) - 1)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __len__(self) -> int:
        return len(self._place)

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep `vectors` [n, d] under `keys`; on disk when this returns. ModelError when others have another length."""
        if vectors.shape[1] != (self.dimension or vectors.shape[1]):
            raise other_dimension(vectors.shape[1], self.dimension)
        self.dimension = vectors.shape[1]
        make_folder(self.folder)
        name = _name(keys)
        with writing(self.folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            # Through Python's own file: what np.save raises on a full disk does not say so.
            whole = io.BytesIO()
            np.save(whole, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
            file.write(whole.getbuffer())
        content = {"keys": list(keys), "crc32": zlib.crc32(whole.getbuffer())}
        write_json(self.folder / f"{name}.json", content)
        self._put(self.folder / f"{name}.npy", keys)

    def get(self, key: str) -> NDArray[np.float32]:
        """Return the vector [d] of a key that is there (KeyError else)."""
        chunk, row = self._find(key)
        vector: NDArray[np.float32] = self._open(chunk)[row]
        return vector

    def prune(self, limit: int) -> None:
        """Remove the oldest chunks until at most `limit` vectors are left."""
        sizes = Counter(self._chunks[place >> ROW_BITS] for place in self._place.values())
        left, gone = len(self), set[Path]()
        for file in sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
            if left <= limit:
                break
            chunk = file.with_suffix(".npy")
            left -= sizes[chunk]
            gone.add(chunk)
            file.unlink(missing_ok=True)
            chunk.unlink(missing_ok=True)
        self._place = {key: place for key, place in self._place.items() if self._chunks[place >> ROW_BITS] not in gone}


def other_dimension(made: int, stored: int) -> ModelError:
    """Return the error of a model whose vectors are longer or shorter than they were."""
    return ModelError(
        f"the model gives vectors of {made} numbers now, those stored here have {stored}",
        "another model under the same name? `afmrl embed --force` computes all vectors anew",
    )


def open_matrix(file: Path, number: str = "<f4") -> NDArray[Any]:
    """Open the matrix [n, d] of numbers of that type in a .npy file, memory-mapped. ValueError when it holds anything
    else, OSError as `open`.
    """
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (
        EOFError,
        SyntaxError,
        TokenError,
        TypeError,
        MemoryError,
        OverflowError,
    ) as error:  # what a damaged header leads to
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(found, np.ndarray) or found.dtype != np.dtype(number) or found.ndim != 2:
        raise ValueError(f"not a matrix of {np.dtype(number).name}")
    return found


def _name(keys: Sequence[str]) -> str:
    return hash_json(list(keys))[:24]
