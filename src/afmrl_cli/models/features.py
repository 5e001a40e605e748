"""What a vision tower made of photos, on disk: `.afmrl/cache/vision/<tower>/<shard>.safetensors`; and what the small
encoders of `light` made of photos and texts.

A shard holds the features of a few hundred photos below each other and, in its header, whose they are and their
checksum; it is written beside its place and renamed, named by its content, and never changed. So any number of
processes may read and write, and whatever is deleted, at any time, or damaged, is a photo that the tower runs over
again. A shard's time of change is when a run last used it: where the limit is reached, those that were used longest
ago go first. What the run at hand has used stays: a catalog that is larger than the store would else, read from
end to end again and again, throw away each time what is needed next.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import DataError
from ..listener import Listener
from ..settings import CacheSettings
from ..store.files import TEMPORARY_PREFIX, hash_json, parse_json, writing

FORMAT = 2
OPEN_SHARDS = 8
SHARD_BYTES = 64 * 2**20
"""Bytes of features in memory that are written without a `flush`."""
SPARE_DISK = 2**30
"""Bytes of the disk that the store leaves free."""
TENSOR, TABLE, CHECKSUM = "features", "pictures", "crc32"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a photo's features lie, the grid of its patches (height, width), and the pixels in its file."""

    shard: str
    first: int
    rows: int
    grid: tuple[int, int]
    pixels: int


class FeatureStore:
    """The features of one tower. Threads may share it."""

    def __init__(
        self, cache: Path, tower: list[object], dtype: torch.dtype, settings: CacheSettings, listener: Listener
    ):
        """Open the store. `cache`: the folder of all towers; `tower`: what features depend on beside the photo;
        `dtype`: theirs.
        """
        self.folder = cache / "vision" / hash_json([FORMAT, *tower, str(dtype)])[:16]
        self.dtype = dtype
        self._limit = int(settings.gigabytes * 1e9)
        self._listener = listener
        self._lock = threading.RLock()
        self._kept: dict[str, Kept] = {}
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}
        self._new: dict[str, tuple[Kept, Tensor]] = {}
        self._new_bytes = 0
        self._used: set[str] = set()
        self._sound: set[str] = set()
        self._full = False
        self._open = lru_cache(OPEN_SHARDS)(lambda name: safe_open(self.folder / name, "pt"))
        for file in _shards(self.folder):
            self._take(file)

    def _take(self, file: Path) -> None:
        try:
            with safe_open(file, "pt") as shard:
                table, size = parse_json(shard.metadata()[TABLE]), shard.get_slice(TENSOR).get_shape()[0]
            whole = [(str(key), int(n), int(high), int(wide), int(area)) for key, n, high, wide, area in table]
            if any(min(row[1:]) < 0 for row in whole) or sum(row[1] for row in whole) != size:
                raise ValueError("the table does not fit the features")
        except FileNotFoundError:  # deleted meanwhile
            return
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError):
            # Half a file after a power cut: it is made again, which is what a cache is for.
            file.unlink(missing_ok=True)
            return
        first = 0
        for content, rows, height, width, pixels in whole:
            self._kept[content] = Kept(file.name, first, rows, self._shared((height, width)), pixels)
            first += rows

    def _shared(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Return `grid`, once in memory for all photos that have it."""
        return self._grids.setdefault(grid, grid)

    def __len__(self) -> int:
        return len(self._kept) + len(self._new)

    def find(self, content: str) -> Kept | None:
        """Return what is known of the photo with this hash; None: nothing."""
        with self._lock:
            return self._new[content][0] if content in self._new else self._kept.get(content)

    def read(self, content: str) -> Tensor | None:
        """Return the features [tokens, width] of the photo with this hash; None when they are not, or no
        longer, there.
        """
        with self._lock:
            if content in self._new:
                return self._new[content][1]
            kept = self._kept.get(content)
            if kept is None:
                return None
            try:
                self._touch(kept.shard)
                shard: Any = self._open(kept.shard)
                self._verify(kept.shard, shard)
                rows: Tensor = shard.get_slice(TENSOR)[kept.first : kept.first + kept.rows]
            except (SafetensorError, OSError):  # deleted while we run
                self._forget(kept.shard)
                return None
            except ValueError:  # bits that have changed: as if it had never been kept
                (self.folder / kept.shard).unlink(missing_ok=True)
                self._forget(kept.shard)
                return None
            return rows.clone()  # apart from the mapped file

    def _verify(self, name: str, shard: Any) -> None:
        """Check each shard once: ValueError unless its features are what was written."""
        if name not in self._sound:
            if shard.metadata().get(CHECKSUM) != _checksum(shard.get_tensor(TENSOR)):
                raise ValueError(f"{name} is damaged")
            self._sound.add(name)

    def _touch(self, shard: str) -> None:
        if shard not in self._used:
            os.utime(self.folder / shard)
            self._used.add(shard)

    def _forget(self, shard: str) -> None:
        self._kept = {content: kept for content, kept in self._kept.items() if kept.shard != shard}

    def keep(self, content: str, grid: tuple[int, int], pixels: int, features: Tensor) -> None:
        """Keep the features [tokens, width] of a photo; on disk after `flush`."""
        with self._lock:
            if self._full or self.find(content) is not None:
                return
            self._new[content] = Kept("", 0, len(features), self._shared(grid), pixels), features
            self._new_bytes += features.nbytes
            if self._new_bytes >= SHARD_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is new, as one shard, if there is room for it."""
        with self._lock:
            new, size = self._new, self._new_bytes
            self._new, self._new_bytes = {}, 0
            if not new or not self._room(size):
                return
            table, first, placed = [], 0, {}
            for content, (kept, _) in new.items():
                table.append([content, kept.rows, *kept.grid, kept.pixels])
                placed[content] = first
                first += kept.rows
            features = torch.cat([features for _, features in new.values()])
            metadata = {TABLE: json.dumps(table), CHECKSUM: _checksum(features)}
            name = f"{hash_json(metadata)[:16]}.safetensors"
            try:
                with writing(self.folder / name) as temporary:
                    temporary.write_bytes(save({TENSOR: features}, metadata))
            except FileNotFoundError:  # the folder was deleted under our hands
                return
            except (OSError, DataError) as error:
                self._full = True
                self._listener.warn(f"{self.folder}: what the model makes of photos is not kept: {error}")
                return
            self._used.add(name)
            for content, first in placed.items():
                self._kept[content] = dataclasses.replace(new[content][0], shard=name, first=first)

    def _room(self, size: int) -> bool:
        """Tell whether `size` bytes more may be kept, after what was used longest ago has gone."""
        sizes: list[tuple[float, int, Path]] = []
        for file in _shards(self.folder.parent, "*/*"):
            try:
                status = file.stat()
            except FileNotFoundError:  # another process has removed it
                continue
            sizes.append((status.st_mtime, status.st_size, file))
        total, folder = sum(size for _, size, _ in sizes), self.folder
        while not folder.exists():
            folder = folder.parent
        limit = min(self._limit, total + shutil.disk_usage(folder).free - SPARE_DISK)
        for _, freed, file in sorted(sizes, key=lambda each: each[0]):
            if total + size <= limit:
                break
            if file.parent == self.folder and file.name in self._used:
                continue
            file.unlink(missing_ok=True)
            self._forget(file.name)
            total -= freed
        if total + size <= limit:
            return True
        self._full = True
        self._listener.note(f"{self.folder.parent}: full (cache.gigabytes), what else is new is not kept")
        return False


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().view(torch.uint8).numpy().data):08x}"


def _shards(folder: Path, pattern: str = "*") -> list[Path]:
    found = sorted(folder.glob(f"{pattern}.safetensors"))
    return [file for file in found if not file.name.startswith(TEMPORARY_PREFIX)]
