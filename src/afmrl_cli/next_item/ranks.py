"""Each question's rank by each system as a table: to look at single cases, or to test differences elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..escaping import write_csv
from ..recommend.customers import shown
from ..recommend.split import day_of
from ..store.files import writing
from ..store.written import RANK_COLUMNS
from .measure import Measurement


def write_ranks(file: Path, measured: Measurement) -> None:
    """Write a row for each question to `file`, atomically: customer (by hash), time, what was taken, how many rows the
    history has, and by each system the rank among all listings, the mean of ties; empty where it is never shown.
    """
    with writing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as held:
        write_csv(held, _rows(measured))


def _rows(measured: Measurement) -> Iterator[list[object]]:
    histories = measured.histories
    columns = {name: np.where(r.full.never, np.nan, r.full.mean) for name, r in measured.ranked.items()}
    yield [*RANK_COLUMNS, *columns]
    for row, question in enumerate(measured.questions):
        ranks = ["" if np.isnan(each[row]) else f"{each[row]:g}" for each in columns.values()]
        who = shown(int(histories.customers[question.customer]))
        yield [who, day_of(question.seconds), histories.ids[question.target], len(question.history), *ranks]
