"""Which ranks follow from scores that another kernel, or another batch, would give a little differently."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.scores import TIE

NOISE = 3e-6
"""By how much the difference of two fp32 scores may move, generously."""


def possible_ranks(
    scores: NDArray[np.float32], row: int, hidden: Collection[int] = (), noise: float = NOISE
) -> tuple[int, int]:
    """(least, greatest) rank of `row` that scores [n] allow when each difference may be off by `noise`."""
    least = greatest = 1
    for other, score in enumerate(scores.tolist()):
        if other == row or other in hidden:
            continue
        ahead = score - float(scores[row])
        limit = -TIE if other < row else TIE  # an earlier row comes first unless it is worse than tied
        least += ahead > limit + noise
        greatest += ahead > limit - noise
    return least, greatest
