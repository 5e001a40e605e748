"""What an index is to the rest: collections of points behind one name, of which one counts.

A collection holds the vectors of one embedder, and is called by them (`card.version_of`). A new one is filled beside
the one that counts and then named in its place, at once; only then the other one goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ModelError
from ..listener import Listener
from .card import Card
from .conditions import Condition
from .points import PRINT, Numbers

EXACT_KB = 100_000
"""Where no more vectors than this pass a filter, in one of the engine's segments, they are compared one by one: nothing
is lost. Where more do, the graph is walked over neighbours' neighbours, too (ACORN): its links alone would lead from
few to others that pass. So HNSW needs no links of its own for each value of a filter, which take most of the time of
building it.
"""
LINKS, BUILD_EFFORT = 16, 100
INDEX_KEY_VARIABLE = "AFMRL_INDEX_KEY"
WRITTEN_PRINT = re.compile(r"[0-9a-f]{16}")


class Refused(DataError):
    """A server's refusal, with its HTTP status; 404: what was asked for is no longer there."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True)
class Near:
    """A point that is near: its cosine with the query, and what is stored beside it."""

    number: int
    score: float
    payload: dict[str, Any]


class Engine(Protocol):
    """An opened index. All raise DataError where it can't be reached or written, ModelError where it is none of ours or
    damaged. What changes or is searched is the collection of the last `open` or `prepare`.
    """

    shown: str

    def open(self) -> Card | None:
        """Open the collection that counts; None where there is none."""

    def prepare(self, card: Card) -> None:
        """Open the collection of `card.version`, made where there is none."""

    def index(self, fields: Sequence[str]) -> None:
        """Have the numbers of `fields` indexed."""

    def held(self) -> tuple[Numbers, Numbers]:
        """Return numbers and prints of all points [n], by number. ModelError where some are not afmrl's."""

    def there(self) -> Numbers | None:
        """Return the numbers of the points of what counts, whatever its card says; None where they can't be read."""

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""

    def finish(self, listener: Listener) -> None:
        """Wait until all points are in the engine's own index, and on disk."""

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""

    def replace(self) -> None:
        """Let the collection count from now on, and remove the one that counted before."""

    def count(self, condition: Condition | None = None) -> int:
        """Count the points that fulfil a condition."""

    def nearest(
        self,
        vector: NDArray[np.float32],
        k: int,
        condition: Condition | None = None,
        effort: int = 0,
        payload: bool = True,
    ) -> list[Near]:
        """Return the k points nearest to `vector` [d] that fulfil a condition, best first; `effort` is HNSW's ef."""

    def point(self, number: int) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """Return vector and payload of a point."""

    def disk(self) -> int | None:
        """Return the bytes that the collection takes, None where that is not known."""


def number_in(id: Any) -> int:
    """Return the number of a point; 0 for one that is called by a UUID, which none of ours is."""
    return id if isinstance(id, int) else 0


def numbers_in(points: Iterable[Any]) -> Numbers:
    """Return the numbers of an engine's points [n]."""
    return np.fromiter((number_in(each.id) for each in points), dtype=np.uint64)


def prints_in(points: Iterable[Any], shown: str) -> tuple[Numbers, Numbers]:
    """Return numbers and prints of an engine's points [n]. ModelError that counts those that afmrl did not write."""
    numbers, prints, others = list[int](), list[int](), 0
    for point in points:
        print_ = (point.payload or {}).get(PRINT)
        if isinstance(point.id, int) and isinstance(print_, str) and WRITTEN_PRINT.fullmatch(print_):
            numbers.append(point.id)
            prints.append(int(print_, 16))
        else:
            others += 1
    if others:
        hint = "remove these points, or the whole index, and push again; or give another place"
        of = others + len(numbers)
        raise ModelError(f"{shown}: {others:,} of its {of:,} points were not written by afmrl", hint)
    return np.array(numbers, dtype=np.uint64), np.array(prints, dtype=np.uint64)


def near_in(points: Iterable[Any]) -> list[Near]:
    """Return an engine's results as ours."""
    return [Near(number_in(each.id), float(each.score), each.payload or {}) for each in points]
