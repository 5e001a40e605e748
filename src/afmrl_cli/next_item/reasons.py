"""Which source speaks for a listing, in words: the one that raises it most above the catalog's mean.

d_k = w_k x_k(q, i) - mean over the catalog's listings j of w_k x_k(q, j)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .gallery import Gallery
from .histories import Question
from .neighbours import Neighbours
from .retrieval import Retrieval
from .similar import Similar


@dataclass(frozen=True)
class Reason:
    """The source that speaks for a listing, "" where none does more than for others; the listing of the history that it
    is by, -1 for none; and both in words."""

    source: str
    by: int
    words: str


class Reasons:
    """The reasons of the listings that are recommended for a question."""

    def __init__(self, retrieval: Retrieval, gallery: Gallery, question: Question) -> None:
        self._gallery, self._question = gallery, question
        self._sources = {source.name: source for source in retrieval.recommenders}
        self._above = {name: _above_mean(part[0]) for name, part in retrieval.fused.parts([question]).items()}

    def of(self, listing: int) -> Reason:
        """Return the reason of a listing."""
        times = int((self._question.history == listing).sum())
        above = {name: float(part[listing]) for name, part in self._above.items() if times or name != "had"}
        source = max(above, key=above.__getitem__)
        if above[source] <= 0:  # no source says more of it than of others
            return Reason("", -1, "")
        speaking = self._sources[source]
        by = speaking.closest(self._question, listing) if isinstance(speaking, Neighbours | Similar) else -1
        if by == listing or source == "had":
            return Reason("had", listing, "had before" if times == 1 else f"had {times} times before")
        name = self._gallery.listings[by].name if by >= 0 else ""
        words = {
            "popularity": "taken often",
            "recent popularity": "taken often lately",
            "last item": f"like the last one, {name}",
            "history": f"like {name}",
            "co-occurrence": f"taken together with {name}",
        }
        return Reason(source, by, words[source])


def _above_mean(part: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.isfinite(part)
    found: NDArray[np.float32] = np.where(known, part - part[known].mean(), -np.inf).astype(np.float32)
    return found
