"""Recall on a fixed gallery of the validation split: the same queries and the same products in every validation.

    recall@k = share of a query's relevant targets that stand among its k nearest, mean over the queries

Relevant are the targets of the same product. What shows the query itself is no answer to it: the listing that asks for
another one, a row with the very photo or text that asks.

The best step is chosen by the kind of query that it will be evaluated on, by the rule that eval takes its protocol by:
listings that share their product ask (as `identity` does) where they are about enough products, else photos (as `photo`
does), else texts and photos ask for each other; with the attributes that queries will have, `agcl.validation_enrich`.
The gallery holds the listings that no query is about, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..attributes.views import LISTING
from ..catalog.splits import first_to_judge_by
from ..scores import ranks_of
from ..settings import Settings
from .pairs import (
    KINDS,
    Enrich,
    Kind,
    Pair,
    Positive,
    Side,
    TrainListing,
    draw_pair,
    find_positives,
    first_photos_of,
    rejected,
    view_side,
)

KS = (1, 5, 10)
GALLERY_PER_QUERY = 4
LEAST_QUERIES = 5

Encode = Callable[[Sequence[Side], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Validation:
    """`relevant` and `excluded` are bool [queries, gallery]. `kinds` are those of the queries, `enrich` which side has
    attributes.
    """

    queries: list[Side]
    gallery: list[Side]
    relevant: NDArray[np.bool_]
    excluded: NDArray[np.bool_]
    kinds: tuple[Kind, ...]
    enrich: Enrich

    def describe(self) -> dict[str, object]:
        """Describe it for people and JSON: what the metrics are of."""
        sizes = {"queries": len(self.queries), "gallery": len(self.gallery)}
        return {**sizes, "kinds": list(self.kinds), "enrich": self.enrich}

    def recall(self, encode: Encode, settings: Settings) -> dict[str, float]:
        """Return {"recall@1": ...}; `encode(sides, instruction)` gives unit vectors."""
        queries = encode_once(encode, self.queries, settings.embed.query_instruction)
        gallery = encode_once(encode, self.gallery, settings.embed.target_instruction)
        return recall_at(queries @ gallery.T, self.relevant, self.excluded, KS)


def encode_once(encode: Encode, sides: Sequence[Side], instruction: str) -> NDArray[np.float32]:
    """Return the vectors of `sides`, those of one content the same: in bf16 two batches would move them far beyond
    a tie.
    """
    contents = [side.content for side in sides]
    distinct = dict(zip(contents, sides, strict=True))
    number = {content: i for i, content in enumerate(distinct)}
    return encode(list(distinct.values()), instruction)[[number[content] for content in contents]]


def recall_at(
    scores: NDArray[np.float32], relevant: NDArray[np.bool_], excluded: NDArray[np.bool_], ks: Sequence[int]
) -> dict[str, float]:
    """Return the mean recall of scores [queries, gallery]; every query has something relevant that is not excluded."""
    scores = np.where(excluded, -np.inf, scores)
    ranks = [ranks_of(row, np.flatnonzero(wanted)) for row, wanted in zip(scores, relevant & ~excluded, strict=True)]
    return {f"recall@{k}": float(np.mean([(found <= k).mean() for found in ranks])) for k in ks}


def shows(target: Side, pair: Pair) -> bool:
    """Tell whether `target` shows what the query of `pair` is."""
    query = pair.query
    if pair.kind == "listings":
        return target.listing == query.listing
    if query.text:
        return bool(target.text) and (target.listing == query.listing or target.text == query.text)
    queried = {photo.content for photo in query.photos}
    return any(photo.content in queried for photo in target.photos)


def make_validation(listings: Sequence[TrainListing], settings: Settings) -> Validation | None:
    """Return the queries and gallery that the settings mean; None when the validation split offers fewer than five
    pairs.
    """
    agcl = settings.agcl
    if not listings:
        return None
    positives = validation_positives(listings, settings)
    enrich: Enrich = (agcl.validation_enrich or settings.embed.enrich) if agcl.attributes == "generated" else "none"
    rng = np.random.default_rng(agcl.seed)
    chosen = sorted(rng.permutation(len(positives))[: GALLERY_PER_QUERY * agcl.validation_queries].tolist())
    pairs: list[Pair] = [
        draw_pair(
            positives[i],
            listings,
            np.random.default_rng((agcl.seed, i)),
            max_photos=0,
            enrich=enrich,
            dropout=0.0,
        )
        for i in chosen
    ]
    query_pairs = pairs[:: max(1, -(-len(pairs) // agcl.validation_queries))]
    if len(query_pairs) < LEAST_QUERIES:
        return None
    sides = _gallery(pairs, listings, GALLERY_PER_QUERY * agcl.validation_queries, rng, enriched=enrich == "both")
    identity = np.array([listings[side.listing].identity for side in sides])
    own = np.array([listings[pair.query.listing].identity for pair in query_pairs])
    self_answer = np.array([[shows(side, pair) for side in sides] for pair in query_pairs])
    most = settings.model.embedder_images
    queries = [first_photos_of(pair.query, most) for pair in query_pairs]
    targets = [first_photos_of(side, most) for side in sides]
    return Validation(
        queries,
        targets,
        (own[:, None] == identity[None, :]) & ~rejected(queries, targets, listings),
        self_answer,
        tuple(dict.fromkeys(pair.kind for pair in query_pairs)),
        enrich,
    )


def _gallery(
    pairs: Sequence[Pair], listings: Sequence[TrainListing], most: int, rng: np.random.Generator, *, enriched: bool
) -> list[Side]:
    """Return the targets of `pairs`, each once, and whole listings beside them: all others, or a sample that makes it
    `most` sides, since each validation encodes them.
    """
    targets = list(dict.fromkeys(pair.target for pair in pairs))
    there = {side.listing for side in targets}
    others = [i for i, each in enumerate(listings) if i not in there and (each.text or each.photos)]
    kept = sorted(rng.permutation(len(others))[: max(0, most - len(targets))].tolist())
    return targets + [view_side(listings[others[i]], others[i], LISTING, enriched=enriched) for i in kept]


def validation_positives(listings: Sequence[TrainListing], settings: Settings) -> list[Positive]:
    """Return the positives of the one kind that is evaluated; of all kinds where no single one has enough."""
    agcl = settings.agcl
    if agcl.validation_pairs:
        return find_positives(listings, [agcl.validation_pairs], required=False)
    kinds: list[Kind] = [kind for kind in KINDS if kind in agcl.pairs or not agcl.pairs]
    positives = find_positives(listings, kinds, required=False)
    of_kind = {kind: [each for each in positives if each.kind == kind] for kind in kinds}
    # Texts and photos that ask for each other are nothing that eval asks by itself: only where all else is too little.
    for choice in ([kind for kind in kinds if kind != "image-text"], kinds):
        about = [(kind, len({listings[each.listing].identity for each in of_kind[kind]})) for kind in choice]
        if about and len(found := of_kind[first_to_judge_by(about)]) >= LEAST_QUERIES:
            return found
    return positives
