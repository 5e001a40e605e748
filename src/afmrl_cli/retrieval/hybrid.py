"""Several parts' scores as one: vectors, words, attributes, colours.

    score(d) = sum over the parts p of  w_p f_p(d)  /  sum of w_p          over the parts that can read the query
    f_p(d)   = max(0, s_p(d) - floor_p) / (best_p - floor_p)               s_p is the part's own score

    vectors     s = q . d, the embedder's cosine; floor = q . c, c the mean of all vectors: of a listing like any other
    words       s = BM25 over product text; floor = 0
    attributes  s = the share of what the query names that a listing has (`named`); floor = 0
    colors      s = cosine of the photos' colours (`histogram`); floor as of vectors

best_p is taken over all listings but those that can't be a result, whatever is filtered: so a filter leaves out and
never reorders, and the scores of a long list are those of a short one. A part that finds nothing (no word in common)
adds 0 to all. Weights depend on what asks: words alone, a photo alone, both, or a listing.

Convex combination as Bruch, Gai and Ingber (2023); their least score is the least that a score can be, which for
cosines is far below that of any product, so that nearly all of the scale would be empty: ours is the mean product's.

Through an approximate index the candidates are the best CANDIDATES of each part, and their vectors are compared
exactly; through a flat one all listings are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import best_first
from .colors import Colors
from .index import all_scores
from .named import Named, Wish
from .narrow import Matrix
from .words import Words

Part = Literal["vectors", "words", "attributes", "colors"]
PARTS: tuple[Part, ...] = ("vectors", "words", "attributes", "colors")
Kind = Literal["text", "photo", "both", "listing"]
KINDS: tuple[Kind, ...] = ("text", "photo", "both", "listing")
"""What asks: words, photos, both, or a listing of the catalog."""
Weights = Mapping[Part, float]
CANDIDATES = 1000
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """What is ranked, n listings: their vectors with the mean of them, and what the other parts read. `nearest` gives
    the rows that an approximate index finds for a vector; None: all are compared.
    """

    matrix: Matrix
    center: Floats
    words: Words | None = None
    named: Named | None = None
    colors: Colors | None = None
    nearest: Callable[[Floats, int], Rows] | None = None

    def __len__(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True)
class HybridQuery:
    """A query as the parts read it: its `vector` [d] (None: no embedder reads it), `tokens`, what it names of the
    gallery's values, and the `colors` of its photos.
    """

    vector: Floats | None
    tokens: Sequence[str] = ()
    wishes: Sequence[Wish] = ()
    colors: Floats | None = None


@dataclass(frozen=True)
class Ranking:
    """Listings, best first: their rows [k], scores [k], and by part what each adds to the score [k]. `cosines` [k] are
    the embedder's; zeros without a vector.
    """

    rows: Rows
    scores: Floats
    shares: dict[Part, Floats]
    cosines: Floats

    def at(self, places: Rows) -> Ranking:
        """Return the listings at `places`, in that order."""
        shares = {part: values[places] for part, values in self.shares.items()}
        return Ranking(self.rows[places], self.scores[places], shares, self.cosines[places])


@dataclass(frozen=True)
class Scaled:
    """The scaled scores f of each part [m], for the `rows` [m] of the candidates."""

    rows: Rows
    parts: dict[Part, Floats]
    cosines: Floats


def scaled_scores(
    gallery: Gallery,
    query: HybridQuery,
    parts: Sequence[Part],
    hidden: Sequence[int] = (),
    allowed: NDArray[np.bool_] | None = None,
) -> Scaled:
    """Score the candidates by each of `parts` that can read the query; `hidden` rows are no result. All listings that
    are `allowed` [n] are candidates where that is given, beside those that the scales are taken from.
    """
    whole, vector = _whole_scores(gallery, query, parts), query.vector if "vectors" in parts else None
    if gallery.nearest is None:
        rows = np.arange(len(gallery))
    else:
        near = [] if vector is None else [gallery.nearest(vector, CANDIDATES + len(hidden))]
        rows = _candidates(near, whole, allowed)
    if len(hidden):
        rows = np.setdiff1d(rows, np.asarray(list(hidden), dtype=np.int64))
    cosines = np.zeros(len(rows), dtype=np.float32)
    found: dict[Part, Floats] = {}
    if vector is not None:
        cosines = all_scores(gallery.matrix, vector, None if gallery.nearest is None else rows)
        cosines = cosines[rows] if gallery.nearest is None else cosines
        found["vectors"] = _scaled(cosines, float(vector @ gallery.center))
    for part, (scores, floor) in whole.items():
        found[part] = _scaled(scores[rows], floor)
    return Scaled(rows, found, cosines)


def _whole_scores(gallery: Gallery, query: HybridQuery, parts: Sequence[Part]) -> dict[Part, tuple[Floats, float]]:
    """Return the scores [n] and floors of the parts but vectors that have something to say of the query."""
    found: dict[Part, tuple[Floats, float]] = {}
    if "words" in parts and gallery.words is not None and query.tokens:
        found["words"] = gallery.words.scores(query.tokens), 0.0
    if "attributes" in parts and gallery.named is not None and query.wishes:
        found["attributes"] = gallery.named.scores(query.wishes), 0.0
    if "colors" in parts and gallery.colors is not None and query.colors is not None:
        scores = gallery.colors.scores(query.colors)
        found["colors"] = scores, float(scores.mean())
    return {part: (scores, floor) for part, (scores, floor) in found.items() if (scores > floor).any()}


def _candidates(
    near: list[Rows], whole: Mapping[Part, tuple[Floats, float]], allowed: NDArray[np.bool_] | None
) -> Rows:
    """Return the rows of the best of each part and of all that are allowed, sorted."""
    if allowed is not None:
        near.append(np.flatnonzero(allowed))
    for scores, floor in whole.values():
        above = np.flatnonzero(scores > floor)
        near.append(best_first(scores[above], CANDIDATES, above)[0])
    return np.unique(np.concatenate(near)).astype(np.int64) if near else np.empty(0, dtype=np.int64)


def _scaled(scores: Floats, floor: float) -> Floats:
    best = float(scores.max(initial=floor))
    if best <= floor:
        return np.zeros_like(scores)
    scaled: Floats = np.maximum(scores - np.float32(floor), 0) / np.float32(best - floor)
    return scaled


def summed(scaled: Scaled, weights: Weights) -> Floats:
    """Return the weighted mean of the parts [m]; zeros where none of them has a weight."""
    total, most = np.zeros(len(scaled.rows), dtype=np.float32), 0.0
    for part, scores in scaled.parts.items():
        total += np.float32(weights.get(part, 0.0)) * scores
        most += weights.get(part, 0.0)
    return total / np.float32(most) if most else total


def rank(
    gallery: Gallery,
    query: HybridQuery,
    weights: Weights,
    k: int,
    *,
    hidden: Sequence[int] = (),
    allowed: NDArray[np.bool_] | None = None,
) -> Ranking:
    """Return the best k listings of those that are `allowed` [n] (None: all); fewer where only so many have a score
    above 0 of any part.
    """
    parts = [part for part in PARTS if weights.get(part, 0.0) > 0]
    scaled = scaled_scores(gallery, query, parts, hidden, allowed)
    return take(scaled, weights, k, allowed)


def take(scaled: Scaled, weights: Weights, k: int, allowed: NDArray[np.bool_] | None = None) -> Ranking:
    """Return the best k of scored candidates."""
    total = summed(scaled, weights)
    places = np.arange(len(total)) if allowed is None else np.flatnonzero(allowed[scaled.rows])
    order, scores = best_first(total[places], k, places)
    most = sum(weights.get(part, 0.0) for part in scaled.parts) or 1.0
    shares = {part: np.float32(weights.get(part, 0.0) / most) * values[order] for part, values in scaled.parts.items()}
    return Ranking(scaled.rows[order], scores, shares, scaled.cosines[order])
