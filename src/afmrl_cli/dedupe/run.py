"""The job: a catalog -> pairs of listings that are probably one product, groups, and how good that is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.verdicts import Verdicts, pair_of, read_verdicts
from ..errors import DataError
from ..listener import Listener, Silent
from ..retrieval.vectors import Vectors
from ..settings import Settings
from ..workspace import Workspace
from .candidates import distinct_photos, find_candidates
from .evidence import Evidence, EvidenceBuilder
from .features import NAMES, Sources, pair_features
from .groups import Pair, complete_link, components, ordered
from .listings import ListingColumns, load_listings
from .measure import (
    FEWEST_SAME,
    SAME,
    Choice,
    Known,
    choose_threshold,
    counts,
    curve_of,
    held_out,
    measure_threshold,
    reliability,
    what_is_known,
)
from .photos import Photos, load_signatures
from .reread import Reread, open_pairs, reread
from .score import Scorer, fit_scorer
from .variants import alike_in_all
from .words import read_words

SIGNATURES = "dedupe/photos.npy"
BY_HAND_THRESHOLD = 0.5
CONFIRMED, PROBABLE, TO_REVIEW = "confirmed", "probable duplicate", "to review"
"""What a pair is: said so by a person; from a threshold at which enough known pairs are right; or a guess."""
LARGEST_COMPLETED = 60
"""ListingColumns that hang together of which the pairs that nothing named are scored, too."""


@dataclass(frozen=True)
class Found:
    """A pair: rows, score, status, and the group that holds both (-1: none)."""

    pair: Pair
    score: float
    status: str
    group: int
    evidence: Evidence


@dataclass(frozen=True)
class Result:
    """What a run found. `content` is the document without pairs and groups."""

    listings: ListingColumns
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
    reread: Reread | None = None


def compare_catalog(work: Workspace, vectors: Vectors | None) -> Compared:
    """Read the catalog, find candidates and compute their features. `vectors` None: by text and photos only."""
    folder, settings, listener, problems = work.folder, work.settings, work.listener, Problems()
    listings = load_listings(work, problems)
    problems.tell(listener)
    matrix, vector_row = None if vectors is None else vectors.matrix, _vector_rows(listings, vectors)
    words = read_words(listings.products)
    shown = distinct_photos(listings)
    wanted = {content: listings.photo_paths[content] for row in shown for content in row}
    signatures = load_signatures(wanted, folder.store / SIGNATURES, settings.catalog, listener) if wanted else {}
    if matrix is None and not any(p.title or p.description for p in listings.products):
        raise DataError(f"{folder.catalog}: nothing to compare by: no text and no vectors", "run `afmrl embed` first")
    listener.progress("finding pairs", 0, None)
    pairs = find_candidates(listings, words, matrix, vector_row, settings.dedupe.neighbours)
    sources = Sources(listings, words, matrix, vector_row, Photos(shown, signatures) if signatures else None)
    listener.progress("comparing", len(pairs), len(pairs))
    return Compared(sources, pairs, pair_features(sources, pairs))


def _vector_rows(listings: ListingColumns, vectors: Vectors | None) -> NDArray[np.int64]:
    """Return [n]: where each listing's vector is stored, -1 for none."""
    row_of = {} if vectors is None else {id: row for row, id in enumerate(vectors.ids)}
    return np.array([row_of.get(product.id, -1) for product in listings.products], dtype=np.int64)


def find_duplicates(work: Workspace, vectors: Vectors | None) -> Result:
    """Find pairs from the most to the least probable, complete-link groups, and precision and recall where identities
    are known. Raises DataError for verdicts that can't be read or contradict each other.
    """
    started, settings, listener = time.monotonic(), work.settings, work.listener
    verdicts = read_verdicts(settings, work.folder.root)
    compared = compare_catalog(work, vectors)
    products, pairs = compared.sources.listings.products, compared.pairs
    known = what_is_known(products, pairs, verdicts, settings.split)
    scorer, scores = _scored(compared, known)
    if settings.dedupe.rerank:
        choice, _ = _threshold(settings, scorer, scores, pairs, known, Silent())
        said = reread(work, products, open_pairs(pairs, scores, choice.threshold))
        compared = replace(compared, features=np.hstack([compared.features, said.columns(pairs)]), reread=said)
        scorer, scores = _scored(compared, known)
    choice, how = _threshold(settings, scorer, scores, pairs, known, listener)
    threshold = choice.threshold
    reliable = reliability(scores, known, pairs) if scorer.fitted else None
    joined, rejected = _verdict_pairs(products, verdicts)
    _tell_missing(products, verdicts, listener)
    variants = _variants(products, pairs, compared.features) & (known.labels != SAME)
    verified, left_out = _verified(pairs, scores, threshold, known, variants, rejected)
    _complete(verified, joined, rejected, threshold, compared, scorer)
    groups = complete_link(verified, joined, rejected)
    status = PROBABLE if choice.reached else TO_REVIEW
    found, groups = _new_ones(verified, joined, groups, status, _builder(compared), verdicts)
    content = {
        "listings": len(products),
        "embedder": None if vectors is None else vectors.manifest["embedder"],
        "candidates": len(pairs),
        "fitted": scorer.fitted,
        "calibrated": reliable is not None and reliable["calibrated"] is True,
        "reliability": reliable,
        "threshold": threshold,
        "threshold_by": how,
        "precision_aim": settings.dedupe.precision,
        "precision_reached": choice.reached,
        "precision_expected": choice.precision if scorer.fitted else None,
        "precision_interval": choice.interval if scorer.fitted else None,
        "known": counts(known),
        "held_out": held_out(scores, pairs, known, threshold),
        "verdicts": {"confirmed": len(verdicts.confirmed), "rejected": len(verdicts.rejected)},
        "variants_left_out": left_out,
        "reranked": compared.reread.summary if compared.reread else None,
        "found": len(found),
        "groups_found": len(groups),
        "seconds": time.monotonic() - started,
    }
    return Result(compared.sources.listings, found, groups, known, content)


def _builder(compared: Compared) -> EvidenceBuilder:
    return EvidenceBuilder(compared.sources, compared.reread.probabilities if compared.reread else {})


def _scored(compared: Compared, known: Known) -> tuple[Scorer, NDArray[np.float64]]:
    """Fit the scorer on what is known, and score all candidates."""
    features, pairs = compared.features, compared.pairs
    scorer = fit_scorer(features, pairs, known.labels, known.training_weights(pairs), known.identities)
    return scorer, scorer.scores(features, pairs, scorer.of_candidates)


def _threshold(
    settings: Settings,
    scorer: Scorer,
    scores: NDArray[np.float64],
    pairs: NDArray[np.int64],
    known: Known,
    listener: Listener,
) -> tuple[Choice, str]:
    """Return the threshold with the precision to expect there, and in words where it is from."""
    wanted, aim = settings.dedupe.threshold, settings.dedupe.precision
    if not scorer.fitted:
        listener.warn(
            "too few known duplicates to learn from: scores are weighed by hand and are no probabilities, so all pairs "
            "are to review; fill in verdicts on them and run again with --verdicts"
        )
        how = "dedupe.threshold" if wanted else "default, weighed by hand"
        return Choice(wanted or BY_HAND_THRESHOLD, False, 0.0, [0.0, 1.0]), how
    curve, on = curve_of(scores, known.labels, known.weights(pairs, 1), known.same_weight[1]), "validation"
    if curve.same < FEWEST_SAME:
        curve, on = curve_of(scores, known.labels, known.training_weights(pairs), known.same_weight[0]), "training"
    if wanted:
        return measure_threshold(curve, wanted, aim), "dedupe.threshold"
    choice = choose_threshold(curve, aim)
    if not choice.reached:
        low, high = choice.interval
        listener.warn(
            f"a precision of {aim:g} can't be reached on the {on} listings; {choice.precision:.2f} can ({low:.2f} to "
            f"{high:.2f}), from a score of {choice.threshold:.3f}: the pairs are to review"
        )
    return choice, f"precision {aim:g} on {on} listings" + ("" if choice.reached else ", not reached")


def _verdict_pairs(products: list[Product], verdicts: Verdicts) -> tuple[list[Pair], frozenset[Pair]]:
    """Return pairs of rows that are one by the catalog's `product_id` or a person, and those that a person rejected.

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


def _variants(products: list[Product], pairs: NDArray[np.int64], features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return [p]: the shop says that both are variants of one style (`group_id`), and they differ in something."""
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(p.group_id, len(numbers)) if p.group_id else -1 for p in products])
    made = (group[pairs[:, 0]] >= 0) & (group[pairs[:, 0]] == group[pairs[:, 1]])
    other_photo = (features[:, NAMES.index("photo_other")] > 0) & (features[:, NAMES.index("photo_same")] == 0)
    for i in np.flatnonzero(made & ~other_photo):
        made[i] = not alike_in_all(products[pairs[i, 0]], products[pairs[i, 1]])
    return np.asarray(made)


def _verified(
    pairs: NDArray[np.int64],
    scores: NDArray[np.float64],
    threshold: float,
    known: Known,
    variants: NDArray[np.bool_],
    rejected: frozenset[Pair],
) -> tuple[dict[Pair, float], int]:
    """Return scores of the pairs from the threshold up, and how many variants were left out of them."""
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
    compared_pairs = {(int(a), int(b)) for a, b in compared.pairs}
    missing = [
        (a, b)
        for rows in components([*verified, *joined])
        if 2 < len(rows) <= LARGEST_COMPLETED
        for i, a in enumerate(rows)
        for b in rows[i + 1 :]
        if (a, b) not in compared_pairs and (a, b) not in rejected
    ]
    if not missing:
        return
    pairs = np.array(missing, dtype=np.int64)
    features = pair_features(compared.sources, pairs, compared.pairs, compared.features)
    if compared.reread is not None:
        features = np.hstack([features, compared.reread.columns(pairs)])
    scores = scorer.scores(features, pairs)
    products = compared.sources.listings.products
    wanted = (scores >= threshold) & ~_variants(products, pairs, features)
    verified.update({missing[i]: float(scores[i]) for i in np.flatnonzero(wanted)})


def _new_ones(
    verified: Mapping[Pair, float],
    joined: list[Pair],
    groups: list[list[int]],
    status: str,
    builder: EvidenceBuilder,
    verdicts: Verdicts,
) -> tuple[list[Found], list[list[int]]]:
    """Return pairs and groups that tell something that the catalog's `product_id` does not, the best first."""
    products = builder.products

    def new(a: int, b: int) -> bool:
        return products[a].product_id is None or products[a].product_id != products[b].product_id

    group_of = {row: number for number, rows in enumerate(groups) for row in rows}
    confirmed = {pair for pair in joined if pair_of(products[pair[0]].id, products[pair[1]].id) in verdicts.confirmed}
    wanted = {pair for pair in {*verified, *confirmed} if new(*pair)}
    pairs = sorted(wanted, key=lambda pair: (pair not in confirmed, -verified.get(pair, 1.0), pair))
    kept = list(dict.fromkeys(group_of[a] for a, b in pairs if a in group_of and group_of[a] == group_of.get(b)))
    number = {old: at for at, old in enumerate(kept)}
    evidence = builder.build(pairs)
    found = []
    for pair, why in zip(pairs, evidence, strict=True):
        a, b = (group_of.get(row, -1) for row in pair)
        group = number[a] if a == b and a >= 0 else -1
        found.append(Found(pair, verified.get(pair, 1.0), CONFIRMED if pair in confirmed else status, group, why))
    return found, [groups[old] for old in kept]
