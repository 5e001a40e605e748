"""Text, photo, both, or a listing -> ranked listings, and why each of them was found.

`--like SKU` asks with the listing's stored vector: no model is loaded, and the listing itself is left out. Everything
else is encoded with the query instruction. Unfiltered queries go to the index; with a filter the search is exact over
the listings that pass, so that a filter never loses a result.

"Why" is a help for the reader and no explanation of the model: the attributes whose value shares a word with the
query (or is the same as the like-listing's), and the words that query and product text share.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..attributes.agreement import read_confidence
from ..attributes.parse import read_stored, write_attributes
from ..attributes.schema import folded
from ..attributes.views import StoredViews, fingerprint_pairs, open_views, stored_rows, text_to_show
from ..catalog.product import Product
from ..errors import DataError
from ..models.embed_input import Item, for_composed
from ..store.database import StoredAttributes
from ..workspace import Workspace
from .bm25 import tokenize
from .cache import other_dimension
from .filters import Filters, check_keys, passes
from .index import exact_search, search_index
from .listings import Listing
from .rerank import Ranked, listing_item, rerank_first
from .vectors import Vectors

if TYPE_CHECKING:
    from .composed import Change, Composed

MIN_WORD = 2
PRICES = ("sale_price", "price", "preis", "prix", "precio", "pris", "regular_price", "variant_price")
LINKS = ("link", "url", "product_url", "product_link", "permalink", "canonical_link", "mobile_link")
"""Columns in which shops give them, the first that is filled counts."""


@dataclass(frozen=True)
class Hit:
    """One result. `matching` are the attribute keys, `words` the words that it shares with the query; `images` are
    absolute paths; `brand`, `price` and `link` are cells of the catalog, "" where it has none.
    """

    rank: int
    score: float
    id: str
    title: str
    attributes: dict[str, str] = field(default_factory=dict)
    matching: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    brand: str = ""
    price: str = ""
    link: str = ""
    same: float | None = None
    """The probability that it is the query's product, by the reranker; None where it was not asked."""
    confidence: dict[str, float] = field(default_factory=dict)
    """How sure the generator was of each attribute, where that is stored."""
    changed: dict[str, bool] = field(default_factory=dict)
    """Of each key that a composed query changes and that it has: whether its value is the wished one."""

    @property
    def why(self) -> str:
        """Return the shared attributes and words on one line."""
        shared = write_attributes((key, self.attributes[key]) for key in self.matching)
        return "; ".join(filter(None, (shared, ", ".join(self.words))))


@dataclass(frozen=True)
class Found:
    """What a search found: `hits`, best first. `liked` is the listing that they are like, None for a `query`; `filters`
    are as given; `reranked` is what the reranker took, None where it was not asked. `change` is that of a composed
    query, and `left_out` are the ids of its reference.
    """

    query: Item
    hits: Sequence[Hit]
    liked: Hit | None = None
    filters: Sequence[str] = ()
    reranked: dict[str, float] | None = None
    change: Change | None = None
    left_out: Sequence[str] = ()


def search(
    work: Workspace,
    vectors: Vectors,
    query: Item,
    like: str = "",
    filters: Filters | None = None,
    composed: Composed | None = None,
) -> Found:
    """Find the `search.k` listings nearest to `query`, or to the listing `like` (fewer when the catalog or the filter
    holds fewer), best first; the first `search.rerank` in the reranker's order. A `composed` query stands in for
    `query`, and its reference, which may be `like`, is no result.

    The embedder is loaded when the query needs a model. Raises DataError for an unknown `like`, UsageError for an
    unknown filter key, ModelError without the reranker that is wanted.
    """
    own, k = None, work.settings.search.k
    wanted = max(k, work.settings.search.rerank)
    if like:
        own = vectors.listings.row_of(like)
        if own is None:
            raise unknown_listing(like, vectors)
    hidden = composed.hidden if composed else frozenset() if own is None else frozenset([own])
    if composed or own is None:
        query = composed.query if composed else query
        encoder = for_composed(work.embedder()) if composed else work.embedder()
        encoded = encoder.encode([query], instruction=work.embed.query_instruction)
    else:
        encoded = np.asarray(vectors.matrix[own])[None]
    if encoded.shape[1] != vectors.matrix.shape[1]:
        raise other_dimension(encoded.shape[1], vectors.matrix.shape[1])
    scores, rows = _nearest(vectors, encoded, wanted + len(hidden), filters or {})
    found = [(float(score), int(row)) for score, row in zip(scores, rows, strict=True) if row >= 0]
    found = [(score, row) for score, row in found if row not in hidden]
    if found and not any(score for score, _ in found):
        raise _nothing_in_common(query, "" if composed else like)
    ranked: list[Ranked] = [(score, vectors.listings.listing(row), None) for score, row in found[:wanted]]
    liked, reranked = None if own is None else vectors.listings.listing(own), None
    if work.settings.search.rerank:
        item = listing_item(liked, work.folder.root) if liked else query
        ranked, reranked = rerank_first(work, item, ranked)
    ranked = ranked[:k]
    listings = [listing for _, listing, _ in ranked]
    texts = attributes_on_disk(work, [*listings, *([liked] if liked else [])])
    change = composed.change if composed else None
    terms = QueryTerms.of_listing(liked, texts) if liked and not change else QueryTerms.of_query(query, change)
    root = work.folder.root
    hits = [
        replace(_hit((rank, score), listing, texts.get(listing.id), terms, root), same=same)
        for rank, (score, listing, same) in enumerate(ranked, 1)
    ]
    nothing = QueryTerms(frozenset(), {})
    shown = _hit((0, 1.0), liked, texts.get(liked.id), nothing, root) if liked else None
    left_out = [vectors.listings.listing(row).id for row in sorted(hidden)] if composed else []
    return Found(query, hits, shown, reranked=reranked, change=change, left_out=left_out)


def attributes_on_disk(work: Workspace, listings: Sequence[Listing]) -> dict[str, StoredAttributes]:
    """Read the attributes of listings by id, as far as the store has any to show; nothing is made where it has no
    database yet.
    """
    if not work.folder.database.is_file() or (source := work.source_on_disk) is None:
        return {}
    with open_views(work, source) as views:
        return stored_attributes(listings, views, work.folder.root)


def stored_attributes(listings: Sequence[Listing], views: StoredViews, root: Path) -> dict[str, StoredAttributes]:
    """Read the attributes of listings by id, as far as the store has any to show."""
    source, prints = views.source, []
    assert source is not None
    for listing in listings:
        pair = (listing.fingerprint, listing.fingerprint)
        if source.photos and len(listing.images) > source.photos:  # of vectors without attributes: of the whole listing
            lines = tuple((name, value) for name, _, value in (s.partition(": ") for s in listing.text.split("\n")))
            photos = tuple(root / name for name in listing.images)
            whole = Product(listing.id, images=photos, text=lines)
            [pair] = fingerprint_pairs([whole], source.photos, views.fingerprinter)
        prints.append(pair)
    rows = stored_rows(views.database, source, prints)
    return {listing.id: row for listing, row in zip(listings, rows, strict=True) if row and text_to_show(row)}


def _nearest(
    vectors: Vectors, query: NDArray[np.float32], k: int, filters: Filters
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if filters:
        fields = list(vectors.listings.fields())
        check_keys(filters, {key for each in fields for key in each}, "--filter")
        rows = np.array([row for row, each in enumerate(fields) if passes(each, filters)], dtype=np.int64)
        scores, found = exact_search(vectors.matrix, query, k, rows)
    elif vectors.index_kind == "flat":
        # Exact either way: for one query the matrix product is the faster one, and importing FAISS costs more.
        scores, found = exact_search(vectors.matrix, query, k)
    else:
        scores, found = search_index(vectors.index(), query, k)
    return scores[0], found[0]


def _nothing_in_common(query: Item, like: str) -> DataError:
    """Return the error of a query that an encoder without a common space of texts and photos can compare with
    nothing.
    """
    asked, kind = ("this photo", "a photo") if query.images else ("this text", "a text")
    if like:
        asked, kind = like, "the same"
    return DataError(
        f"the embedder can't compare {asked} with any listing: it reads texts and photos apart, and none has {kind}",
        "ask with words" if query.images else "ask with a photo",
    )


def unknown_listing(id: str, vectors: Vectors) -> DataError:
    """Return the error of a `--like` that no embedded listing has, naming the nearest ids."""
    close = difflib.get_close_matches(id, vectors.ids, n=3, cutoff=0.6) if len(vectors.ids) <= 200_000 else []
    hint = f"did you mean {' or '.join(close)}?" if close else "it may be new since `afmrl embed`, or had no content"
    return DataError(f"--like {id}: no such listing among the embedded ones", hint)


@dataclass(frozen=True)
class QueryTerms:
    """The words and attributes of a query, which results are compared with to say why they were found."""

    words: frozenset[str]
    attributes: Mapping[str, str]
    change: Change | None = None

    @staticmethod
    def of_query(query: Item, change: Change | None = None) -> QueryTerms:
        """Take those of a text with the attributes that were written for it, and what a composed query changes."""
        words = query.text if change else f"{query.text} {query.attributes}"
        return QueryTerms(_words(words), read_stored(query.attributes), change)

    @staticmethod
    def of_listing(listing: Listing, stored: Mapping[str, StoredAttributes]) -> QueryTerms:
        """Take those of the listing that the results are like."""
        return QueryTerms(_words(listing.title), read_stored(text_to_show(stored.get(listing.id))))


def _hit(
    place: tuple[int, float], listing: Listing, row: StoredAttributes | None, terms: QueryTerms, root: Path
) -> Hit:
    rank, score = place
    attributes = read_stored(text_to_show(row))
    fields: dict[str, str] = json.loads(listing.fields)
    done = terms.change.done(attributes, fields) if terms.change else {}
    have = {folded(key): key for key in attributes}
    attributes |= {key: value for key, (value, _) in done.items() if key not in have}
    matching = [key for key, value in attributes.items() if _matches(key, value, terms)]
    shared = [word for word in dict.fromkeys(tokenize(listing.text)) if word in terms.words]
    images = tuple(root / name for name in listing.images)
    brand, price, link = (first_filled(fields, names) for names in (("brand",), PRICES, LINKS))
    link = link if link.startswith(("http://", "https://")) else ""
    known = read_confidence(row) if row else {}
    confidence = {key: known[key] for key in attributes if key in known}
    return Hit(
        rank,
        score,
        listing.id,
        listing.title,
        attributes,
        tuple(matching),
        tuple(shared),
        images,
        brand,
        price,
        link,
        confidence=confidence,
        changed={have.get(key, key): right for key, (_, right) in done.items()},
    )


def first_filled(fields: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the first of the fields `names` that says anything, "" for none."""
    return next((" ".join(fields[name].split()) for name in names if fields.get(name, "").strip()), "")


def _matches(key: str, value: str, terms: QueryTerms) -> bool:
    if key in terms.attributes:
        return terms.attributes[key].casefold() == value.casefold()
    return bool(_words(value) & terms.words)


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in tokenize(text) if len(word) >= MIN_WORD)


def fields_shown(hits: Sequence[Hit]) -> list[dict[str, object]]:
    """Return hits for a JSON document."""
    shown = (
        "rank",
        "id",
        "title",
        "brand",
        "price",
        "link",
        "attributes",
        "matching",
        "words",
        "why",
        "same",
        "confidence",
        "changed",
    )
    return [
        {name: getattr(hit, name) for name in shown}
        | {"score": round(hit.score, 6), "images": [str(path) for path in hit.images]}
        for hit in hits
    ]
