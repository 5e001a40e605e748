"""What the trained reranker says of the pairs that the other evidence leaves open: one more piece of evidence.

It is asked where the odds of a pair's score, without it, lie within e^OPEN of those of the threshold: elsewhere it
would hardly change a decision, and it costs thousands of times what the other features do. Of all other pairs both
columns are 0, which says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..models.embed_input import Item
from ..retrieval.rerank import cost, with_photos
from ..workspace import Workspace
from .groups import Pair

OPEN = 4.0
AT_A_TIME = 32
KEPT_LISTINGS = 256


@dataclass(frozen=True)
class Reread:
    """The probability of being one product by pair of rows; `summary` is what it took, for the document."""

    probabilities: dict[Pair, float]
    summary: dict[str, Any]

    def columns(self, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return features [p, 2] for and against; both 0 where nothing was asked."""
        made = np.zeros((len(pairs), 2), dtype=np.float32)
        for at, (a, b) in enumerate(pairs.tolist()):
            if (a, b) in self.probabilities:
                made[at] = self.probabilities[a, b], 1 - self.probabilities[a, b]
        return made


def open_pairs(pairs: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Return those of `pairs` [p, 2] whose scores [p] lie near the threshold."""
    near = np.abs(_log_odds(scores) - _log_odds(np.float64(threshold))) <= OPEN
    return np.asarray(pairs[near], dtype=np.int64)


def _log_odds(scores: Any) -> Any:
    inside = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))


def reread(work: Workspace, products: Sequence[Product], pairs: NDArray[np.int64]) -> Reread:
    """Ask the trained reranker about `pairs` of rows, both orders of each. Raises ModelError where there is none."""
    from ..models.reranker import probabilities

    reranker, problems, began = work.reranker(), Problems(), time.monotonic()

    @lru_cache(KEPT_LISTINGS)
    def item(row: int) -> Item:
        product = products[row]
        return with_photos(Item(product_text(product), product.images), product.id, reranker, work.settings, problems)

    scores = []
    for start in range(0, len(pairs), AT_A_TIME):
        some = pairs[start : start + AT_A_TIME].tolist()
        scores.append(reranker.score([(item(a), item(b)) for a, b in some]))
        work.listener.progress("reranking", start + len(some), len(pairs))
    problems.tell(work.listener)
    both = np.concatenate(scores) if scores else np.empty((0, 2))
    said = dict(zip(map(tuple, pairs.tolist()), probabilities(both).tolist(), strict=True))
    summary, words = cost(both, time.monotonic() - began)
    work.listener.note(f"the reranker on what is open: {words}")
    return Reread(said, {"reranker": reranker.id, **summary})
