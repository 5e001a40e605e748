"""Validation of the reranker: what the embedder finds first, put into another order.

    mrr     mean over the queries of 1 / rank of the first relevant among the candidates; 0 where none of them is
    hit@1   share of the queries whose first candidate is relevant
    auc     share of (relevant, irrelevant) candidates of one query of which the relevant one has the higher score

Queries and gallery are those by which AGCL chooses its best step (`training.validation`). Each metric is given for the
embedder's own order, the reranker's, and both fused by the weight with the best mrr (`models.reranker.fuse`); of
equal ones the lowest, which trusts the embedder most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.reranker import Scores, fuse, position_bias
from ..scores import best_first, ranks_of
from ..settings import Settings
from ..training.pairs import Side, first_photos_of
from ..training.validation import Validation
from .groups import Encode

WEIGHTS = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class Ranking:
    """The candidates [q][k] of the queries, nearest first, with cosines and which are relevant [q][k]. `asked` are the
    queries that have a relevant one: the others can't be mended.
    """

    queries: list[Side]
    candidates: list[list[Side]]
    cosines: list[NDArray[np.float32]]
    relevant: list[NDArray[np.bool_]]

    @property
    def asked(self) -> list[int]:
        """Return the numbers of the queries that have a relevant candidate."""
        return [i for i, relevant in enumerate(self.relevant) if relevant.any()]


def make_ranking(validation: Validation, encode: Encode, settings: Settings) -> Ranking:
    """Let the embedder find the candidates of each query."""
    vectors = encode(validation.queries, settings.embed.query_instruction)
    gallery = encode(validation.gallery, settings.embed.target_instruction)
    scores = np.where(validation.excluded, -np.inf, vectors @ gallery.T)
    most = settings.model.generator_images
    candidates, cosines, relevant = [], [], []
    for i, row in enumerate(scores):
        there = np.flatnonzero(np.isfinite(row))
        rows, found = best_first(row[there], settings.rerank.candidates, there)
        candidates.append([first_photos_of(validation.gallery[j], most) for j in rows])
        cosines.append(found)
        relevant.append(validation.relevant[i, rows])
    return Ranking([first_photos_of(query, most) for query in validation.queries], candidates, cosines, relevant)


def metrics_of(ranking: Ranking, scores: Sequence[Scores]) -> dict[str, float]:
    """Return the metrics of scores [k, 2] for each of `ranking.asked`."""
    asked, number = ranking.asked, len(ranking.queries)
    ranks = {weight: _ranks(ranking, asked, scores, weight) for weight in WEIGHTS}
    mrr = {weight: float((1 / found).sum()) / number for weight, found in ranks.items()}
    best = max(WEIGHTS, key=lambda weight: (mrr[weight], -weight))
    named = {"": best, "_embedder": 0.0, "_reranker": 1.0}
    return {
        **{f"mrr{name}": mrr[weight] for name, weight in named.items()},
        **{f"hit@1{name}": float((ranks[weight] == 1).sum()) / number for name, weight in named.items()},
        "auc": _auc(ranking, asked, scores),
        "weight": best,
        **position_bias(np.concatenate(list(scores)) if scores else np.empty((0, 2))),
    }


def _ranks(ranking: Ranking, asked: Sequence[int], scores: Sequence[Scores], weight: float) -> NDArray[np.int64]:
    """Return the rank of the first relevant candidate of each query in `asked`."""
    found = [
        ranks_of(fuse(own, ranking.cosines[i], weight), np.flatnonzero(ranking.relevant[i])).min()
        for i, own in zip(asked, scores, strict=True)
    ]
    return np.array(found, dtype=np.int64)


def _auc(ranking: Ranking, asked: Sequence[int], scores: Sequence[Scores]) -> float:
    shares = []
    for i, own in zip(asked, scores, strict=True):
        mean, relevant = own.mean(axis=1), ranking.relevant[i]
        if not relevant.all():
            apart = mean[relevant][:, None] - mean[~relevant][None, :]
            shares.append(float(((apart > 0) + 0.5 * (apart == 0)).mean()))
    return float(np.mean(shares)) if shares else 0.5
