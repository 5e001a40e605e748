"""Values of attributes that a query names: "navy v-neck blouse" wishes color: navy and neckline: v-neck.

    score(q, d) = sum over the phrases p of q of idf(p) [d has what p names]  /  the same sum over all of them
    idf(p)      = ln(1 + (N - n(p) + 0.5) / (n(p) + 0.5)),   n(p) listings of N have what p names

A phrase is the words of a value; of those that overlap the longest counts. It may be a value of several keys: any of
them will do. Attributes that are written for a query (or are those of a listing that results are to be like) name their
own key alone. This is a wish and no filter: what has none of it is found, too, but later.

No phrase are values of one letter, of digits alone, and of more than LONGEST_PHRASE words: "s", "2" and sentences say
nothing about the product that is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..attributes.schema import folded
from .bm25 import tokenize

LONGEST_PHRASE = 4
Pair = tuple[str, str]
"""A key and a value, as a person reads them."""


@dataclass(frozen=True)
class Wish:
    """One thing that a query names: the `words` that name it, and the numbers of the `pairs` that have it."""

    words: str
    pairs: tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """Which of n listings have which pair: pair i stands in `rows` int32 [p] from `ends[i]` to `ends[i + 1]`."""

    count: int
    pairs: list[Pair]
    ends: NDArray[np.int64]
    rows: NDArray[np.int32]

    @cached_property
    def _phrases(self) -> dict[tuple[str, ...], list[int]]:
        found: dict[tuple[str, ...], list[int]] = {}
        for number, (_, value) in enumerate(self.pairs):
            words = tuple(tokenize(value))
            if 0 < len(words) <= LONGEST_PHRASE and _says_something(words):
                found.setdefault(words, []).append(number)
        return found

    @cached_property
    def _by_pair(self) -> dict[Pair, list[int]]:
        found: dict[Pair, list[int]] = {}
        for number, (key, value) in enumerate(self.pairs):
            found.setdefault((folded(key), folded(value)), []).append(number)
        return found

    @staticmethod
    def joined(one: Named, other: Named) -> Named:
        """Return the pairs of both, which are of the same listings."""
        ends = np.concatenate([one.ends, other.ends[1:] + one.ends[-1]])
        return Named(one.count, [*one.pairs, *other.pairs], ends, np.concatenate([one.rows, other.rows]))

    def wishes(self, text: str, attributes: Mapping[str, str]) -> list[Wish]:
        """Return what a query of `text` and `attributes` names."""
        words, found, place = tokenize(text), list[Wish](), 0
        while place < len(words):
            for length in range(min(LONGEST_PHRASE, len(words) - place), 0, -1):
                if numbers := self._phrases.get(tuple(words[place : place + length])):
                    found.append(Wish(" ".join(words[place : place + length]), tuple(numbers)))
                    place += length
                    break
            else:
                place += 1
        for key, value in attributes.items():
            if numbers := self._by_pair.get((folded(key), folded(value))):
                found.append(Wish(f"{key}: {value}", tuple(numbers)))
        return list(dict.fromkeys(found))

    def holders(self, wish: Wish) -> NDArray[np.int64]:
        """Return the rows of the listings that have what a wish names, in their order."""
        return np.unique(np.concatenate([self.rows[self.ends[i] : self.ends[i + 1]] for i in wish.pairs])).astype(
            np.int64
        )

    def pairs_of(self, row: int, wishes: Sequence[Wish]) -> dict[str, str]:
        """Return which of the wished pairs a listing has: its value by key."""
        numbers = (number for wish in wishes for number in wish.pairs)
        return dict(self.pairs[i] for i in numbers if row in self.rows[self.ends[i] : self.ends[i + 1]])

    def scores(self, wishes: Sequence[Wish]) -> NDArray[np.float32]:
        """Score all listings [n]: 1 for those that have everything that is wished, 0 where nothing is."""
        total, most = np.zeros(self.count, dtype=np.float32), 0.0
        for wish in wishes:
            rows = self.holders(wish)
            weight = float(np.log(1 + (self.count - len(rows) + 0.5) / (len(rows) + 0.5)))
            total[rows] += weight
            most += weight
        return total / np.float32(most) if most else total


def _says_something(words: tuple[str, ...]) -> bool:
    return any(len(word) > 1 and not word.isdigit() for word in words)


def index_pairs(listings: Iterable[Iterable[Pair]]) -> Named:
    """Index the pairs of each listing; those that are the same but for case and spacing are one, as first spelled."""
    numbers: dict[Pair, int] = {}
    pairs, rows, count = list[Pair](), list[list[int]](), 0
    for row, own in enumerate(listings):
        count = row + 1
        for number in {_number(pair, numbers, pairs, rows) for pair in own}:
            rows[number].append(row)
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Named(count, pairs, ends, np.fromiter((row for each in rows for row in each), np.int32, int(ends[-1])))


def _number(pair: Pair, numbers: dict[Pair, int], pairs: list[Pair], rows: list[list[int]]) -> int:
    key = folded(pair[0]), folded(pair[1])
    if key not in numbers:
        numbers[key] = len(pairs)
        pairs.append(pair)
        rows.append([])
    return numbers[key]
