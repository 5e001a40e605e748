"""What RAR asks and what it searches: the queries, the gallery's rows, and which rows answer, or hide from, a query.

kind            query                     gallery row of a listing       answers
listings        a whole listing           the whole listing              the product's other listings
photos          one photo, alone          its text and other photos      the product's listings, its own included
photo-to-text   one photo, alone          its text                       the same
text-to-photos  its text                  its photos                     the same

`photos`, `photo-to-text` and `text-to-photos` are the pairs `photos` and `image-text` of AGCL's training, with the
photo and the direction fixed, since a gallery must be. Which photo asks is drawn once by the seed. Other photos of the
asking photo's listing are in the gallery only where they are part of its answer: a photo does not find them when it
looks for text, a listing does not find itself.

Hidden from a query are rows that the embedder can't tell from the query itself or from one of its answers (same text
and same photos) without being one: nobody could rank those rightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..training.pairs import Photo, Side, TrainListing

QueryKind = Literal["listings", "photos", "photo-to-text", "text-to-photos"]
KINDS: tuple[QueryKind, ...] = ("listings", "photos", "photo-to-text", "text-to-photos")


@dataclass(frozen=True, slots=True)
class RarQuery:
    """One query. `side` is what the embedder reads without attributes and all that the generator is shown.

    `category` is the listing's where its text is shown, else "", as at search time. `positives` and `hidden` are rows
    of the gallery; `rank` is that of the best positive without attributes (0: not looked up yet). `id` is the
    listing's, for people.
    """

    side: Side
    category: str
    positives: tuple[int, ...]
    hidden: tuple[int, ...]
    rank: int = 0
    id: str = ""


def views(
    listing: TrainListing, number: int, kind: QueryKind, *, max_photos: int, enrich: bool, seed: int
) -> tuple[Side | None, Side | None]:
    """(query, gallery row) of a listing; None where it has nothing to show.

    `enrich`: the row carries the listing's attribute text (`embed.enrich = both`); the query never does.
    """
    text, photos = listing.text, listing.photos
    if kind == "listings":
        query, row = (text, photos), (text, photos)
    elif kind == "text-to-photos":
        query, row = (text, ()), ("", photos)
    elif photos:
        asking = photos[int(np.random.default_rng((seed, number)).integers(len(photos)))]
        rest = tuple(photo for photo in photos if photo.content != asking.content)
        query, row = ("", (asking,)), (text, rest if kind == "photos" else ())
    else:
        query, row = ("", ()), (text, ())
    attributes = listing.attributes if enrich and kind != "text-to-photos" else ""
    return _side(number, *query, max_photos), _side(number, *row, max_photos, attributes)


def _side(number: int, text: str, photos: tuple[Photo, ...], max_photos: int, attributes: str = "") -> Side | None:
    return Side(number, text, photos[:max_photos], attributes) if text.strip() or photos or attributes else None


def pose(
    listings: Sequence[TrainListing],
    asking: Sequence[bool],
    kind: QueryKind,
    *,
    max_photos: int,
    enrich: bool,
    seed: int,
) -> tuple[list[Side], list[RarQuery]]:
    """The gallery of all `listings` that have something to show, and every query of those that may ask.

    Both in the order of the listings. A query has at least one positive; there may be no query at all.
    """
    gallery: list[Side] = []
    asked: list[Side] = []
    for number, listing in enumerate(listings):
        query, row = views(listing, number, kind, max_photos=max_photos, enrich=enrich, seed=seed)
        if row is not None:
            gallery.append(row)
        if query is not None and asking[number]:
            asked.append(query)
    of_product: dict[str, list[int]] = {}
    of_content: dict[str, list[int]] = {}
    contents = [side.content for side in gallery]
    for row_number, side in enumerate(gallery):
        of_product.setdefault(listings[side.listing].identity, []).append(row_number)
        of_content.setdefault(contents[row_number], []).append(row_number)
    queries: list[RarQuery] = []
    for side in asked:
        listing = listings[side.listing]
        same = of_product.get(listing.identity, [])
        same = [row for row in same if listings[gallery[row].listing].id not in listing.rejected]
        alike = set(of_content.get(side.content, []))
        if kind == "listings":
            alike |= {row for row in same if gallery[row].listing == side.listing}
        positives = tuple(row for row in same if row not in alike)
        if not positives:
            continue
        hidden = alike.union(*(of_content[contents[row]] for row in positives)) - set(positives)
        category = listing.category if side.text else ""
        queries.append(RarQuery(side, category, positives, tuple(sorted(hidden)), id=listing.id))
    return gallery, queries


def offered(listings: Sequence[TrainListing], *, max_photos: int, seed: int) -> dict[QueryKind, int]:
    """How many queries of each kind these listings offer."""
    every = [True] * len(listings)
    return {kind: len(pose(listings, every, kind, max_photos=max_photos, enrich=False, seed=seed)[1]) for kind in KINDS}


def choose_kind(wanted: str, offers: dict[QueryKind, int], least: int) -> QueryKind:
    """`wanted`, or for "auto" the first kind with at least `least` queries; DataError when there are too few."""
    kinds: list[QueryKind] = [kind for kind in KINDS if wanted in ("auto", kind) and offers[kind] >= least]
    if kinds:
        return kinds[0]
    told = ", ".join(f"{kind} {number:,}" for kind, number in offers.items())
    raise DataError(
        f"rar.query = {wanted}: fewer than {least} training products have an answer in the catalog (queries: {told})",
        "name the columns catalog.columns.product_id and .image, or another kind in rar.query; see `afmrl check`",
    )


def some_products(listings: Sequence[TrainListing], most: int, seed: int) -> list[TrainListing]:
    """About `most` of the listings (0: all), whole products at random, in their order."""
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


def prefer_middling(ranks: Sequence[int], k: int, number: int, seed: int) -> list[int]:
    """`number` of the queries (numbers, sorted), those whose plain rank is near k preferred; all if there are no more.

    Drawn without replacement with weights exp(-|ln rank - ln(k + 1/2)|): between rank k and k + 1 a hit is decided, a
    query at rank 10 k or k / 10 is drawn a tenth as often.
    """
    if len(ranks) <= number:
        return list(range(len(ranks)))
    distance = np.abs(np.log(np.asarray(ranks, float)) - np.log(k + 0.5))
    noise: NDArray[np.float64] = np.random.default_rng((seed, 2)).gumbel(size=len(ranks))
    return sorted(np.argsort(distance - noise, kind="stable")[:number].tolist())
