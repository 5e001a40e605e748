"""Train, validation and test of interactions: by one date for all customers, or each customer's last ones.

    time    train: t < t1, validation: t1 <= t < t2, test: t2 <= t; t1 and t2 are the times at which the shares of
            interactions after them come nearest to `recommend.validation` + `recommend.test` and `recommend.test`
    last    of customers with three interactions and more the last one is test, the one before validation

With `last`, as papers use it, training holds what other customers did after a customer's test: sales, seasons and new
products of the future leak into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..recommend_settings import RecommendSettings
from .interactions import Interactions

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")
LEAST_HISTORY = 3
LEAK = "leaks: training holds what other customers did after a customer's test"


@dataclass(frozen=True)
class Split:
    """The part of each interaction: 0 train, 1 validation, 2 test. `dates` are t1 and t2 in seconds; with `last` there
    are none."""

    kind: Literal["time", "last"]
    part: NDArray[np.uint8]
    dates: tuple[int, int] | None


def split_interactions(interactions: Interactions, settings: RecommendSettings) -> Split:
    """Divide the interactions as the settings say."""
    if settings.split == "last":
        return Split("last", _last(interactions), None)
    times = np.sort(interactions.seconds)
    first = _boundary(times, settings.validation + settings.test)
    second = max(first, _boundary(times, settings.test))
    part = (interactions.seconds >= first).astype(np.uint8) + (interactions.seconds >= second)
    return Split("time", part.astype(np.uint8), (first, second))


def _boundary(times: NDArray[np.int64], share: float) -> int:
    """Return the time from which on `share` of the sorted `times` are, as nearly as equal times allow; never the first
    one, so that something is before it."""
    wanted = share * len(times)
    after = int(times[-1]) + 1
    if not wanted:
        return after
    at = int(times[min(len(times) - 1, max(0, len(times) - round(wanted)))])
    later = int(np.searchsorted(times, at, "right"))
    following = int(times[later]) if later < len(times) else after
    fits = abs(len(times) - int(np.searchsorted(times, at)) - wanted) <= abs(len(times) - later - wanted)
    return at if fits and at > times[0] else following


def _last(interactions: Interactions) -> NDArray[np.uint8]:
    part = np.zeros(len(interactions), dtype=np.uint8)
    ends = interactions.starts[1:][interactions.lengths >= LEAST_HISTORY]
    part[ends - 1], part[ends - 2] = TEST, VALIDATION
    return part


def split_summary(interactions: Interactions, split: Split) -> dict[str, Any]:
    """Count the parts; of the later ones also customers and items that training does not have."""
    customers, items = interactions.customer, interactions.item
    known_customers = np.zeros(len(interactions.customers), dtype=np.bool_)
    known_customers[customers[split.part == TRAIN]] = True
    known_items = np.zeros(len(interactions.items), dtype=np.bool_)
    known_items[items[split.part == TRAIN]] = True
    found: dict[str, Any] = {"kind": split.kind, "leaks": LEAK if split.kind == "last" else ""}
    if split.dates:
        found |= {"validation_from": day_of(split.dates[0]), "test_from": day_of(split.dates[1])}
    for number, name in enumerate(PARTS):
        here = split.part == number
        who, what = customers[here], items[here]
        found[name] = {
            "interactions": int(here.sum()),
            "share": round(float(here.mean()), 4),
            "customers": len(np.unique(who)),
            "items": len(np.unique(what)),
            "first": day_of(interactions.seconds[here].min()) if here.any() else "",
            "last": day_of(interactions.seconds[here].max()) if here.any() else "",
        }
        if number != TRAIN:
            new_customers, new_items = ~known_customers[who], ~known_items[what]
            found[name] |= {
                "new_customers": len(np.unique(who[new_customers])),
                "interactions_of_new_customers": int(new_customers.sum()),
                "new_items": len(np.unique(what[new_items])),
                "interactions_with_new_items": int(new_items.sum()),
            }
    return found


def day_of(seconds: int | np.int64) -> str:
    """Return a time as ISO 8601, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
