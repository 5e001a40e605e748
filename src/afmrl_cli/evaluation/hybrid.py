"""The hybrid search as a system: `retrieval.hybrid` over a task's gallery, weighted as other queries choose.

    w = of all weights of the parts in steps of 1 / STEPS that sum to 1 those nearest to the defaults whose mean metric
        over the tuning queries lies at most CAUTION standard errors (of the paired difference) below the best one's

Chosen for each kind of query by itself (words, photo, both, listing). Which queries tune is as in `fusion`: those about
products of the validation split, where none of them is scored; else each half of the products has the weights of the
other half. Fewer than LEAST_PRODUCTS products choose nothing, and the defaults stay.

What `afmrl embed` stores for `afmrl search` is chosen by the same code from the validation queries of what the catalog
offers: judged queries, photos of products with several, listings of one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import read_stored
from ..catalog.problems import Problems
from ..models.embed_input import Item
from ..retrieval.bm25 import tokenize
from ..retrieval.colors import ID as COLORS_ID
from ..retrieval.colors import ColorEncoder, Colors, usable_colors, wants_colors
from ..retrieval.columns import Columns
from ..retrieval.encode import Input
from ..retrieval.filters import fields_of
from ..retrieval.hybrid import (
    KINDS,
    PARTS,
    Floats,
    Gallery,
    HybridQuery,
    Kind,
    Part,
    Scaled,
    Weights,
    scaled_scores,
    take,
)
from ..retrieval.lexicon import attribute_pairs, center_of, own_pairs
from ..retrieval.named import Named, index_pairs
from ..retrieval.vectors import load_vectors
from ..retrieval.weights import Tuned, default_weights
from ..retrieval.words import index_words
from ..store.files import hash_json
from ..workspace import Workspace
from .fusion import LEAST_PRODUCTS, TUNING_QUERIES
from .metrics import NDCG_CUT, Run
from .ranked import Ranked
from .systems import Encoded, RetrievalSystem, Side, query_key
from .task import COMPOSED, Query, Task, groups_of
from .trec import SCORE_DECIMALS

STEPS = 10
CAUTION = 0.5
"""Few queries choose by luck; with a whole error the choice stays too near to defaults that are far off."""
DEEPEST = 300
"""The best listings of each part, by which weights are chosen: no other one reaches the first ten."""
VALIDATION, OTHER_HALF = "validation", "other half"


@dataclass(frozen=True)
class HybridWeight:
    """The weights of a kind of query, for `scored` of them; chosen by `metric` on `tuned_on` other queries about
    `products` products, or the defaults (`tuned_on` 0).
    """

    kind: Kind
    weights: Weights
    scored: int
    metric: str
    tuned_on: int
    products: int
    source: str
    value: float
    """The mean of `metric` over the tuning queries."""


@dataclass(frozen=True)
class Judged:
    """A query's scaled scores by part with the grades [m] of the same candidates, and the sum that the best ranking of
    its judgements gains.
    """

    scaled: Scaled
    grades: NDArray[np.float64]
    ideal: float
    group: str


class HybridTask:
    """The queries and the gallery of a task as the hybrid search reads them. Composed queries are not its business."""

    def __init__(self, task: Task, encoded: Encoded, work: Workspace, attributes: Mapping[str, str]) -> None:
        self.task, self.ids = task, [document.id for document in encoded.documents]
        self.defaults = default_weights(work)
        self._attributes = attributes
        self._places = {id: row for row, id in enumerate(self.ids)}
        self.queries = {query.id: (query, vector) for query, vector in encoded.queries if query.kind != COMPOSED}
        rows = [document.row for document in encoded.documents]
        self.gallery = Gallery(
            encoded.matrix,
            center_of(encoded.matrix),
            index_words([tokenize(row.text) for row in rows]),
            self._named(encoded),
        )
        self._colors: Mapping[str, Floats] = {}
        if wants_colors(work) and any(query.images for query, _ in self.queries.values()):
            self._colors = self._read_colors(encoded, work)

    def _read_colors(self, encoded: Encoded, work: Workspace) -> dict[str, Floats]:
        """Read the colours of the gallery into it, those that `embed` has stored and others, and return the queries'
        by id.
        """
        vectors = load_vectors(work)
        stored = usable_colors(vectors)
        rows = {key: row for row, key in enumerate(vectors.listings.column("key"))} if stored else {}
        missing = {d.id: d.product.images for d in encoded.documents if d.row.key not in rows}
        made = _encode_colors(missing, "products", work)
        colors = Colors.of([made.get(document.id) for document in encoded.documents])
        for place, document in enumerate(encoded.documents):
            if stored is not None and document.row.key in rows:
                colors.rows[place] = stored.rows[rows[document.row.key]]
        self.gallery = replace(self.gallery, colors=colors)
        return _encode_colors({id: query.images for id, (query, _) in self.queries.items()}, "queries", work)

    def _named(self, encoded: Encoded) -> Named:
        """Return the values that the gallery's listings have: generated ones, and those of the shop's own columns where
        the queries are judged by people and not by such columns.
        """
        rows = [document.row for document in encoded.documents]
        generated = index_pairs(attribute_pairs(self._attributes.get(row.fingerprint, "")) for row in rows)
        if self.task.protocol != "queries" or self.task.gallery_fields == "photos":
            return generated
        own = index_pairs(own_pairs(Columns(fields_of(document.product) for document in encoded.documents)))
        return Named.joined(own, generated)

    def as_hybrid(self, query: Query) -> HybridQuery:
        """Return a query as the parts read it."""
        named, kind = self.gallery.named, kind_of(query)
        assert named is not None
        written = read_stored(query.attributes or self._attributes.get(query.fingerprint, ""))
        wishes = named.wishes("" if kind == "listing" else query.text, written)
        return HybridQuery(self.queries[query.id][1], tokenize(query.text), wishes, self._colors.get(query.id))

    def scaled(self, query: Query, parts: Sequence[Part]) -> Scaled:
        """Return the scaled scores of all listings that a query may find."""
        hidden = [self._places[id] for id in query.exclude if id in self._places]
        if query.within is not None:
            hidden += [row for row, id in enumerate(self.ids) if id not in query.within]
        return scaled_scores(self.gallery, self.as_hybrid(query), parts, hidden)

    def run(self, queries: Iterable[str], weights: Mapping[Kind, Weights], depth: int) -> dict[str, Ranked]:
        """Rank the gallery for `queries`."""
        found: dict[str, Ranked] = {}
        for id in queries:
            query = self.queries[id][0]
            own = weights[kind_of(query)]
            ranking = take(self.scaled(query, parts_of(own)), own, depth)
            if ranking.scores.any():
                scores = ranking.scores.astype(np.float64).round(SCORE_DECIMALS)
                found[id] = Ranked(self.ids, ranking.rows, scores)
        return found

    def judged_all(self) -> Iterator[tuple[Kind, Judged]]:
        """Yield all queries that have a relevant listing, as `judged` does."""
        return self.judged(self.queries)

    def judged(self, queries: Iterable[str]) -> Iterator[tuple[Kind, Judged]]:
        """Yield queries that have a relevant listing, with what choosing weights goes by."""
        names = list(queries)
        groups = dict(zip(names, groups_of(self.task, names), strict=True))
        for id in names:
            grades = self.task.qrels[id]
            query = self.queries[id][0]
            ideal = _gain(np.sort([max(grade, 0) for grade in grades.values()])[::-1][:NDCG_CUT])
            if ideal:
                scaled = _first(self.scaled(query, PARTS))
                own = np.array([max(grades.get(self.ids[row], 0), 0) for row in scaled.rows], dtype=np.float64)
                yield kind_of(query), Judged(scaled, own, ideal, groups[id])


def _encode_colors(photos: Mapping[str, Sequence[Path]], side: Side, work: Workspace) -> dict[str, Floats]:
    """Return the colours of photos by name; of names without a readable one there are none."""
    system = RetrievalSystem("colors", COLORS_ID, ColorEncoder, text=False)
    inputs = {
        name: Input(query_key("", images), Item("", tuple(images)), name) for name, images in photos.items() if images
    }
    made = system.encode(work, list(inputs.values()), side, Problems()) if inputs else {}
    return {name: made[wanted.key] for name, wanted in inputs.items() if wanted.key in made}


def kind_of(query: Query) -> Kind:
    """Return what asks."""
    if query.kind == "listing":
        return "listing"
    return "both" if query.images and query.text else "photo" if query.images else "text"


def parts_of(weights: Weights) -> list[Part]:
    """Return the parts that have a weight."""
    return [part for part in PARTS if weights.get(part, 0.0) > 0]


def _first(scaled: Scaled) -> Scaled:
    """Return the candidates that could be among the first: the best of each part."""
    near = [np.argpartition(-scores, DEEPEST)[:DEEPEST] for scores in scaled.parts.values() if len(scores) > DEEPEST]
    if not near:
        return scaled
    places = np.unique(np.concatenate(near))
    parts = {part: scores[places] for part, scores in scaled.parts.items()}
    return Scaled(scaled.rows[places], parts, scaled.cosines[places])


def _gain(grades: NDArray[np.float64]) -> float:
    return math.fsum(grade / math.log2(place + 2) for place, grade in enumerate(grades))


@cache
def grid(parts: tuple[Part, ...]) -> NDArray[np.float32]:
    """Return all weights [c, parts] in steps of 1 / STEPS that sum to 1."""
    steps = [each for each in product(range(STEPS + 1), repeat=len(parts)) if sum(each) == STEPS]
    return np.array([[step / STEPS for step in each] for each in steps], dtype=np.float32)


def choose_weights(judged: Sequence[Judged], default: Weights) -> tuple[Weights, float]:
    """Return the weights with the best mean nDCG@10 over `judged` queries, of those that lie less than CAUTION standard
    errors of their paired difference below it those nearest to the `default`, and their mean.
    """
    parts = tuple(part for part in PARTS if any(part in each.scaled.parts for each in judged))
    choices = grid(parts)
    values = np.zeros((len(judged), len(choices)))
    for row, each in enumerate(judged):
        scores = np.zeros((len(choices), len(each.grades)), dtype=np.float32)
        for column, part in enumerate(parts):
            if part in each.scaled.parts:
                scores += choices[:, column, None] * each.scaled.parts[part]
        values[row] = _ndcg(scores, each)
    means = values.mean(axis=0)
    behind = values[:, [means.argmax()]] - values
    errors = behind.std(axis=0) / math.sqrt(len(judged))
    near = np.flatnonzero(behind.mean(axis=0) <= CAUTION * errors + 1e-9)
    far = np.abs(choices - np.array([default.get(part, 0.0) for part in parts])).sum(axis=1)
    best = min(near, key=lambda place: (round(float(far[place]), 6), -means[place], place))
    weights = {part: round(float(weight), 3) for part, weight in zip(parts, choices[best], strict=True) if weight > 0}
    return weights, float(means[best])


def _ndcg(scores: NDArray[np.float32], judged: Judged) -> NDArray[np.float64]:
    """Return nDCG@10 of each row of `scores` [c, m]."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :NDCG_CUT]
    discounts = 1 / np.log2(np.arange(order.shape[1]) + 2)
    gains: NDArray[np.float64] = (judged.grades[order] * discounts).sum(axis=1) / judged.ideal
    return gains


def tuned_weights(
    judged: Iterable[tuple[Kind, Judged]], defaults: Mapping[Kind, Weights]
) -> dict[Kind, tuple[Weights, Tuned]]:
    """Choose weights for each kind of query that enough products are searched by."""
    by_kind: dict[Kind, list[Judged]] = {}
    for kind, each in judged:
        by_kind.setdefault(kind, []).append(each)
    found: dict[Kind, tuple[Weights, Tuned]] = {}
    for kind in KINDS:
        own = by_kind.get(kind, [])
        products = len({each.group for each in own})
        if products >= LEAST_PRODUCTS:
            weights, value = choose_weights(own, defaults[kind])
            found[kind] = weights, Tuned(len(own), products, VALIDATION, f"ndcg@{NDCG_CUT}", value)
    return found


def tuned_run(scored: HybridTask, validation: HybridTask | None, depth: int) -> tuple[Run, list[HybridWeight]]:
    """Rank the queries of `scored`, with weights tuned on `validation`, whose queries are others; without it on the
    other half of the products.
    """
    runs: dict[str, Ranked] = {}
    chosen: list[HybridWeight] = []
    for queries, tuning, others in _parts(scored, validation):
        tuned = tuned_weights(tuning.judged(others), scored.defaults)
        weights: dict[Kind, Weights] = {**scored.defaults, **{kind: each for kind, (each, _) in tuned.items()}}
        runs |= scored.run(queries, weights, depth)
        source = OTHER_HALF if validation is None else VALIDATION
        chosen += _described(scored, queries, weights, {kind: how for kind, (_, how) in tuned.items()}, source)
    return {id: runs[id] for id in scored.queries if id in runs}, chosen


def _described(
    scored: HybridTask,
    queries: Sequence[str],
    weights: Mapping[Kind, Weights],
    tuned: Mapping[Kind, Tuned],
    source: str,
) -> Iterator[HybridWeight]:
    kinds = [kind_of(scored.queries[id][0]) for id in queries]
    nothing = Tuned(0, 0, source, f"ndcg@{NDCG_CUT}", 0.0)
    for kind in (kind for kind in KINDS if kind in kinds):
        how = tuned.get(kind, nothing)
        yield HybridWeight(
            kind, weights[kind], kinds.count(kind), how.metric, how.queries, how.products, source, how.value
        )


def _parts(scored: HybridTask, validation: HybridTask | None) -> list[tuple[list[str], HybridTask, list[str]]]:
    """Return (queries that are scored, whose queries tune, which of them)."""
    if validation is not None:
        return [(list(scored.queries), validation, list(validation.queries))]
    ids = list(scored.queries)
    sides: tuple[list[str], list[str]] = ([], [])
    for id, group in zip(ids, groups_of(scored.task, ids), strict=True):
        sides[_number(group) % 2].append(id)
    others = [sorted(side, key=_number)[:TUNING_QUERIES] for side in (sides[1], sides[0])]
    return [(side, scored, other) for side, other in zip(sides, others, strict=True) if side]


def _number(name: str) -> int:
    return int(hash_json(["hybrid", name])[:8], 16)
