"""Histories: what each customer had to do with, over all listings of the catalog, and the questions asked of them.

    a question   what does this customer take at time t?   history: all that came before t, oldest first
                 target: what was taken at t

Rows of one time, the lines of an order, are in nobody's history but that of later ones: none of them predicts another.
A customer's first rows ask nothing, since there is no history.

Customers are numbered by what they did, not by their hashes: these are made with a key of the folder's own, and what is
sampled, summed or trained in the customers' order must be the same in every folder with the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..recommend.interactions import Interactions
from ..recommend.split import TRAIN, Split

Items = NDArray[np.int32]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """Interactions over `ids`, all listings of the catalog: `item` are places in it. Rows are sorted by customer and
    time; `customer` are places in `customers`, keyed hashes in no order of their own."""

    ids: tuple[str, ...]
    customer: NDArray[np.int32]
    item: Items
    seconds: NDArray[np.int64]
    part: NDArray[np.uint8]
    customers: NDArray[np.uint64]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return where each customer's rows begin: those of customer c are starts[c] to starts[c + 1]."""
        return np.searchsorted(self.customer, np.arange(len(self.customers) + 1))

    @cached_property
    def training(self) -> NDArray[np.bool_]:
        """Return which rows are for training."""
        return np.asarray(self.part == TRAIN)

    def place_of(self, hashed: int) -> int:
        """Return the number of the customer of this hash, -1 where there is none."""
        found = np.flatnonzero(self.customers == np.uint64(hashed))
        return int(found[0]) if len(found) else -1

    def rows_of(self, customer: int) -> slice:
        """Return the rows of a customer."""
        return slice(int(self.starts[customer]), int(self.starts[customer + 1]))


@dataclass(frozen=True)
class Question:
    """One thing to predict. `history` are places of listings, oldest first, with the `times` of each; never empty.
    `target` is -1 where nobody knows it; `customer` -1 for a history that is nobody's."""

    history: Items
    times: NDArray[np.int64]
    seconds: int
    target: int = -1
    customer: int = -1


class Recommender(Protocol):
    """Whatever ranks listings for a question."""

    @property
    def name(self) -> str:
        """Return what tables call it."""

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return scores [questions, listings], the higher the better; finite, but for -inf, which is never shown."""


@runtime_checkable
class Chooser(Recommender, Protocol):
    """One that reads the listings it ranks together: a few of them it ranks otherwise than among all. It was trained
    before, on interactions up to the second `learnt_until`."""

    @property
    def learnt_until(self) -> int:
        """Return seconds since 1970; 0 where it is not known."""

    def among(self, questions: Sequence[Question], listings: NDArray[np.int64]) -> Scores:
        """Return scores [questions, n] of the `listings` [questions, n] alone."""


def make_histories(interactions: Interactions, split: Split, ids: Sequence[str]) -> Histories:
    """Return the histories over the listings `ids` of the catalog; interactions with others are left out."""
    place = {listing: number for number, listing in enumerate(ids)}
    places = np.array([place.get(listing, -1) for listing in interactions.items], dtype=np.int32)
    item = places[interactions.item] if len(places) else np.empty(0, dtype=np.int32)
    there = item >= 0
    item, seconds = item[there], interactions.seconds[there]
    customers = _by_what_they_did(interactions.customer[there], item, seconds, len(interactions.customers))
    number = np.empty(len(customers), dtype=np.int32)
    number[customers] = np.arange(len(customers), dtype=np.int32)
    customer = number[interactions.customer[there]]
    rows = np.argsort(customer, kind="stable")
    return Histories(
        tuple(ids),
        customer[rows],
        item[rows],
        seconds[rows],
        split.part[there][rows],
        interactions.customers[customers],
    )


def _by_what_they_did(
    customer: NDArray[np.int32], item: Items, seconds: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the numbers of `count` customers, whose rows are together, in the order of hashes of items and times."""
    starts = np.searchsorted(customer, np.arange(count + 1)).tolist()
    did = [
        blake2b(item[start:end].tobytes() + seconds[start:end].tobytes(), digest_size=16).digest()
        for start, end in pairwise(starts)
    ]
    return np.array(sorted(range(count), key=did.__getitem__), dtype=np.int64)


def no_histories(ids: Sequence[str]) -> Histories:
    """Return the histories of nobody over the listings `ids`."""
    rows = np.empty(0, dtype=np.int32)
    part, customers = np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.uint64)
    return Histories(tuple(ids), rows, rows, rows.astype(np.int64), part, customers)


def questions_of(histories: Histories, part: int, least: int = 1) -> list[Question]:
    """Return a question for each row of `part` whose customer has `least` rows before its time, in the rows' order."""
    asked = []
    starts = histories.starts
    for row in np.flatnonzero(histories.part == part):
        customer = int(histories.customer[row])
        first = int(starts[customer])
        before = first + int(np.searchsorted(histories.seconds[first : starts[customer + 1]], histories.seconds[row]))
        if before - first >= least:
            asked.append(
                Question(
                    histories.item[first:before],
                    histories.seconds[first:before],
                    int(histories.seconds[row]),
                    int(histories.item[row]),
                    customer,
                )
            )
    return asked
