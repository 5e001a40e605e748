"""How alike two photos look, from 64 bytes a photo that are made once and kept.

shape    256 bits: is a point of a 17 x 16 grey thumbnail brighter than its right neighbour (dHash)
colour   the mean colours of a 4 x 4 grid, in RGB

The same picture in another size or compression differs by a few bits; the same cut in another colour has the shape
and not the colour; two people in the same pose have much of the shape. Neither knows what a garment is: that is the
vectors'.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..catalog.images import ImageProblem, open_small
from ..listener import Listener
from ..settings import CatalogSettings
from ..store.files import writing

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, HEIGHT, GRID = 17, 16, 4
BITS = (WIDTH - 1) * HEIGHT
SIZE = BITS // 8 + GRID * GRID * 3
WORKERS, SAVE_EVERY = 4, 5000
SUM_BYTES = 4
UNREADABLE = np.zeros(SIZE, dtype=np.uint8)
"""In place of a photo that can't be opened: a picture has no such signature, its grey thumbnail being flat and
black."""


def signature(image: Image) -> NDArray[np.uint8]:
    """Return uint8 [SIZE] of an RGB photo."""
    from PIL.Image import Resampling

    grey = np.asarray(image.convert("L").resize((WIDTH, HEIGHT), Resampling.BOX), dtype=np.int16)
    colour = np.asarray(image.resize((GRID, GRID), Resampling.BOX), dtype=np.uint8)
    return np.concatenate([np.packbits(grey[:, 1:] > grey[:, :-1]), np.maximum(colour.ravel(), 1)])


def load_signatures(
    photos: Mapping[str, Path], store: Path, settings: CatalogSettings, listener: Listener
) -> dict[str, NDArray[np.uint8]]:
    """Load signatures by content hash; new ones are made and kept in the file `store`. Unreadable photos are left
    out.
    """
    known = _read(store)
    missing = [content for content in photos if content not in known]
    with ThreadPoolExecutor(WORKERS) as threads:
        for start in range(0, len(missing), SAVE_EVERY):
            part = missing[start : start + SAVE_EVERY]
            made = threads.map(lambda content: _of(photos[content], settings), part)
            known.update(zip(part, made, strict=True))
            _write(store, known)
            listener.progress("hashing photos", start + len(part), len(missing))
    return {content: known[content] for content in photos if known[content].any()}


def _of(path: Path, settings: CatalogSettings) -> NDArray[np.uint8]:
    try:
        return signature(open_small(path, settings))
    except ImageProblem:
        return UNREADABLE  # `afmrl check` names it


def _read(store: Path) -> dict[str, NDArray[np.uint8]]:
    if not store.is_file():
        return {}
    try:
        rows = np.load(store, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, MemoryError, OverflowError):
        return {}  # damaged: they are computed again
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 32 + SIZE + SUM_BYTES:
        return {}
    sound = (row for row in rows if _sum(row[:-SUM_BYTES]) == row[-SUM_BYTES:].tobytes())
    return {bytes(row[:32]).hex(): row[32:-SUM_BYTES] for row in sound}


def _row(key: str, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a photo's hash, what was found of it, and the checksum of both."""
    row = np.concatenate([np.frombuffer(bytes.fromhex(key), dtype=np.uint8), found])
    return np.concatenate([row, np.frombuffer(_sum(row), dtype=np.uint8)])


def _sum(row: NDArray[np.uint8]) -> bytes:
    return zlib.crc32(row.tobytes()).to_bytes(SUM_BYTES, "little")


def _write(store: Path, known: Mapping[str, NDArray[np.uint8]]) -> None:
    rows = [_row(key, row) for key, row in known.items()]
    with writing(store) as temporary:
        np.save(temporary, np.stack(rows))


class Photos:
    """The listings' photos as arrays, for comparing many pairs at once."""

    def __init__(self, photos: Sequence[Sequence[str]], signatures: Mapping[str, NDArray[np.uint8]]) -> None:
        own = [[signatures[content] for content in row if content in signatures] for row in photos]
        self.count = np.array([len(row) for row in own], dtype=np.int64)
        most = int(self.count.max(initial=0))
        table = np.zeros((len(own), max(1, most), SIZE), dtype=np.uint8)
        for i, row in enumerate(own):
            if row:
                table[i, : len(row)] = row
        self._shape = np.ascontiguousarray(table[:, :, : BITS // 8]).view(np.uint64)
        self._colour = table[:, :, BITS // 8 :]

    def alike(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (shape, colour) in 0..1 of the two photos of each pair that are most alike; 0 where one has no photo.

        shape 0 is what unrelated pictures have (half of the bits), colour 0 a mean difference of 64 steps of 255.
        """
        best = np.zeros((len(a), 2), dtype=np.float32)
        for i in range(self._shape.shape[1]):
            for j in range(self._shape.shape[1]):
                pairs = np.flatnonzero((self.count[a] > i) & (self.count[b] > j))
                if not len(pairs):
                    continue
                left, right = a[pairs], b[pairs]
                bits = np.bitwise_count(self._shape[left, i] ^ self._shape[right, j]).sum(axis=1)
                steps = np.abs(self._colour[left, i].astype(np.int16) - self._colour[right, j]).mean(axis=1)
                here = np.stack([1 - 2 * bits / BITS, 1 - steps / 64], axis=1).clip(0, 1)
                better = here.sum(axis=1) > best[pairs].sum(axis=1)
                best[pairs[better]] = here[better]
        return best[:, 0], best[:, 1]
