"""Two rankings as one, by ranks alone: reciprocal rank fusion (Cormack, Clarke, Buettcher 2009).

    score(d) = sum over the rankings that hold d of  (k + 1) / (k + rank of d),   k = 60

The paper's 1 / (k + rank), scaled so that a first place counts 1: written with six decimals, neighbours far down the
ranking would else be ties. They are rounded to that before they are ranked, as all scores are. Scores of the two
systems need no common scale, and none is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

from .metrics import Run, ranked_ids
from .trec import SCORE_DECIMALS

RRF_K = 60


def fused(runs: Sequence[Run], depth: int) -> dict[str, list[tuple[str, float]]]:
    """The fusion of `runs`, at most `depth` products a query; a query that only one run answers keeps its order."""
    found: dict[str, list[tuple[str, float]]] = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores: dict[str, float] = {}
        for run in runs:
            for rank, product in enumerate(ranked_ids(run.get(query, ())), 1):
                scores[product] = scores.get(product, 0.0) + (RRF_K + 1) / (RRF_K + rank)
        rounded = {product: round(score, SCORE_DECIMALS) for product, score in scores.items()}
        found[query] = [(product, rounded[product]) for product in ranked_ids(list(rounded.items()))[:depth]]
    return found
