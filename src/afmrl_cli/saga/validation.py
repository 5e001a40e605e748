"""How well photos find photos of their class: Recall@k on the validation split.

    Recall@k = share of the photos among whose k nearest others is one of their class

A photo's own listing is not searched where its class has other listings: that a product looks like itself says little.
Photos without any right answer ask nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .photos import LabelledPhoto

KS = (1, 4)
METRICS = tuple(f"recall@{k}" for k in KS)


def recall_by_class(vectors: NDArray[np.float32], photos: Sequence[LabelledPhoto]) -> dict[str, float]:
    """Return Recall@1 and @4 of photos with unit vectors [n, d]; {} where none has a right answer."""
    labels = np.array([photo.label for photo in photos])
    _, listings = np.unique([photo.listing for photo in photos], return_inverse=True)
    hits: dict[int, list[bool]] = {k: [] for k in KS}
    for i in range(len(photos)):
        own = listings == listings[i]
        same = labels == labels[i]
        hidden = own if (same & ~own).any() else np.arange(len(photos)) == i
        if not (same & ~hidden).any():
            continue
        scores = np.where(hidden, -np.inf, vectors @ vectors[i])
        # Of equal scores the wrong ones come first, so that nothing is won by vectors that are all alike.
        order = np.lexsort((same, -scores))[: max(KS)]
        for k in KS:
            hits[k].append(bool(same[order[:k]].any()))
    return {f"recall@{k}": float(np.mean(found)) for k, found in hits.items()} if hits[1] else {}
