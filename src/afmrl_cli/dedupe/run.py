"""The job: a catalog -> pairs of listings that are probably one product, groups, and how good that is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.verdicts import Verdicts, pair_of, read_verdicts
from ..errors import DataError
from ..listener import Listener
from ..retrieval.vectors import AttributeSource, Vectors
from ..settings import Settings
from ..store.database import Database
from ..store.folder import CatalogFolder
from .candidates import distinct_photos, find_candidates
from .evidence import Evidence, Witness
from .features import Sources, pair_features
from .groups import Pair, complete_link, components, ordered
from .listings import Listings, load_listings
from .measure import (
    FEWEST_SAME,
    SAME,
    THRESHOLDS,
    Curve,
    Known,
    average_precision,
    choose_threshold,
    curve_of,
    what_is_known,
)
from .photos import Photos, load_signatures
from .score import Scorer, fit_scorer
from .words import read_words

SIGNATURES = "dedupe/photos.npy"
UNCALIBRATED_THRESHOLD = 0.5
LARGEST_COMPLETED = 60
"""Listings that hang together of which the pairs that nothing named are scored, too."""


@dataclass(frozen=True)
class Found:
    """A pair: rows, score, whether a person confirmed it, and the group that holds both (-1: none)."""

    pair: Pair
    score: float
    confirmed: bool
    group: int
    evidence: Evidence


@dataclass(frozen=True)
class Result:
    """What a run found. `content` is the document without pairs and groups."""

    listings: Listings
    pairs: list[Found]
    groups: list[list[int]]
    known: Known
    content: dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """A catalog's candidates with their features, before anything is scored."""

    sources: Sources
    pairs: NDArray[np.int64]
    features: NDArray[np.float32]


def compare_catalog(
    folder: CatalogFolder,
    settings: Settings,
    vectors: Vectors | None,
    source: AttributeSource | None,
    listener: Listener,
) -> Compared:
    """Read the catalog, find candidates and compute their features. `vectors` None: by text and photos only."""
    problems = Problems()
    with Database(folder.database) as database:
        listings = load_listings(folder, settings, source, database, problems, listener)
    problems.tell(listener)
    matrix, has_vector = _aligned(listings, vectors)
    words = read_words(listings.products)
    shown = distinct_photos(listings)
    wanted = {content: listings.photo_paths[content] for row in shown for content in row}
    signatures = load_signatures(wanted, folder.store / SIGNATURES, settings.catalog, listener) if wanted else {}
    if matrix is None and not any(p.title or p.description for p in listings.products):
        raise DataError(f"{folder.catalog}: nothing to compare by: no text and no vectors", "run `afmrl embed` first")
    listener.progress("finding pairs", 0, None)
    pairs = find_candidates(listings, words, matrix, has_vector, settings.dedupe.neighbours)
    sources = Sources(listings, words, matrix, has_vector, Photos(shown, signatures) if signatures else None)
    listener.progress("comparing", len(pairs), len(pairs))
    return Compared(sources, pairs, pair_features(sources, pairs))


def _aligned(listings: Listings, vectors: Vectors | None) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """The stored vectors in the listings' order; rows that have none are 0."""
    has_vector = np.zeros(len(listings), dtype=bool)
    if vectors is None:
        return None, has_vector
    row_of = {id: row for row, id in enumerate(vectors.ids)}
    rows = np.array([row_of.get(product.id, -1) for product in listings.products], dtype=np.int64)
    has_vector = rows >= 0
    matrix = np.zeros((len(rows), vectors.matrix.shape[1]), dtype=np.float32)
    matrix[has_vector] = vectors.matrix[rows[has_vector]]
    return matrix, has_vector


def find_duplicates(
    folder: CatalogFolder,
    settings: Settings,
    vectors: Vectors | None,
    source: AttributeSource | None,
    listener: Listener,
) -> Result:
    """Pairs from the most to the least probable, complete-link groups, and precision and recall where identities are
    known. Raises DataError for verdicts that can't be read or contradict each other."""
    started = time.monotonic()
    verdicts = read_verdicts(settings, folder.root)
    compared = compare_catalog(folder, settings, vectors, source, listener)
    products, pairs = compared.sources.listings.products, compared.pairs
    known = what_is_known(products, pairs, verdicts, settings.split)
    scorer = fit_scorer(compared.features, pairs, known.labels, known.training_weights(pairs), len(products))
    scores = scorer.scores(compared.features, pairs)
    threshold, how = _threshold(settings, scorer, scores, pairs, known, listener)
    joined, rejected = _words_said(products, verdicts)
    _tell_missing(products, verdicts, listener)
    variants = _variants(products, pairs, known)
    verified, left_out = _verified(pairs, scores, threshold, known, variants, rejected)
    _complete(verified, joined, rejected, threshold, compared, scorer)
    groups = complete_link(verified, joined, rejected)
    found, groups = _new_ones(verified, joined, groups, known, Witness(compared.sources), verdicts)
    content = {
        "listings": len(products),
        "embedder": None if vectors is None else vectors.manifest["embedder"],
        "candidates": len(pairs),
        "calibrated": scorer.calibrated,
        "threshold": threshold,
        "threshold_by": how,
        "precision_aim": settings.dedupe.precision,
        "known": _told(known),
        "held_out": _held_out(scores, pairs, known, threshold),
        "verdicts": {"confirmed": len(verdicts.confirmed), "rejected": len(verdicts.rejected)},
        "variants_left_out": left_out,
        "found": len(found),
        "groups_found": len(groups),
        "seconds": time.monotonic() - started,
    }
    return Result(compared.sources.listings, found, groups, known, content)


def _threshold(
    settings: Settings,
    scorer: Scorer,
    scores: NDArray[np.float64],
    pairs: NDArray[np.int64],
    known: Known,
    listener: Listener,
) -> tuple[float, str]:
    """The threshold, and in words where it is from."""
    if settings.dedupe.threshold:
        return settings.dedupe.threshold, "dedupe.threshold"
    if not scorer.calibrated:
        listener.warn(
            "too few known duplicates to fit anything: scores are weighed by hand, not calibrated, the threshold is "
            f"{UNCALIBRATED_THRESHOLD}; fill in verdicts on the pairs and run again with --verdicts"
        )
        return UNCALIBRATED_THRESHOLD, "default, uncalibrated"
    curve, on = curve_of(scores, known.labels, known.weights(pairs, 1), known.same_weight[1]), "validation"
    if curve.same < FEWEST_SAME:
        curve, on = curve_of(scores, known.labels, known.training_weights(pairs), known.same_weight[0]), "training"
    threshold, reached = choose_threshold(curve, settings.dedupe.precision)
    if not reached:
        best = curve.at(threshold)["precision"]
        listener.warn(
            f"no threshold reaches a precision of {settings.dedupe.precision:g} on the {on} listings: "
            f"the best is taken, {best:.3f} at {threshold:.3f}"
        )
    return threshold, f"precision {settings.dedupe.precision:g} on {on} listings" + ("" if reached else ", not reached")


def _words_said(products: list[Product], verdicts: Verdicts) -> tuple[list[Pair], frozenset[Pair]]:
    """Pairs of rows that are one by the catalog's `product_id` or a person, and those that a person rejected.

    A product of which a pair was rejected is not held together by its `product_id`."""
    row_of = {product.id: row for row, product in enumerate(products)}

    def rows(pairs: Mapping[tuple[str, str], str]) -> list[Pair]:
        return [ordered(row_of[a], row_of[b]) for a, b in pairs if a in row_of and b in row_of]

    rejected = frozenset(rows(verdicts.rejected))
    doubted = {products[a].product_id for a, b in rejected if products[a].product_id == products[b].product_id}
    joined = rows(verdicts.confirmed)
    first: dict[str, int] = {}
    for row, product in enumerate(products):
        if product.product_id and product.product_id not in doubted:
            start = first.setdefault(product.product_id, row)
            if start != row:
                joined.append((start, row))
    return joined, rejected


def _tell_missing(products: list[Product], verdicts: Verdicts, listener: Listener) -> None:
    ids = {product.id for product in products}
    if gone := sum(not {a, b} <= ids for pairs in (verdicts.confirmed, verdicts.rejected) for a, b in pairs):
        listener.note(f"{gone:,} verdicts are about listings that are not in the catalog (any more)")


def _variants(products: list[Product], pairs: NDArray[np.int64], known: Known) -> NDArray[np.bool_]:
    """[p]: the shop says that both are variants of one style, and not that they are one product."""
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(p.group_id, len(numbers)) if p.group_id else -1 for p in products])
    left, right = group[pairs[:, 0]], group[pairs[:, 1]]
    return np.asarray((left >= 0) & (left == right) & (known.labels != SAME))


def _verified(
    pairs: NDArray[np.int64],
    scores: NDArray[np.float64],
    threshold: float,
    known: Known,
    variants: NDArray[np.bool_],
    rejected: frozenset[Pair],
) -> tuple[dict[Pair, float], int]:
    """Scores of the pairs from the threshold up, and how many variants were left out of them."""
    high = scores >= threshold
    rows = np.flatnonzero(high & ~variants)
    verified = {(int(pairs[i, 0]), int(pairs[i, 1])): float(scores[i]) for i in rows}
    for pair in rejected & verified.keys():
        del verified[pair]
    return verified, int((high & variants).sum())


def _complete(
    verified: dict[Pair, float],
    joined: list[Pair],
    rejected: frozenset[Pair],
    threshold: float,
    compared: Compared,
    scorer: Scorer,
) -> None:
    """Score the pairs between listings that hang together which nothing had named, and add those that are verified."""
    looked_at = {(int(a), int(b)) for a, b in compared.pairs}
    missing = [
        (a, b)
        for rows in components([*verified, *joined])
        if 2 < len(rows) <= LARGEST_COMPLETED
        for i, a in enumerate(rows)
        for b in rows[i + 1 :]
        if (a, b) not in looked_at and (a, b) not in rejected
    ]
    if not missing:
        return
    pairs = np.array(missing, dtype=np.int64)
    features = pair_features(compared.sources, pairs, compared.pairs, compared.features)
    scores = scorer.scores(features, pairs)
    products = compared.sources.listings.products
    for (a, b), score in zip(missing, scores, strict=True):
        same_style = products[a].group_id and products[a].group_id == products[b].group_id
        if score >= threshold and not same_style:
            verified[(a, b)] = float(score)


def _new_ones(
    verified: Mapping[Pair, float],
    joined: list[Pair],
    groups: list[list[int]],
    known: Known,
    witness: Witness,
    verdicts: Verdicts,
) -> tuple[list[Found], list[list[int]]]:
    """Pairs and groups that tell something that the catalog's `product_id` does not, the best first."""
    products = witness.products

    def new(a: int, b: int) -> bool:
        return products[a].product_id is None or products[a].product_id != products[b].product_id

    group_of = {row: number for number, rows in enumerate(groups) for row in rows}
    confirmed = {pair for pair in joined if pair_of(products[pair[0]].id, products[pair[1]].id) in verdicts.confirmed}
    wanted = {pair for pair in {*verified, *confirmed} if new(*pair)}
    pairs = sorted(wanted, key=lambda pair: (pair not in confirmed, -verified.get(pair, 1.0), pair))
    kept = list(dict.fromkeys(group_of[a] for a, b in pairs if a in group_of and group_of[a] == group_of.get(b)))
    number = {old: at for at, old in enumerate(kept)}
    evidence = witness.of(pairs)
    found = []
    for pair, told in zip(pairs, evidence, strict=True):
        a, b = (group_of.get(row, -1) for row in pair)
        group = number[a] if a == b and a >= 0 else -1
        found.append(Found(pair, verified.get(pair, 1.0), pair in confirmed, group, told))
    return found, [groups[old] for old in kept]


def _told(known: Known) -> dict[str, Any]:
    counts = {
        name: int((known.labels == label).sum()) for name, label in (("same", 1), ("different", 0), ("unknown", -1))
    }
    return {
        "candidates": counts,
        "same_in_catalog": sum(known.same_weight),
        "listings": sum(map(bool, known.identities)),
    }


def _held_out(
    scores: NDArray[np.float64], pairs: NDArray[np.int64], known: Known, threshold: float
) -> dict[str, Any] | None:
    """Figures on test listings; None when too few of their duplicates are known."""
    weights = known.weights(pairs, 2)
    curve = curve_of(scores, known.labels, weights, known.same_weight[2])
    if known.same_weight[2] < FEWEST_SAME:
        return None
    return {
        "same": known.same_weight[2],
        "candidate_recall": float(weights[known.labels == SAME].sum()) / known.same_weight[2],
        "average_precision": average_precision(curve),
        "at_threshold": curve.at(threshold),
        "curve": [curve.at(each) for each in THRESHOLDS],
    }


def held_out_curve(scores: NDArray[np.float64], pairs: NDArray[np.int64], known: Known) -> Curve:
    """The curve on test listings, of these scores or of any other system's."""
    return curve_of(scores, known.labels, known.weights(pairs, 2), known.same_weight[2])
