"""Histories and questions written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afmrl_cli.next_item.histories import Histories, Question
from afmrl_cli.recommend.split import TRAIN

DAY = 86_400
Row = tuple[int, int, int] | tuple[int, int, int, int]
"""Customer, listing, day, and the part where it is another than training."""


def histories(rows: Sequence[Row], listings: int, customers: int | None = None) -> Histories:
    full = sorted((*row, TRAIN)[:4] for row in rows)
    full.sort(key=lambda row: (row[0], row[2], row[1]))
    customer, item, day, part = (np.array(column) for column in zip(*full, strict=True)) if full else [np.empty(0)] * 4
    count = customers if customers is not None else int(customer.max(initial=-1)) + 1
    return Histories(
        tuple(f"P{number}" for number in range(listings)),
        customer.astype(np.int32),
        item.astype(np.int32),
        day.astype(np.int64) * DAY,
        part.astype(np.uint8),
        np.arange(count, dtype=np.uint64),
    )


def question(*history: int, days: Sequence[int] | None = None, day: int = 1_000, target: int = -1) -> Question:
    times = np.array(days if days is not None else range(len(history)), dtype=np.int64) * DAY
    return Question(np.array(history, dtype=np.int32), times, day * DAY, target)
