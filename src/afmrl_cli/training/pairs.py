"""Positive pairs from the catalog itself: what a query and its target show.

listings     two listings that share a `product_id`, both whole (text and photos)
photos       one photo of a listing, alone, asks for the rest of the listing
image-text   the text of a listing asks for its photos, or one photo for the text

By default every listing gives one pair of the first kind that it offers, in this order; `agcl.pairs` names other kinds,
and then every listing gives a pair of each of them that it offers. Which listing, photo or direction it is, is sampled
anew in each epoch, and so are the photos of a side that has more than the embedder reads. Photos are kept apart from
text on the query's side, since a title would give the answer away.

A side carries attributes that a generator wrote from the very view that it shows, or none (`attributes.views`): a photo
that asks for its title has those that were written from this photo alone. The query's are dropped at random
(`agcl.attribute_dropout`), so that plain and enriched queries are both in distribution; the target has attributes only
with `embed.enrich = both`, as in inference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..attributes.views import ALL_PHOTOS, LISTING, TEXT, ViewKey, ViewName
from ..catalog.product import enriched_text
from ..errors import DataError
from ..store.files import hash_json

Kind = Literal["listings", "photos", "image-text"]
KINDS: tuple[Kind, ...] = ("listings", "photos", "image-text")
Enrich = Literal["none", "query", "both"]
QUERIES_OF_KIND: dict[Kind, tuple[ViewName, ...]] = {
    "listings": (),
    "photos": ("photos",),
    "image-text": ("text", "photos"),
}
"""The views, beside whole listings, that ask."""
VIEWS_OF_KIND: dict[Kind, tuple[ViewName, ...]] = {
    "listings": (), "photos": ("photos", "rest"), "image-text": ("text", "photos", "all-photos")
}  # fmt: skip
"""The views, beside whole listings, that ask or are searched."""
ROWS_OF_RAR: dict[str, ViewName] = {"photos": "rest", "photo-to-text": "text", "text-to-photos": "all-photos"}
"""The view that a gallery row shows, beside whole listings, by the kind of RAR's queries."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A readable photo: `size` is (width, height) in pixels, `content` a hash of its bytes."""

    path: Path
    size: tuple[int, int]
    content: str


@dataclass(frozen=True, slots=True)
class TrainListing:
    """A listing as training sees it. `attributes` are generated attribute texts by the view they were written from."""

    id: str
    identity: str
    category: str
    text: str
    photos: tuple[Photo, ...] = ()
    attributes: Mapping[ViewKey, str] = field(default_factory=dict)
    rejected: frozenset[str] = frozenset()
    """Ids of listings that a person called another product."""


@dataclass(frozen=True, slots=True)
class Positive:
    """A listing that a query can be about, and how. `others` are the listings (numbers) of the same product."""

    kind: Kind
    listing: int
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """What the embedder reads as query or target: listing number, product text, photos and attribute text."""

    listing: int
    text: str
    photos: tuple[Photo, ...] = ()
    attributes: str = ""

    @property
    def words(self) -> str:
        """Return product text and attributes."""
        return enriched_text(self.text, self.attributes)

    @property
    def content(self) -> str:
        """Return what is equal for sides that the embedder can't tell apart: a hash of all that it reads."""
        return hash_json([self.words, [photo.content for photo in self.photos]])

    @property
    def plain(self) -> Side:
        """Return the side without attributes."""
        return replace(self, attributes="")


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and its positive."""

    kind: Kind
    query: Side
    target: Side


def find_positives(
    listings: Sequence[TrainListing], wanted: Sequence[Kind] = (), *, required: bool = True
) -> list[Positive]:
    """Return what the catalog offers: with `wanted` empty the best kind for each listing, else every kind that is
    named.

    In the order of the listings. DataError when there is none, and one is `required`.
    """
    holders: dict[str, list[int]] = {}
    for i, listing in enumerate(listings):
        holders.setdefault(listing.identity, []).append(i)
    found: list[Positive] = []
    for i, listing in enumerate(listings):
        same = (j for j in holders[listing.identity] if j != i and listings[j].id not in listing.rejected)
        others = tuple(j for j in same if listings[j].text or listings[j].photos)
        offered = [kind for kind in wanted or KINDS if _offers(listing, kind, others)]
        found += [Positive(kind, i, others) for kind in (offered if wanted else offered[:1])]
    if not found and required:
        message = "no positive pairs: no two listings share a product_id, none has two photos, none has photo and text"
        if wanted:
            message = f"no positive pairs of the kinds {', '.join(wanted)} (agcl.pairs)"
        raise DataError(message, "name the columns (catalog.columns.product_id, .image), or see `afmrl check`")
    return found


def _offers(listing: TrainListing, kind: Kind, others: tuple[int, ...]) -> bool:
    if kind == "listings":
        return bool(others) and bool(listing.text or listing.photos)
    if kind == "photos":
        return len({photo.content for photo in listing.photos}) >= 2
    return bool(listing.photos and listing.text)


def draw_pair(
    positive: Positive,
    listings: Sequence[TrainListing],
    rng: np.random.Generator,
    *,
    max_photos: int,
    enrich: Enrich,
    dropout: float,
) -> Pair:
    """Sample one pair of `positive`. `dropout` is the share of queries that lose their attributes; 0: none.

    Of a side with more than `max_photos` photos (0: no limit) so many are sampled.
    """
    listing, number = listings[positive.listing], positive.listing
    if positive.kind == "listings":
        number = positive.others[int(rng.integers(len(positive.others)))]
        query, target = LISTING, LISTING
    elif positive.kind == "photos":
        content = _any_photo(listing, rng)
        query, target = ("photos", content), ("rest", content)
    elif rng.random() < 0.5:
        query, target = TEXT, ALL_PHOTOS
    else:
        query, target = ("photos", _any_photo(listing, rng)), TEXT
    keeps = rng.random() >= dropout

    def side(number: int, view: ViewKey, enriched: bool) -> Side:
        shown = view_side(listings[number], number, view, enriched=enriched)
        return replace(shown, photos=_some_photos(shown.photos, max_photos, rng))

    return Pair(
        positive.kind,
        side(positive.listing, query, enrich != "none" and keeps),
        side(number, target, enrich == "both"),
    )


def view_side(listing: TrainListing, number: int, view: ViewKey, *, enriched: bool) -> Side:
    """Return what a side shows of a listing, and with `enriched` the attributes that were written from just that."""
    name, content = view
    text = "" if name in ("photos", "all-photos") else listing.text
    photos = () if name == "text" else listing.photos
    if name == "photos":
        photos = tuple(photo for photo in photos if photo.content == content)[:1]
    elif name == "rest":
        photos = tuple(photo for photo in photos if photo.content != content)
    return Side(number, text, photos, listing.attributes.get(view, "") if enriched else "")


def first_photos_of(side: Side, most: int) -> Side:
    """Return `side` with its first `most` photos (0: all), as in inference."""
    return replace(side, photos=side.photos[:most]) if most else side


def query_views(positive: Positive, listing: TrainListing) -> list[ViewKey]:
    """Return the views that may ask for `positive`."""
    if positive.kind == "listings":
        return [LISTING]
    photos: list[ViewKey] = [("photos", photo.content) for photo in listing.photos]
    return photos if positive.kind == "photos" else [TEXT, *photos]


def _any_photo(listing: TrainListing, rng: np.random.Generator) -> str:
    return listing.photos[int(rng.integers(len(listing.photos)))].content


def _some_photos(photos: tuple[Photo, ...], most: int, rng: np.random.Generator) -> tuple[Photo, ...]:
    if not most or len(photos) <= most:
        return photos
    return tuple(photos[i] for i in sorted(rng.permutation(len(photos))[:most].tolist()))


def mix(positives: Sequence[Positive]) -> dict[str, int]:
    """Return how many pairs of each kind."""
    return dict(Counter(positive.kind for positive in positives))


def indistinguishable(pairs: Sequence[Pair], listings: Sequence[TrainListing]) -> NDArray[np.bool_]:
    """Return bool [n, n]: candidate j is no negative of query i, whatever a model thinks; the diagonal is False.

    True where both are listings of one product (and no person said otherwise), or where the same is shown: the same
    target as the positive, the query itself as a target, a target with the very photo that asks alone, or two queries
    that are the same. The same are two sides with identical text and photos, and two with identical text where one of
    them has nothing but text; sides without text go by their photos. A query's attributes don't count, for they are
    dropped at random. Colour variants under one text and with different photos stay negatives, they are the very thing
    to learn.
    """
    identity = [listings[pair.query.listing].identity for pair in pairs]
    queries, targets = [pair.query for pair in pairs], [pair.target for pair in pairs]
    same_product = _equal(identity, identity) & ~rejected(queries, targets, listings)
    queries_shown, targets_shown = [query.plain for query in queries], [target.plain for target in targets]
    found = (
        same_product
        | _same(targets, targets)
        | _same(queries_shown, targets_shown)
        | _same(queries_shown, queries_shown)
    )
    found |= _shows_the_photo(queries, targets)
    np.fill_diagonal(found, False)
    return found


def no_negatives(pair: Pair, sides: Sequence[Side], listings: Sequence[TrainListing]) -> NDArray[np.bool_]:
    """Return bool [n]: a side is no negative of the query of `pair`, for what `indistinguishable` goes by."""
    shown, queries = [side.plain for side in sides], [pair.query]
    identity = listings[pair.query.listing].identity
    same = np.array([listings[side.listing].identity == identity for side in sides], dtype=np.bool_)
    found = (same & ~rejected(queries, sides, listings)[0]) | _same([pair.target.plain], shown)[0]
    found |= _same([pair.query.plain], shown)[0] | _shows_the_photo(queries, shown)[0]
    return np.asarray(found)


def rejected(queries: Sequence[Side], targets: Sequence[Side], listings: Sequence[TrainListing]) -> NDArray[np.bool_]:
    """Return bool [n, m]: a person called the listings of query i and target j different products."""
    found = np.zeros((len(queries), len(targets)), dtype=np.bool_)
    for i, query in enumerate(queries):
        if others := listings[query.listing].rejected:
            found[i] = [listings[target.listing].id in others for target in targets]
    return found


def _same(rows: list[Side], columns: list[Side]) -> NDArray[np.bool_]:
    texts = _equal([side.words for side in rows], [side.words for side in columns])
    written = np.array([bool(side.words) for side in rows])
    bare, bare_too = (np.array([not side.photos for side in sides]) for sides in (rows, columns))
    text_decides = texts & written[:, None] & (bare[:, None] | bare_too[None, :])
    contents = _equal([side.content for side in rows], [side.content for side in columns])
    return np.asarray(contents | text_decides)


def _shows_the_photo(queries: list[Side], targets: list[Side]) -> NDArray[np.bool_]:
    """Return bool [n, m]: query i is one photo alone, and target j shows it."""
    photos = [{photo.content for photo in target.photos} for target in targets]
    found = np.zeros((len(queries), len(targets)), dtype=np.bool_)
    for i, query in enumerate(queries):
        if not query.text and len(query.photos) == 1:
            found[i] = [query.photos[0].content in contents for contents in photos]
    return found


def _equal(rows: list[str], columns: list[str]) -> NDArray[np.bool_]:
    number = {value: i for i, value in enumerate(dict.fromkeys(rows + columns))}
    left = np.array([number[value] for value in rows])
    right = np.array([number[value] for value in columns])
    return np.asarray(left[:, None] == right[None, :])
