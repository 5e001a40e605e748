"""Fingerprints of products, with the photos' content hashes cached by path, size and change time.

A photo's hash is the SHA-256 of its bytes, and for the few whose pixels are not what the bytes alone say (a colour
profile is converted, a damaged file mended), of that and the reason: afmrl once showed these otherwise to models, and
what was made of them then is not taken for what they show now.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..store.database import Database, StoredImageHash
from ..store.files import hash_file
from .images import shown_otherwise
from .product import Product, product_fingerprint

WRITE_EVERY = 1000
DECODING = "2:"
"""Before the stored hashes: those of an afmrl that took photos as their bytes are lack it, and are made again."""
REMEMBERED = 200_000
"""Photos whose hash is remembered in a process, at about 300 bytes each."""
UNREADABLE = "unreadable"
"""In place of the hash of a photo that can't be read now: once it can be, the product counts as changed."""


_known: dict[str, tuple[int, int, str]] = {}


def photo_hash(path: Path) -> str:
    """Return the content hash of a photo, the one way to tell photos apart; OSError when it can't be read.

    A photo whose hash this process knows, from the database or from reading it, costs a stat.
    """
    name, status = str(path), path.stat()
    size, mtime, content = _known.get(name, (-1, 0, ""))
    if (size, mtime) != (status.st_size, status.st_mtime_ns):
        content = hash_file(path)
        if reason := shown_otherwise(path):
            content = hashlib.sha256(f"{content} {reason}".encode()).hexdigest()
        _remember(name, status, content)
    return content


def _remember(name: str, status: os.stat_result, content: str) -> None:
    if len(_known) >= REMEMBERED:
        _known.clear()
    _known[name] = (status.st_size, status.st_mtime_ns, content)


class Fingerprinter:
    """Computes product fingerprints. Use as a context manager, or call `flush` at the end.

    An unchanged photo costs a stat and its share of a query; a new one is read once. New hashes are written in batches.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._new: dict[str, StoredImageHash] = {}

    def __enter__(self) -> Fingerprinter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None or not isinstance(error, Exception):  # also when interrupted: hashing took its time
            self.flush()

    def of(self, product: Product) -> str:
        """Return `product_fingerprint` with the content hashes of all its photos."""
        return self.of_all([product])[0]

    def of_all(self, products: Sequence[Product]) -> list[str]:
        """Return the fingerprint of each, with one query for all their photos."""
        paths = dict.fromkeys(str(path) for product in products for path in product.images)
        known = self._database.image_hashes(list(paths))
        return [
            product_fingerprint(product, [self._hash_of(path, known) for path in product.images])
            for product in products
        ]

    def hash_of(self, path: Path) -> str:
        """Return `photo_hash` of a photo, UNREADABLE when it can't be read."""
        return self._hash_of(path, self._database.image_hashes([str(path)]))

    def _hash_of(self, photo: Path, known: dict[str, StoredImageHash]) -> str:
        path = str(photo)
        try:
            status = photo.stat()
            size, mtime = status.st_size, status.st_mtime_ns
            kept = self._new.get(path) or known.get(path)
            if kept and (kept.size, kept.mtime_ns) == (size, mtime) and kept.sha256.startswith(DECODING):
                content = kept.sha256.removeprefix(DECODING)
                _remember(path, status, content)
                return content
            content = photo_hash(photo)
        except OSError:
            return UNREADABLE  # reported as a problem by the code that opens the photo
        self._new[path] = StoredImageHash(path, size, mtime, DECODING + content)
        if len(self._new) >= WRITE_EVERY:
            self.flush()
        return content

    def flush(self) -> None:
        """Write the new hashes to the database, if it may be written: a command that only reads computes them again."""
        if self._new:
            if self._database.writable:
                self._database.put_image_hashes(list(self._new.values()))
            self._new.clear()
