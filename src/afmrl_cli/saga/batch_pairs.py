"""Pairs of photos of a batch that the generator is asked about: half of one class, half of near wrong ones.

A photo of another class that is far away is told apart by everybody: all answers are right, no verdict differs and
there is nothing to learn. So, once the vectors mean something, the nearest wrong ones are taken. Which of the two
stands first is sampled, since a verdict must not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int, bool]
"""The photos of a batch by number, in the order in which they are shown, and whether they are of one class."""


def pairs_in_turn(
    labels: Sequence[int], listings: Sequence[str], vectors: NDArray[np.float32] | None, rng: np.random.Generator
) -> Iterator[Pair]:
    """Yield pairs of a batch, one of the same class and one of two in turn, each once, until one kind has no more.

    `vectors` [n, d] are unit vectors by which wrong ones are near (None: at random). Photos of one listing are a pair
    only where a class has no others: they show that it is one product, not what its class has in common.
    """
    n = len(labels)
    same = [(a, b) for a in range(n) for b in range(a + 1, n) if labels[a] == labels[b]]
    others = [(a, b) for a, b in same if listings[a] != listings[b]]
    alike = {labels[a] for a, _ in others}
    same = others + [(a, b) for a, b in same if labels[a] not in alike]
    right = [same[i] for i in rng.permutation(len(same))]
    for one, other in zip(right, _wrong(labels, vectors, rng), strict=False):
        yield _swapped(one, True, rng)
        yield _swapped(other, False, rng)


def _swapped(pair: tuple[int, int], same: bool, rng: np.random.Generator) -> Pair:
    a, b = pair if rng.random() < 0.5 else pair[::-1]
    return a, b, same


def _wrong(
    labels: Sequence[int], vectors: NDArray[np.float32] | None, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield pairs of two classes: of anchors at random the nearest that is left, without vectors any."""
    n = len(labels)
    kinds = np.asarray(labels)
    near = rng.random((n, n)) if vectors is None else np.asarray(vectors @ vectors.T, dtype=np.float64)
    near[kinds[:, None] == kinds] = -np.inf
    while True:
        left = [a for a in rng.permutation(n).tolist() if np.isfinite(near[a]).any()]
        if not left:
            return
        for a in left:
            if np.isfinite(near[a]).any():
                b = int(near[a].argmax())
                near[a, b] = near[b, a] = -np.inf
                yield a, b
