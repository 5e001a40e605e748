"""Which ids a catalog has had so far."""

from __future__ import annotations

from array import array
from collections import Counter

from .name_forms import plain

LONGEST_MADE = 80


class SeenIds:
    """Which ids have been seen, and in which row first, in 32 to 64 bytes an id.

    Ids are distinguished by their 64-bit hash: two different ones among a million are taken for the same once in 37
    million catalogs. (A dict of strings would need some 150 bytes an id.)
    """

    def __init__(self) -> None:
        self._size = 1 << 12
        self._hashes = array("q", bytes(8 * self._size))
        self._rows = array("q", bytes(8 * self._size))  # 0: free
        self._count = 0

    def add(self, listing: str, row: int) -> int:
        """Return 0 when `listing` is new, else the row that had it first."""
        if 2 * self._count >= self._size:
            self._grow()
        value = hash(listing)
        slot = self._slot(value)
        if self._rows[slot]:
            return self._rows[slot]
        self._hashes[slot], self._rows[slot] = value, row
        self._count += 1
        return 0

    def has(self, listing: str) -> bool:
        """Tell whether `listing` has been seen."""
        return bool(self._rows[self._slot(hash(listing))])

    def _slot(self, value: int) -> int:
        mask = self._size - 1
        slot = value & mask
        while self._rows[slot] and self._hashes[slot] != value:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        hashes, rows = self._hashes, self._rows
        self._size *= 2
        self._hashes, self._rows = array("q", bytes(8 * self._size)), array("q", bytes(8 * self._size))
        for value, row in zip(hashes, rows, strict=True):
            if row:
                slot = self._slot(value)
                self._hashes[slot], self._rows[slot] = value, row


class MadeIds:
    """Ids of listings that their shop has not numbered, made of their titles: linen-shirt, linen-shirt-2, ...

    They stay the same while the titles do and, of equal titles, the order.
    """

    def __init__(self, seen: SeenIds) -> None:
        self._seen = seen
        self._counts: Counter[str] = Counter()

    def of(self, title: str) -> str:
        """Return the next id that `title` gives; "" for a title without letters."""
        name = plain(title).replace("_", "-")[:LONGEST_MADE].strip("-")
        while name:
            self._counts[name] += 1
            made = f"{name}-{self._counts[name]}" if self._counts[name] > 1 else name
            if not self._seen.has(made):
                return made
        return ""
