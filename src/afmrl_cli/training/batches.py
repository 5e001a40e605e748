"""Batches that contain hard negatives, and never two listings of one product, which would be each other's negatives.

random       sampled at random; enough for batches of a thousand
category     each batch from one category; what is left of the small categories is mixed
neighbours   a batch is filled with clusters: a product at random and those most like it by their attributes
             (BM25), whatever their category, so that every query meets close and far negatives

auto takes neighbours for batches below 512 when there are attributes, category when there are none, random above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import DataError
from ..training_settings import AgclSettings
from .lexical import Lexical

Strategy = Literal["random", "category", "neighbours"]
SMALL_BATCH = 512
CLUSTER = AgclSettings.cluster
"""Neighbours that stand together in a batch."""
OPEN_BATCHES = 8
"""Batches that are filled at a time; a pair whose product stands in all of them waits for the next epoch."""


def choose_strategy(
    wanted: Literal["auto", "random", "category", "neighbours"], batch_size: int, attributes: bool
) -> Strategy:
    """Return `agcl.batches`, with auto resolved."""
    if wanted != "auto":
        return wanted
    if batch_size >= SMALL_BATCH:
        return "random"
    return "neighbours" if attributes else "category"


@dataclass
class _Filling:
    """Batches being filled, each without two of one identity."""

    size: int
    full: list[list[int]] = field(default_factory=list)
    open: list[dict[str, int]] = field(default_factory=list)

    def add(self, pair: int, identity: str) -> bool:
        """Put the pair into the first open batch that has room for its product; False when there is none."""
        for batch in self.open:
            if identity not in batch:
                batch[identity] = pair
                if len(batch) == self.size:
                    self.full.append(list(batch.values()))
                    self.open.remove(batch)
                return True
        if len(self.open) < OPEN_BATCHES:
            self.open.append({identity: pair})
            return True
        return False

    def leftovers(self) -> list[int]:
        """Return the pairs of batches that are not full."""
        return [pair for batch in self.open for pair in batch.values()]


def plan_batches(
    identities: Sequence[str],
    categories: Sequence[str],
    rows: Sequence[int],
    lexical: Lexical | None,
    *,
    batch_size: int,
    strategy: Strategy,
    seed: tuple[int, int],
) -> list[list[int]]:
    """Plan one epoch: full batches of pair numbers, in the order of training. The same `seed` gives the same
    plan.

    Pair i is about a product `identities[i]` of `categories[i]`, whose attributes are row `rows[i]` of `lexical`
    (needed for neighbours). What does not fill a batch waits for
    the next epoch. DataError when there are fewer products than the batch holds.
    """
    check_batch_size(identities, batch_size)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(identities)).tolist()
    if strategy == "category":
        batches = _by_category(order, identities, categories, batch_size)
    elif strategy == "neighbours" and lexical is not None:
        batches = _fill(_clustered(order, identities, rows, lexical), identities, batch_size)[0]
    else:
        batches = _fill(order, identities, batch_size)[0]
    return [batches[i] for i in rng.permutation(len(batches))]


def check_batch_size(identities: Sequence[str], batch_size: int) -> None:
    """Raise DataError when there are fewer different products than a batch holds."""
    products = len(set(identities))
    if products < batch_size:
        raise DataError(
            f"{products:,} products with a positive pair are fewer than agcl.batch_size = {batch_size:,}",
            f"set agcl.batch_size to {max(products, 2)} or less, or add products",
        )


def _fill(order: Sequence[int], identities: Sequence[str], batch_size: int) -> tuple[list[list[int]], list[int]]:
    """Return (full batches, pairs that are left over)."""
    filling = _Filling(batch_size)
    waiting = [pair for pair in order if not filling.add(pair, identities[pair])]
    return filling.full, filling.leftovers() + waiting


def _by_category(
    order: Sequence[int], identities: Sequence[str], categories: Sequence[str], batch_size: int
) -> list[list[int]]:
    members: dict[str, list[int]] = {}
    for pair in order:
        members.setdefault(categories[pair], []).append(pair)
    batches: list[list[int]] = []
    left: list[int] = []
    for pairs in members.values():
        full, rest = _fill(pairs, identities, batch_size)
        batches += full
        left += rest
    return batches + _fill(left, identities, batch_size)[0]


def _clustered(order: Sequence[int], identities: Sequence[str], rows: Sequence[int], lexical: Lexical) -> list[int]:
    """Return `order` rearranged: a pair, then its nearest others of different products, then the next pair that is
    left.
    """
    pairs_of_row: dict[int, list[int]] = {}
    for pair in reversed(order):
        pairs_of_row.setdefault(rows[pair], []).append(pair)
    left = np.zeros(len(lexical.bm25), dtype=bool)
    left[list(pairs_of_row)] = True
    arranged: list[int] = []

    def take(row: int) -> int:
        pair = pairs_of_row[row].pop()
        left[row] = bool(pairs_of_row[row])
        return pair

    for first in order:
        row = rows[first]
        if not left[row] or first not in pairs_of_row[row]:
            continue
        seen = {identities[first]}
        arranged.append(take(row))
        scores = np.where(left, lexical.bm25.against_all(row), 0.0)
        # A few more than needed: some are other listings of a product that is already here.
        nearest = np.argsort(-scores, kind="stable")[: 4 * CLUSTER]
        for near in nearest.tolist():
            if len(seen) == CLUSTER or scores[near] <= 0:
                break
            if identities[pairs_of_row[near][-1]] not in seen:
                pair = take(near)
                seen.add(identities[pair])
                arranged.append(pair)
    return arranged + [pair for row in np.flatnonzero(left).tolist() for pair in pairs_of_row[row]]
