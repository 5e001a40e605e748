"""What is taken out of readable interactions: impossible times, customers to forget, duplicates, returns with their
purchases, bots, items that the catalog does not have. The order of rows makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .customers import Customers, shown
from .left_out import EXAMPLES, LeftOut
from .private import harmless
from .rows import Columns, Names
from .times import DAY, EARLIEST

MOST_UNKNOWN = 10
MEDIAN_TIMES, LEAST_EVENTS = 100, 500
"""A customer with more events than so many times the median customer's, and than the second, is a program."""
SAME = ("customer", "item", "seconds", "quantity", "event", "order", "undo")
"""What duplicates have in common."""
DUPLICATE, RETURN, RETURNED, ALONE = "duplicate row", "return", "returned purchase", "return without a purchase"


@dataclass(frozen=True)
class Cleaned:
    """The interactions that are left, with the bound for bots, purchases of which a part came back, and the earliest
    time in the future (0 for none): from then on the files are read otherwise."""

    columns: Columns
    most_events: int
    reduced: int
    next_future: int
    unknown: int
    most_unknown: list[tuple[str, int]]
    """How many items the catalog does not have, and the most frequent ones."""


def clean(read: Columns, names: Names, customers: Customers, most_events: int, now: int, left_out: LeftOut) -> Cleaned:
    """Take out what can't count; each row is counted under the first reason that holds."""

    def without(columns: Columns, reason: str, wrong: NDArray[np.bool_]) -> Columns:
        """Take out rows, with the first ones as examples."""
        left_out.add_rows(reason, columns.file[wrong], columns.row[wrong])
        return columns.kept(~wrong)

    future = read.seconds > now + DAY  # a day for zones that nobody named
    next_future = int(read.seconds[future].min()) if future.any() else 0
    left = without(read, "time in the future", future)
    left = without(left, "time before 1990", left.seconds < EARLIEST)
    forgotten = np.array(sorted(customers.forgotten), dtype=np.uint64)
    left = _without(left, "forgotten customer", np.isin(left.customer, forgotten), [], left_out)
    left = without(left, DUPLICATE, _repeated(left))
    left, reduced = _undo(left, left_out)
    most = most_events or _bound(left.customer)
    who, at, counts = np.unique(left.customer, return_inverse=True, return_counts=True)
    bots = counts > most
    messages = [f"customer {shown(int(who[i]))}: {counts[i]:,} events" for i in np.flatnonzero(bots)[:EXAMPLES]]
    if bots.any():
        left = _without(left, "bot", bots[at], messages, left_out)
    known = np.array([bool(how) for how in names.how], dtype=np.bool_)
    missing = ~known[left.item]
    most_unknown, unknown = _most_frequent(left.item[missing], names), len(np.unique(left.item[missing]))
    left = without(left, "not in the catalog", missing)
    return Cleaned(left, most, reduced, next_future, unknown, most_unknown)


def _most_frequent(item: NDArray[np.int32], names: Names) -> list[tuple[str, int]]:
    """Return the most frequent of `item` with their counts, without what looks like personal data."""
    numbers, counts = np.unique(item, return_counts=True)
    found = sorted((-int(count), names.names[number]) for number, count in zip(numbers, counts, strict=True))
    return [(harmless(name), -count) for count, name in found[:MOST_UNKNOWN]]


def _without(
    columns: Columns, reason: str, wrong: NDArray[np.bool_], messages: list[str], left_out: LeftOut
) -> Columns:
    """Take out rows of customers; the examples are `messages`, and no rows."""
    for message in messages:
        left_out.add(reason, 0, 0, message)
    if wrong.any():
        left_out.counts[reason] = int(wrong.sum())
        left_out.examples.setdefault(reason, [])
    return columns.kept(~wrong)


def _bound(customer: NDArray[np.uint64]) -> int:
    """Return how many events a customer may have."""
    if not len(customer):
        return LEAST_EVENTS
    _, counts = np.unique(customer, return_counts=True)
    return max(LEAST_EVENTS, int(MEDIAN_TIMES * np.median(counts)))


def _repeated(columns: Columns) -> NDArray[np.bool_]:
    """Tell which rows say what an earlier one has said: customer, item, time, quantity, event and order. The first one
    by file and row counts."""
    keys = (
        columns.customer,
        columns.item,
        columns.seconds,
        columns.quantity,
        columns.event,
        columns.order,
        columns.undo,
    )
    order = np.lexsort((columns.row, columns.file, *keys))
    same = np.ones(max(0, len(order) - 1), dtype=np.bool_)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    repeated = np.zeros(len(order), dtype=np.bool_)
    repeated[order[1:][same]] = True
    return repeated


def _undo(columns: Columns, left_out: LeftOut) -> tuple[Columns, int]:
    """Take out returns, and the latest earlier purchases of the same customer and item, up to the returned quantity.
    Returns also of how many purchases a part is left."""
    if not columns.undo.any():
        return columns, 0
    order = np.lexsort((columns.row, columns.quantity, columns.undo, columns.seconds, columns.item, columns.customer))
    customer, item = columns.customer[order], columns.item[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (customer[1:] != customer[:-1]) | (item[1:] != item[:-1])
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))
    touched = np.flatnonzero(np.maximum.reduceat(columns.undo[order].astype(np.int8), starts))
    quantity = columns.quantity.copy()
    alone = np.zeros(len(order), dtype=np.bool_)
    for group in touched:
        open_: list[int] = []
        for at in order[starts[group] : ends[group]]:
            if not columns.undo[at]:
                open_.append(int(at))
                continue
            back = float(quantity[at])
            alone[at] = not open_
            while back > 0 and open_:
                taken = min(back, float(quantity[open_[-1]]))
                quantity[open_[-1]] -= taken
                back -= taken
                if quantity[open_[-1]] <= 0:
                    open_.pop()
    gone = ~columns.undo & (quantity <= 0)
    reduced = int((~columns.undo & (quantity > 0) & (quantity < columns.quantity)).sum())
    for reason, wrong in ((ALONE, columns.undo & alone), (RETURN, columns.undo & ~alone), (RETURNED, gone)):
        left_out.add_rows(reason, columns.file[wrong], columns.row[wrong])
    left = Columns(**{**vars(columns), "quantity": quantity})
    return left.kept(~(columns.undo | gone)), reduced
