"""How much each step of a history weighs: the last ones most, and what comes again as often as it comes.

    w(q, i) = sum over the rows of q's history with listing i of f^age / sum over all its rows of f^age

The age of a row is how many later times the history has, so that the lines of an order are of one age: 0 for the last.
With f = 0 only the last ones count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .histories import Question

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FADE = 0.9
MOST_ROWS = 200
"""Of a history, the last ones: what is before weighs nothing."""


def step_weights(times: NDArray[np.int64], fade: float) -> NDArray[np.float64]:
    """Return the weight of each row of a history, by its sorted `times`; their sum is 1."""
    later = np.concatenate(([0], np.cumsum(np.diff(times) > 0)))
    weights = np.power(fade, (later[-1] - later).astype(np.float64))
    found: NDArray[np.float64] = weights / weights.sum()
    return found


def weighted_histories(questions: Sequence[Question], listings: int, fade: float = FADE) -> csr_array:
    """Return w [questions, listings]; each row's sum is 1."""
    from scipy.sparse import csr_array

    items = [question.history[-MOST_ROWS:] for question in questions]
    weights = [step_weights(question.times[-MOST_ROWS:], fade) for question in questions]
    ends = np.cumsum([0, *map(len, items)])
    found = csr_array(
        (np.concatenate([np.empty(0), *weights]), np.concatenate([np.empty(0, dtype=np.int32), *items]), ends),
        shape=(len(questions), listings),
    )
    found.sum_duplicates()
    found.eliminate_zeros()
    return found
