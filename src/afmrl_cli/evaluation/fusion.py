"""Two rankings as one, by ranks alone: reciprocal rank fusion (Cormack, Clarke, Buettcher 2009).

    score(d) = sum over the rankings that hold d of  (k + 1) / (k + rank of d),   k = 60

The paper's 1 / (k + rank), scaled so that a first place counts 1: written with six decimals, neighbours far down the
ranking would else be ties. Scores of the two systems need no common scale, and none is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

from .metrics import Run, ranked_ids

RRF_K = 60


def fused(runs: Sequence[Run], depth: int) -> dict[str, list[tuple[str, float]]]:
    """The fusion of `runs`, at most `depth` products a query; a query that only one run answers keeps its order."""
    found: dict[str, list[tuple[str, float]]] = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores: dict[str, float] = {}
        for run in runs:
            for rank, product in enumerate(ranked_ids(run.get(query, ())), 1):
                scores[product] = scores.get(product, 0.0) + (RRF_K + 1) / (RRF_K + rank)
        best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        found[query] = best[:depth]
    return found
