"""Fingerprints of products, with the photos' content hashes cached by path, size and change time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..store.database import Database, StoredImageHash
from ..store.files import hash_file
from .product import Product, product_fingerprint

WRITE_EVERY = 1000
UNREADABLE = "unreadable"
"""In place of the hash of a photo that can't be read now: once it can be, the product counts as changed."""


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
        """`product_fingerprint` with the content hashes of all its photos."""
        return self.of_all([product])[0]

    def of_all(self, products: Sequence[Product]) -> list[str]:
        """The fingerprint of each, with one query for all their photos."""
        paths = dict.fromkeys(str(path) for product in products for path in product.images)
        known = self._database.image_hashes(list(paths))
        return [
            product_fingerprint(product, [self._hash_of(path, known) for path in product.images])
            for product in products
        ]

    def hash_of(self, path: Path) -> str:
        """SHA-256 (hex) of a photo's bytes, UNREADABLE when it can't be read."""
        return self._hash_of(path, self._database.image_hashes([str(path)]))

    def _hash_of(self, photo: Path, known: dict[str, StoredImageHash]) -> str:
        path = str(photo)
        try:
            status = photo.stat()
            size, mtime = status.st_size, status.st_mtime_ns
            for kept in (self._new.get(path), known.get(path)):
                if kept and (kept.size, kept.mtime_ns) == (size, mtime):
                    return kept.sha256
            content = hash_file(photo)
        except OSError:
            return UNREADABLE  # told as a problem by whoever opens the photo
        self._new[path] = StoredImageHash(path, size, mtime, content)
        if len(self._new) >= WRITE_EVERY:
            self.flush()
        return content

    def flush(self) -> None:
        """Write the new hashes to the database, if it may be written: whoever only reads hashes again."""
        if self._new:
            if self._database.writable:
                self._database.put_image_hashes(list(self._new.values()))
            self._new.clear()
