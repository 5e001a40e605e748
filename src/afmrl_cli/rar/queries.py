"""The queries of RAR and what they search, the gallery's rows, and which rows answer, or hide from, a query.

kind            query                     gallery row of a listing       answers
listings        a whole listing           the whole listing              the product's other listings
photos          one photo, alone          its text and other photos      the product's listings, its own included
photo-to-text   one photo, alone          its text                       the same
text-to-photos  its text                  its photos                     the same

`photos`, `photo-to-text` and `text-to-photos` are the pairs `photos` and `image-text` of AGCL's training, with
the photo and the direction fixed, since a gallery must be. Which photo asks is sampled once by the seed. Other
photos of the queried photo's listing are in the gallery only where they are part of its answer: a photo does
not find them when it searches for text, a listing does not find itself.

Hidden from a query are rows that the embedder can't tell from the query itself or from one of its answers (same text
and same photos) without being one: no model could rank those rightly; and rows with the very photo that asks.

A row carries attributes only with `embed.enrich = both`, those that were written from the view that it shows; the query
never does: its attributes are what is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..attributes.views import ALL_PHOTOS, LISTING, TEXT, ViewKey
from ..errors import DataError
from ..training.pairs import Photo, Side, TrainListing, first_photos_of, view_side

QueryKind = Literal["listings", "photos", "photo-to-text", "text-to-photos"]
KINDS: tuple[QueryKind, ...] = ("listings", "photos", "photo-to-text", "text-to-photos")


@dataclass(frozen=True, slots=True)
class RarQuery:
    """One query. `side` is what the embedder reads without attributes, `photos` are all that the query may show: the
    generator is shown the side's text and the first of them.

    `category` is the listing's where its text is shown, else "", as at search time. `positives` and `hidden` are rows
    of the gallery; `rank` is that of the best positive without attributes (0: not computed yet). `id` is the
    listing's, for people.
    """

    side: Side
    category: str
    positives: tuple[int, ...]
    hidden: tuple[int, ...]
    rank: int = 0
    id: str = ""
    photos: tuple[Photo, ...] = ()


def views(
    listing: TrainListing, number: int, kind: QueryKind, *, enrich: bool, seed: int
) -> tuple[Side | None, Side | None]:
    """Return (query, gallery row) of a listing with all the photos that they may show; None where there is nothing to
    show.

    `enrich`: the row carries attribute text of its own view (`embed.enrich = both`); the query never does.
    """
    query: ViewKey | None
    row: ViewKey
    query, row = None, LISTING
    if kind == "listings":
        query = LISTING
    elif kind == "text-to-photos":
        query, row = TEXT, ALL_PHOTOS
    elif listing.photos:
        photos = listing.photos
        content = photos[int(np.random.default_rng((seed, number)).integers(len(photos)))].content
        query, row = ("photos", content), ("rest", content) if kind == "photos" else TEXT
    return (
        _some(view_side(listing, number, query, enriched=False)) if query else None,
        _some(view_side(listing, number, row, enriched=enrich)),
    )


def _some(side: Side) -> Side | None:
    return side if side.text.strip() or side.photos else None


def pose(
    listings: Sequence[TrainListing],
    may_query: Sequence[bool],
    kind: QueryKind,
    *,
    max_photos: int,
    enrich: bool,
    seed: int,
) -> tuple[list[Side], list[RarQuery]]:
    """Return the gallery of all `listings` that have something to show, and every query of the listings in `may_query`.

    The embedder reads the first `max_photos` photos of each (0: all). Both in the order of the listings. A query has at
    least one positive; there may be no query at all.
    """
    gallery: list[Side] = []
    queries_as_shown: list[Side] = []
    of_photo: dict[str, list[int]] = {}
    for number, listing in enumerate(listings):
        query, row = views(listing, number, kind, enrich=enrich, seed=seed)
        if row is not None:
            for content in {photo.content for photo in row.photos}:
                of_photo.setdefault(content, []).append(len(gallery))
            gallery.append(first_photos_of(row, max_photos))
        if query is not None and may_query[number]:
            queries_as_shown.append(query)
    of_product: dict[str, list[int]] = {}
    of_content: dict[str, list[int]] = {}
    of_shown: dict[str, list[int]] = {}
    contents = [side.content for side in gallery]
    for row_number, side in enumerate(gallery):
        of_product.setdefault(listings[side.listing].identity, []).append(row_number)
        of_content.setdefault(contents[row_number], []).append(row_number)
        of_shown.setdefault(side.plain.content, []).append(row_number)
    queries: list[RarQuery] = []
    for whole in queries_as_shown:
        side = first_photos_of(whole, max_photos)
        listing = listings[side.listing]
        same = of_product.get(listing.identity, [])
        same = [row for row in same if listings[gallery[row].listing].id not in listing.rejected]
        alike = set(of_shown.get(side.content, []))
        if kind in ("photos", "photo-to-text"):
            alike |= {row for photo in side.photos for row in of_photo.get(photo.content, [])}
        if kind == "listings":
            alike |= {row for row in same if gallery[row].listing == side.listing}
        positives = tuple(row for row in same if row not in alike)
        if not positives:
            continue
        hidden = alike.union(*(of_content[contents[row]] for row in positives)) - set(positives)
        category = listing.category if side.text else ""
        query_of = RarQuery(side, category, positives, tuple(sorted(hidden)), id=listing.id, photos=whole.photos)
        queries.append(query_of)
    return gallery, queries


def offered(
    listings: Sequence[TrainListing], may_query: Sequence[bool], *, max_photos: int, seed: int
) -> dict[QueryKind, int]:
    """Return how many queries of each kind these listings offer."""

    def number(kind: QueryKind) -> int:
        return len(pose(listings, may_query, kind, max_photos=max_photos, enrich=False, seed=seed)[1])

    return {kind: number(kind) for kind in KINDS}


def choose_kind(
    wanted: str, offers: dict[QueryKind, int], least: int, heldout: dict[QueryKind, int] | None = None
) -> QueryKind:
    """Return `wanted`, or for "auto" the first kind with at least `least` queries, in what is held out too if any kind
    has so many there; DataError when there are too few.
    """
    kinds: list[QueryKind] = [kind for kind in KINDS if wanted in ("auto", kind) and offers[kind] >= least]
    if kinds:
        return next((kind for kind in kinds if heldout is None or heldout[kind] >= least), kinds[0])
    counts = ", ".join(f"{kind} {number:,}" for kind, number in offers.items())
    raise DataError(
        f"rar.query = {wanted}: fewer than {least} training products have an answer in the catalog (queries: {counts})",
        "name the columns catalog.columns.product_id and .image, or another kind in rar.query; see `afmrl check`",
    )


def some_products(listings: Sequence[TrainListing], most: int, seed: int) -> list[TrainListing]:
    """Return about `most` of the listings (0: all), whole products at random, in their order."""
    if not most or len(listings) <= most:
        return list(listings)
    sizes: dict[str, int] = {}
    for listing in listings:
        sizes[listing.identity] = sizes.get(listing.identity, 0) + 1
    names = list(sizes)
    kept: set[str] = set()
    left = most
    for i in np.random.default_rng((seed, 1)).permutation(len(names)).tolist():
        if sizes[names[i]] <= left:
            kept.add(names[i])
            left -= sizes[names[i]]
    return [listing for listing in listings if listing.identity in kept]


def difficulty(rank: int) -> int:
    """Return the class of a query by the rank of its best answer without attributes: 1, 2 to 3, 4 to 7, and so on, by
    the first rank of each.
    """
    return 1 << rank.bit_length() - 1


def prefer(weights: Sequence[float], number: int, seed: int) -> list[int]:
    """Return `number` of the queries (numbers, sorted), sampled without replacement by weights above 0; all if there
    are no more.
    """
    if len(weights) <= number:
        return list(range(len(weights)))
    noise: NDArray[np.float64] = np.random.default_rng((seed, 2)).gumbel(size=len(weights))
    return sorted(np.argsort(-np.log(weights) - noise, kind="stable")[:number].tolist())
