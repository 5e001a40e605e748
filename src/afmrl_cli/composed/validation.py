"""Recall and MRR of composed queries on the validation split: what `eval --protocol composed` measures, made smaller.

Queries are triplets and the gallery listings of the split, of many a fixed sample. Each triplet asks with the known
attributes of its reference, where there are some, and without: with them a query can do without the photo, and what a
training spoils there is not seen. Far triplets ask only where there are too few others, since few people change four
attributes of what they have found. The reference's listings are taken out, and so are listings that answer as well as
the target does: they are neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.splits import LEAST_PRODUCTS
from ..scores import ranks_of
from ..training.pairs import Side, TrainListing
from ..training.validation import GALLERY_PER_QUERY, KS, LEAST_QUERIES
from .corpus import Example
from .plan import Plan

METRICS = {*(f"recall@{k}" for k in KS), "mrr"}


@dataclass(frozen=True)
class Validation:
    """`targets` are rows of the gallery; `excluded` bool [queries, gallery]."""

    queries: list[Side]
    gallery: list[Side]
    targets: list[int]
    excluded: NDArray[np.bool_]

    def metrics(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
        """Return recall@k and mrr of unit vectors [queries, d] and [gallery, d]."""
        scores = np.where(self.excluded, -np.inf, queries @ gallery.T)
        ranks = np.array([ranks_of(row, [target])[0] for row, target in zip(scores, self.targets, strict=True)])
        recall = {f"recall@{k}": float((ranks <= k).mean()) for k in KS}
        return {**recall, "mrr": float((1 / ranks).mean())}

    def describe(self) -> dict[str, object]:
        """Describe it for people and JSON: what the metrics are of."""
        return {"queries": len(self.queries), "gallery": len(self.gallery)}


def make_validation(plan: Plan) -> Validation | None:
    """Return the queries and gallery; None where the split has too few triplets."""
    if plan.validation is None or len(plan.validation.rows) < LEAST_QUERIES:
        return None
    listings, composed = plan.corpus.validation, plan.settings.composed
    near = [row for row in plan.validation.rows if row.window != "far"]
    offered = near if len(near) >= LEAST_PRODUCTS else plan.validation.rows
    order = np.random.default_rng(composed.seed).permutation(len(offered))
    rows = [offered[i] for i in sorted(order[: composed.validation_queries].tolist())]
    shown = _gallery(rows, listings, GALLERY_PER_QUERY * composed.validation_queries, composed.seed)
    place = {number: row for row, number in enumerate(shown)}
    queries = [(row, side) for row in rows for side in plan.validation_queries(row, listings)]
    rows = [row for row, _ in queries]
    return Validation(
        [side for _, side in queries],
        [plan.listing_side(listings, i) for i in shown],
        [place[row.target] for row in rows],
        np.array([_excluded(row, shown, listings) for row in rows]),
    )


def _gallery(rows: list[Example], listings: list[TrainListing], most: int, seed: int) -> list[int]:
    """Return the targets, and other listings beside them: all, or a sample that makes it `most`."""
    targets = {row.target for row in rows}
    others = [i for i, each in enumerate(listings) if i not in targets and (each.text or each.photos)]
    kept = np.random.default_rng((seed, len(others))).permutation(len(others))[: max(0, most - len(targets))]
    return sorted([*targets, *(others[i] for i in kept.tolist())])


def _excluded(row: Example, shown: list[int], listings: list[TrainListing]) -> list[bool]:
    """Return for each of the listings `shown` whether it counts neither as right nor as wrong."""
    reference, target = listings[row.reference].identity, listings[row.target].identity
    return [i != row.target and (listings[i].identity in (reference, target) or i in row.answers) for i in shown]
