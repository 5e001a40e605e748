"""What an index is to the rest: collections of points behind one name, of which one counts.

A collection holds the vectors of one embedder, and is called by them (`card.version_of`). A new one is filled beside
the one that counts and then named in its place, at once; only then the other one goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..listener import Listener
from .card import Card
from .conditions import Condition
from .points import Numbers

EXACT_KB = 50_000
"""Where no more vectors than this pass a filter, in one of the engine's segments, they are compared one by one: nothing
is lost. So HNSW needs no links of its own for each value of a filter, which take most of the time of building it.
"""
LINKS, BUILD_EFFORT = 16, 100
INDEX_KEY_VARIABLE = "AFMRL_INDEX_KEY"


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
        """Return numbers and prints of all points [n], by number."""

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""

    def finish(self, listener: Listener) -> None:
        """Wait until all points are in the engine's own index, and on disk."""

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""

    def replace(self) -> None:
        """Let the collection count from now on, and remove the others."""

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
