"""Fitting `light` to a catalog: which products it learns from, and which weights find the right ones.

The joint space is fitted to photo and title of products of the training split. The weights of the blocks are chosen
among the products of the training and validation splits, which the encoders have never seen either: the test split
teaches nothing, and `afmrl eval` asks by default about what was not seen. Only the idf of words counts all texts, as
that of BM25 does.

    photo      the last photo of a product with several asks for that product, which is shown without it
    listing    a listing asks for the others of its product_id
    shares     of colours in photos, then of words in text, then of photos in all: each the one of SHARES nearest to the
               default whose mean reciprocal rank is within one standard error of the best. Fewer than LEAST queries
               choose nothing
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..catalog.fingerprints import photo_hash
from ..catalog.pictures import OPENERS, load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..catalog.read import read_products
from ..catalog.splits import split_of
from ..errors import ModelError
from ..models.base import Cache
from ..models.embed_input import Item
from ..models.joint import Floats, Projections, bucket_idf, canonical, similarities, words_of
from ..models.light import Features, LightFeatures, blocks_of, photo_side, text_side
from ..models.light_fit import ENCODERS, FIT, Fit, read_fit, write_fit
from ..settings import Settings
from ..store.files import hash_json
from ..store.training_products import training_products
from ..workspace import Workspace

MOST, LEAST_PAIRS, LEAST, MOST_QUERIES = 5000, 50, 20, 500
"""Products that are learnt from at most, pairs that a joint space takes, and queries that a choice takes at least and
at most.
"""
GROUP = 64
SHARES = tuple(i / 10 for i in range(1, 10))
ALBUM = 2
"""Standard errors by which colours must be shown to help: in photos of one album they tell more than in those that ask
later, under another light.
"""
JOINT_SHARE = 0.05
VECTORS_OF = re.compile(r"(?:cache-)?light-([0-9a-f]{10})-")
"""Folders of vectors and of cached ones, by the fit."""


@dataclass(frozen=True)
class Shares:
    """Of colours in photos, of words in text, of photos in all; the rest of each is the other one's."""

    colors: float = 0.25
    words: float = 0.5
    photos: float = 0.5

    def weights(self, joint: bool) -> dict[str, float]:
        """Return the blocks' weights, which sum to 1."""
        rest = 1 - (JOINT_SHARE if joint else 0)
        text, photos = rest * (1 - self.photos), rest * self.photos
        return {
            "words": text * self.words,
            "text": text * (1 - self.words),
            "photo": photos * (1 - self.colors),
            "colors": photos * self.colors,
            "joint": 1 - rest,
        }


def fit_light(work: Workspace) -> Fit:
    """Fit `light` to the catalog and store it; tells in one line what it can do. The caller holds the writer's lock.

    A stored fit to the very same products is kept: its id, and what stands under it, stays. Vectors of another fit,
    which nothing can ask any more, are removed.
    """
    settings, listener = work.settings, work.listener
    products = list(read_products(work.folder, settings.catalog, Problems()))
    sides = [split_of(product, settings.split) for product in products]
    idf = bucket_idf(words_of(product_text(product)) for product in products)
    learnt = [p for p, side in zip(products, sides, strict=True) if side != "test" and (p.images or product_text(p))]
    learnt = sorted(sorted(learnt, key=_number)[:MOST], key=lambda product: product.row)
    data = _data(learnt, idf, settings)
    if (before := _stored(work)) is not None and before.facts.get("data") == data:
        listener.note("light: what it was fitted to has not changed: the fit is kept")
        return before
    encoders = LightFeatures(settings, Cache(work.folder.cache, settings.cache, listener))
    whole, last = _features(work, encoders, learnt)
    train = np.array([split_of(product, settings.split) == "train" for product in learnt], dtype=bool)
    paired = train & whole.head.any(axis=1) & whole.photo.any(axis=1) if len(learnt) else train
    projections: Projections | None = None
    if paired.sum() >= LEAST_PAIRS:
        listener.note(f"light: joining texts and photos by {int(paired.sum()):,} pairs of the training split")
        projections = canonical(text_side(whole, idf)[paired], photo_side(whole)[paired])
    fit = Fit(idf, projections)
    shares, tuned = _choose(fit, learnt, whole, last)
    named = [(product.id, product.identity) for product in learnt]
    seen = [[name for name, own in zip(named, train, strict=True) if own == side] for side in (True, False)]
    counts = {"pairs": int(paired.sum()), "products": len(learnt)}
    facts = {**counts, "shares": vars(shares), "queries": tuned, "data": data}
    fit = replace(fit, weights=shares.weights(projections is not None), facts=facts, products=training_products(*seen))
    write_fit(work.folder.light, fit)
    _remove_vectors_of_others(work, fit)
    if projections is None:
        listener.note(
            f"light: {counts['pairs']} pairs of photo and text are too few for a joint space (at least {LEAST_PAIRS}): "
            "texts find texts and photos find photos"
        )
    return fit


def has_fit(work: Workspace) -> bool:
    """Tell whether the catalog has a fit."""
    return (work.folder.light / FIT).is_file()


def _data(products: Sequence[Product], idf: Floats, settings: Settings) -> str:
    """Return a hash of all that a fit is made from."""
    whole = hashlib.sha256(idf.tobytes())
    for product in products:
        photos = [photo_hash(path) if path.is_file() else "missing" for path in product.images]
        row = [product.id, product.identity, split_of(product, settings.split), product_text(product), photos]
        whole.update(hash_json(row).encode())
    return hash_json([ENCODERS, settings.model.embedder_images, whole.hexdigest()])


def _stored(work: Workspace) -> Fit | None:
    """Return the fit that is there; None where there is none that can be read."""
    try:
        return read_fit(work.folder.light)
    except ModelError:
        return None


def _remove_vectors_of_others(work: Workspace, fit: Fit) -> None:
    for folder in work.folder.embeddings.glob("*light-*"):
        found = VECTORS_OF.match(folder.name)
        if found and found[1] != fit.id:
            shutil.rmtree(folder, ignore_errors=True)


def _number(product: Product) -> str:
    return hashlib.sha256(f"light\0{product.identity}".encode()).hexdigest()


def _features(work: Workspace, encoders: LightFeatures, products: Sequence[Product]) -> tuple[Features, Features]:
    """Return the features of the products and, in the same rows, those of their last photo alone, zeros where there
    is but one; the former are then without it.
    """
    catalog, most = work.settings.catalog, work.settings.model.embedder_images
    load = partial(encoders.load_image, catalog=catalog)
    wholes, lasts = [], []
    with ThreadPoolExecutor(OPENERS) as openers:
        for start in range(0, len(products), GROUP):
            group, shown, alone = products[start : start + GROUP], [], []
            found = openers.map(lambda product: load_photos(product.images, load, most).photos, group)
            for product, photos in zip(group, found, strict=True):
                several = len(photos) > 1
                shown.append(Item(product_text(product), tuple(photos[:-1] if several else photos)))
                alone.append(Item("", tuple(photos[-1:] if several else ())))
            wholes.append(encoders.of(shown))
            lasts.append(encoders.of(alone))
            work.listener.progress("light: learning from the catalog", min(start + GROUP, len(products)), len(products))
    return Features.joined(wholes), Features.joined(lasts)


def _choose(fit: Fit, products: Sequence[Product], whole: Features, last: Features) -> tuple[Shares, dict[str, int]]:
    """Choose the shares; returns with them how many queries of each kind there were."""
    shares, joint = Shares(), fit.projections is not None
    if not products:
        return shares, {"photo": 0, "listing": 0}
    of_products, of_photos = blocks_of(whole, fit), blocks_of(last, fit)
    photo = _some(np.asarray(last.photo.any(axis=1)))
    _, place, counts = np.unique([product.identity for product in products], return_inverse=True, return_counts=True)
    listing = _some(np.asarray(counts[place] > 1))
    right = place[:, None] == place[None]

    def quality(tried: Shares, rows: NDArray[np.int64], queries: dict[str, Floats], own: bool) -> NDArray[np.float64]:
        weights = tried.weights(joint)
        scores = similarities({name: block[rows] for name, block in queries.items()}, of_products, weights)
        return _reciprocal_ranks(scores, right[rows], None if own else rows)

    if len(photo) >= LEAST:
        shares = _best(shares, "colors", lambda tried: quality(tried, photo, of_photos, True), ALBUM)
    if len(listing) >= LEAST:
        shown = _alone(of_products, "words", "text")
        shares = _best(shares, "words", lambda tried: quality(tried, listing, shown, False))
        pictured = listing[whole.photo[listing].any(axis=1)]
        if len(photo) < LEAST <= len(pictured):
            # By photos alone: beside a text that finds them all, every share of colours is as good as any other.
            seen = _alone(of_products, "photo", "colors")
            shares = _best(shares, "colors", lambda tried: quality(tried, pictured, seen, False), ALBUM)
        if len(pictured):
            shares = _best(shares, "photos", lambda tried: quality(tried, listing, of_products, False))
    return shares, {"photo": len(photo), "listing": len(listing)}


def _alone(blocks: dict[str, Floats], *names: str) -> dict[str, Floats]:
    """Return the blocks with zeros in all but those of `names`."""
    return {name: block if name in names else np.zeros_like(block) for name, block in blocks.items()}


def _some(where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the true places, every second, third, ... of more than MOST_QUERIES."""
    places = np.flatnonzero(where)
    return places[:: max(1, -(-len(places) // MOST_QUERIES))]


def _best(shares: Shares, name: str, quality: Callable[[Shares], NDArray[np.float64]], errors: int = 1) -> Shares:
    """Return `shares` with the value of `name` nearest to the default that is worse than the best one by no more than
    so many standard `errors` of their difference.
    """
    default = getattr(shares, name)
    found = {value: quality(replace(shares, **{name: value})) for value in SHARES}
    best = max(found.values(), key=lambda ranks: float(ranks.mean()))

    def as_good(ranks: NDArray[np.float64]) -> bool:
        lost = best - ranks
        return bool(lost.mean() <= errors * lost.std() / np.sqrt(len(lost)) + 1e-9)

    chosen = min((value for value in SHARES if as_good(found[value])), key=lambda value: abs(value - default))
    return replace(shares, **{name: chosen})


def _reciprocal_ranks(scores: Floats, right: NDArray[np.bool_], own: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return 1 / rank of the first right product of each of the queries [q, p]; `own` are the columns of the
    queries themselves, which are taken out. A product of equal score counts as before it.
    """
    if own is not None:
        rows = np.arange(len(own))
        scores[rows, own], right[rows, own] = -2, False
    best = np.where(right, scores, -2).max(axis=1, keepdims=True)
    ahead = ((scores >= best) & ~right).sum(axis=1)
    made: NDArray[np.float64] = 1 / (1 + ahead)
    return made
