"""A search's results: what is shown of a listing, and why it was found.

"Why" is a help for the reader and no explanation of the model: the attributes whose value shares a word with the
query (or is the same as the like-listing's), and the words that query and product text share.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..attributes.agreement import read_confidence
from ..attributes.parse import read_stored, write_attributes
from ..attributes.schema import folded
from ..attributes.views import StoredViews, fingerprint_pairs, open_views, stored_rows, text_to_show
from ..catalog.product import Product
from ..errors import DataError
from ..models.embed_input import Item
from ..store.database import StoredAttributes
from ..workspace import Workspace
from .bm25 import tokenize
from .filters import PRICES as PRICES
from .listings import Listing
from .vectors import Vectors

MIN_WORD = 2
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
    """The probability that it is the query's product, by the reranker; None without it."""
    confidence: dict[str, float] = field(default_factory=dict)
    """How sure the generator was of each attribute, where that is stored."""
    changed: dict[str, bool] = field(default_factory=dict)
    """Of each key that a composed query changes and that it has: whether its value is the wished one."""
    others: int | None = None
    """How many others of its product or style could be results; None where they are not collapsed."""
    cosine: float = 0.0
    """Of its vector and the query's."""
    shares: dict[str, float] = field(default_factory=dict)
    """What each part of a hybrid search adds to the score; {} where vectors alone ranked."""

    @property
    def why(self) -> str:
        """Return the shared attributes and words on one line."""
        shared = write_attributes((key, self.attributes[key]) for key in self.matching)
        return "; ".join(filter(None, (shared, ", ".join(self.words))))


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


def unknown_listing(id: str, vectors: Vectors) -> DataError:
    """Return the error of a `--like` that no embedded listing has, naming the nearest ids."""
    close = difflib.get_close_matches(id, vectors.ids, n=3, cutoff=0.6) if len(vectors.ids) <= 200_000 else []
    hint = f"did you mean {' or '.join(close)}?" if close else "it may be new since `afmrl embed`, or had no content"
    return DataError(f"--like {id}: no such listing among the embedded ones", hint)


class Wish(Protocol):
    """What a composed query changes; `composed.Change` is it."""

    def done(self, attributes: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
        """Return, for each changed key that a listing has a value of, this value and whether it is the wished one."""


@dataclass(frozen=True)
class QueryTerms:
    """The words and attributes of a query, which results are compared with to say why they were found."""

    words: frozenset[str]
    attributes: Mapping[str, str]
    change: Wish | None = None

    @staticmethod
    def of_query(query: Item, change: Wish | None = None) -> QueryTerms:
        """Take those of a text with the attributes that were written for it, and what a composed query changes."""
        words = query.text if change else f"{query.text} {query.attributes}"
        return QueryTerms(_words(words), read_stored(query.attributes), change)

    @staticmethod
    def of_listing(listing: Listing, stored: Mapping[str, StoredAttributes]) -> QueryTerms:
        """Take those of the listing that the results are like."""
        return QueryTerms(_words(listing.title), read_stored(text_to_show(stored.get(listing.id))))


def make_hit(
    place: tuple[int, float],
    listing: Listing,
    row: StoredAttributes | None,
    terms: QueryTerms,
    root: Path,
    named: Mapping[str, str] | None = None,
) -> Hit:
    """Make the result at `place` (rank, score), with what is stored of its attributes; photos are under `root`. `named`
    are pairs that it has and the query names.
    """
    rank, score = place
    attributes = read_stored(text_to_show(row))
    fields: dict[str, str] = json.loads(listing.fields)
    done = terms.change.done(attributes, fields) if terms.change else {}
    have = {folded(key): key for key in attributes}
    attributes |= {key: value for key, (value, _) in done.items() if key not in have}
    wished = {have.get(folded(key), key): value for key, value in (named or {}).items()}
    attributes |= {key: value for key, value in wished.items() if key not in attributes}
    matching = [key for key, value in attributes.items() if key in wished or _matches(key, value, terms)]
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
        "others",
        "shares",
    )
    return [
        {name: getattr(hit, name) for name in shown}
        | {"score": round(hit.score, 6), "cosine": round(hit.cosine, 6), "images": [str(path) for path in hit.images]}
        for hit in hits
    ]
