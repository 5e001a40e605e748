"""Which pairs of records may become triplets: candidates of each reference in three windows.

    variants   one group_id, other products, one to three keys differ (or the colours that their titles name)
    near       one type, most attributes shared, one to three keys differ
    far        one type, more than three keys differ: a random one, as SPN4CIR draws

Near pairs are found without comparing all with all. With a random 64-bit number z for each (key, value), 0 for a key
that is not said, a record is h = sum z. For each set m of one to three keys, records of a type with equal
h - sum of z over m agree in all other keys, those that neither says included: they are sorted by it, and each is
compared with the next few of its run. All is arrays of one type at a time: O(n) memory, O(n log n) for each m.

Departures from SPN4CIR: its far window is the ranks 10,000 to 20,000 by similarity of photos, in one pool of all
pictures; here it is a random listing of the same type, so that no vectors are needed. Near pairs are ours.

The order of listings, and so who is compared with whom, is that of a hash of seed and id: the same whatever the order
of the catalog's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import MAX_PAIRS
from ..listener import Listener
from .records import Record, is_colour

WINDOWS = ("variants", "near", "far")
MOST_CHANGED = 3
CANDIDATES = 8
"""Targets that a reference has to choose from, in each window."""
SHIFTS, DRAWS = 8, 16
"""Next ones in a run that a record is compared with; random ones that it is compared with for a far target."""
MASK_KEYS = 16
"""Keys of a type, the most often filled ones, that near pairs change."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Records as numbers: values [n, keys] (-1: not said), `z` [n, keys], identities, types, groups, and title colours
    (-1: none, or a key says it), each [n]; `order`: the rows by hash of seed and id.
    """

    values: NDArray[np.int32]
    z: NDArray[np.uint64]
    identity: Ints
    type: Ints
    group: Ints
    colour: Ints
    order: Ints


def hashed(*parts: object) -> int:
    """Return 64 bits of a hash of `parts`."""
    text = "\0".join(map(str, parts)).encode("utf-8", "backslashreplace")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def encode(rows: Sequence[Record], seed: int) -> Encoded:
    """Encode `rows`."""
    keys = sorted({key for record in rows for key in record.pairs})
    column = {key: at for at, key in enumerate(keys)}
    values = np.full((len(rows), len(keys)), -1, dtype=np.int32)
    z = np.zeros((len(rows), len(keys)), dtype=np.uint64)
    codes: list[dict[str, tuple[int, int]]] = [{} for _ in keys]
    for at, record in enumerate(rows):
        for key in record.pairs:
            value, known = record.value(key), codes[column[key]]
            code, number = known.setdefault(value, (len(known), hashed("z", key, value)))
            values[at, column[key]], z[at, column[key]] = code, number
    colours = [record.colour[0] if record.colour and not any(map(is_colour, record.pairs)) else None for record in rows]
    order = sorted(range(len(rows)), key=lambda at: (hashed(seed, rows[at].id), rows[at].id))
    return Encoded(
        values,
        z,
        _numbered([record.identity for record in rows]),
        _numbered([record.type or None for record in rows]),
        _numbered([record.group or None for record in rows]),
        _numbered(colours),
        np.array(order, dtype=np.int64),
    )


def _numbered(names: Sequence[str | None]) -> Ints:
    """Return a number for each different name, -1 for None."""
    known: dict[str, int] = {}
    return np.array([-1 if name is None else known.setdefault(name, len(known)) for name in names], dtype=np.int64)


class Candidates:
    """Up to CANDIDATES targets of each reference, [n, CANDIDATES] with -1 for none, in the order in which they came."""

    def __init__(self, number: int) -> None:
        self.targets = np.full((number, CANDIDATES), -1, dtype=np.int32)
        self._filled = np.zeros(number, dtype=np.int64)
        self.unclear = 0
        """Pairs compared whose difference is in a key that one end does not say."""

    def add(self, references: Ints, targets: Ints) -> None:
        """Add a target to each of `references`, which are different; those that are full or have it already stay."""
        room = self._filled[references] < CANDIDATES
        room &= ~(self.targets[references] == targets[:, None]).any(axis=1)
        references, targets = references[room], targets[room]
        self.targets[references, self._filled[references]] = targets
        self._filled[references] += 1

    def full(self, rows: Ints) -> bool:
        """Check whether none of `rows` needs another one."""
        return bool((self._filled[rows] >= CANDIDATES).all())


def variants(encoded: Encoded) -> Candidates:
    """Find variants of one style."""
    found = Candidates(len(encoded.order))
    rows = encoded.order[encoded.group[encoded.order] >= 0]
    for a, b in _neighbours(rows, encoded.group[rows], SHIFTS):
        differ, unclear = _differing(encoded, a, b)
        named = (encoded.colour[a] >= 0) & (encoded.colour[b] >= 0) & (encoded.colour[a] != encoded.colour[b])
        differ = differ + named
        right = (encoded.identity[a] != encoded.identity[b]) & (differ >= 1) & (differ <= MOST_CHANGED)
        found.unclear += int(((differ == 0) & (unclear > 0)).sum())
        found.add(a[right], b[right])
    return found


def near(encoded: Encoded, listener: Listener) -> Candidates:
    """Find pairs of one type that share most attributes."""
    found = Candidates(len(encoded.order))
    types = list(_types(encoded))
    for number, rows in enumerate(types, 1):
        listener.progress("near pairs by type", number, len(types))
        _near_of_type(encoded, rows, found)
    return found


def _near_of_type(encoded: Encoded, rows: Ints, found: Candidates) -> None:
    values, z = encoded.values[rows], encoded.z[rows]
    said = (values >= 0).sum(axis=0)
    varied = [key for key in range(values.shape[1]) if said[key] and len(np.unique(values[:, key])) > 1]
    keys = sorted(varied, key=lambda key: (-said[key], key))[:MASK_KEYS]
    whole, known = z.sum(axis=1, dtype=np.uint64), (values >= 0).sum(axis=1)
    for size in range(1, MOST_CHANGED + 1):
        for mask in combinations(keys, size):
            chosen = list(mask)
            rest = whole - z[:, chosen].sum(axis=1, dtype=np.uint64)
            for a, b in _neighbours(np.arange(len(rows)), rest, SHIFTS):
                one, other = values[a][:, chosen], values[b][:, chosen]
                differ = (one != other).all(axis=1)
                clear = ((one >= 0) & (other >= 0)).all(axis=1)
                shared = known[a] - size >= size  # the type, which all share, makes it most
                right = differ & clear & shared & (encoded.identity[rows[a]] != encoded.identity[rows[b]])
                found.unclear += int((differ & ~clear).sum()) if size == 1 else 0
                found.add(rows[a[right]], rows[b[right]])
        if found.full(rows):
            return


def far(encoded: Encoded, seed: int) -> Candidates:
    """Find pairs of one type that differ in more than MOST_CHANGED keys, at random."""
    found = Candidates(len(encoded.order))
    for rows in _types(encoded):
        if len(rows) < 2:
            continue
        draw = np.random.default_rng(hashed(seed, "far", len(rows), int(encoded.type[rows[0]])))
        for _ in range(DRAWS):
            places = np.arange(len(rows))
            partner = (places + draw.integers(1, len(rows), len(rows))) % len(rows)
            a, b = rows, rows[partner]
            differ, _ = _differing(encoded, a, b)
            right = (differ > MOST_CHANGED) & (differ <= MAX_PAIRS) & (encoded.identity[a] != encoded.identity[b])
            found.add(a[right], b[right])
    return found


def _types(encoded: Encoded) -> Iterator[Ints]:
    """Yield the rows of each type with two listings, in the order of their hashes; those without a type are in none."""
    types = encoded.type[encoded.order]
    order = encoded.order[np.argsort(types, kind="stable")]
    ordered = encoded.type[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.array([], dtype=np.int64)
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        if ordered[start] >= 0 and end - start > 1:
            yield order[start:end]


def _differing(encoded: Encoded, a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return in how many keys that both say two rows differ, and how many keys only one of them says, for each pair."""
    one, other = encoded.values[a], encoded.values[b]
    both = (one >= 0) & (other >= 0)
    return ((one != other) & both).sum(axis=1), ((one >= 0) != (other >= 0)).sum(axis=1)


def _neighbours(rows: Ints, by: NDArray[np.generic], shifts: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield (rows, others): each row with the next one that has the same `by`, then with the one after that, ...;
    the last is followed by the first.
    """
    if not len(rows):
        return
    order = np.argsort(by, kind="stable")
    ordered = by[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    lengths = np.diff(np.r_[np.flatnonzero(first), len(order)])
    length = np.repeat(lengths, lengths)
    places = np.arange(len(order))
    for shift in range(1, shifts + 1):
        there = places[length > shift]
        if not len(there):
            return
        other = start[there] + (there - start[there] + shift) % length[there]
        yield rows[order[there]], rows[order[other]]
