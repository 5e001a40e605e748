"""Search in an index: the query's vector is compared by the engine, filters hold there, and what is shown of a result
is what was pushed. No vectors of the catalog's own store are opened.

    searcher = IndexSearcher(work, lambda: open_engine(place, "afmrl search", root))
    found = searcher.search(Query("red shirt", filters=("price<50",)))

Vectors alone rank: words, named attributes and colours of a hybrid search are not in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.images import open_image
from ..errors import AfmrlError, DataError, ModelError, UsageError
from ..listener import Notes
from ..models.embed_input import Item
from ..retrieval.encode import cut_message
from ..retrieval.filters import near_values, parse_filters
from ..retrieval.hits import Hit, QueryTerms, make_hit
from ..retrieval.listings import Listing
from ..retrieval.search import Found, Query
from ..retrieval.vectors import CURRENT, MANIFEST, VERSION, catalog_state, content_of, vectors_folder
from ..store.database import StoredAttributes
from ..store.files import read_object
from ..workspace import Workspace
from .card import PUSH_HINT, Card
from .conditions import Condition, condition_of, has_value, unwished
from .engine import Engine, Refused
from .points import listing_of, number_of

GONE = 404
ALONE = "ranked by vectors alone, in the index: words, named attributes and colors take part without --index"


@dataclass(frozen=True)
class IndexSearcher:
    """An index that is searched for a catalog's workspace. `open` opens it: a folder is one process's alone, so it is
    not held while a model is loaded and reads the query.
    """

    work: Workspace
    open: Callable[[], AbstractContextManager[Engine]]

    def search(self, query: Query) -> Found:
        """Find the listings nearest to `query` among those that pass its filters, best first.

        Raises UsageError for what an index can't do, DataError for an unknown `like`, ModelError for an index that is
        not there, or of another embedder, dimension or form.
        """
        notes, item, vector = Notes(), Item(), None
        if not query.like:
            self.check(query)
            item, vector = self._encoded(query, notes)
        for last in (False, True):
            try:
                with self.open() as engine:
                    return _Opened(self.work, engine).search(query, item, vector, notes)
            except Refused as error:
                # A push on another machine has just put another collection in the place of the one that counted.
                if last or error.status != GONE:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def check(self, query: Query) -> None:
        """Raise as `search` does for what shows before a model is loaded."""
        with self.open() as engine:
            opened = _Opened(self.work, engine)
            card = opened.card(query)
        condition_of(parse_filters(query.filters, "--filter"), list(unwished(query.without, card.keys)), card.keys)

    def _encoded(self, query: Query, notes: Notes) -> tuple[Item, NDArray[np.float32]]:
        catalog = self.work.settings.catalog
        photos = tuple(open_image(each, catalog) if isinstance(each, Path) else each for each in query.photos)
        item, encoder = Item(query.text.strip(), photos, query.attributes), self.work.embedder()
        [vector] = encoder.encode([item], instruction=self.work.embed.query_instruction)
        if encoder.texts_cut:
            notes.warn(f"the query: {cut_message(encoder.texts_cut)}")
        return item, vector


@dataclass(frozen=True)
class _Opened:
    """The index while it is open."""

    work: Workspace
    engine: Engine

    def search(self, query: Query, item: Item, vector: NDArray[np.float32] | None, notes: Notes) -> Found:
        """Find the listings nearest to `vector` [d], which the embedder made of `item`, or to `query.like`."""
        settings, card = self.work.settings.search, self.card(query)
        for note in (*self._stale(card), ALONE if settings.hybrid != "no" else ""):
            if note:
                notes.note(note)
        filters = parse_filters(query.filters, "--filter")
        pairs = list(unwished(query.without, card.keys))
        condition = condition_of(filters, pairs, card.keys)
        values = [(key, [each for each in wanted if isinstance(each, str)]) for key, wanted in filters.items()]
        self._tell_unknown(values, "--filter", card, notes)
        self._tell_unknown([(key, [value]) for key, value in pairs], "--not", card, notes)
        liked = None
        if vector is None:
            vector, liked = self._liked(query.like)
            condition = {**(condition or {})}
            condition["must_not"] = [*condition.get("must_not", []), {"has_id": [number_of(query.like)]}]
        elif len(vector) != card.dimension:
            raise ModelError(
                f"{self.engine.shown}: holds vectors of {card.dimension} numbers, the embedder gives {len(vector)}",
                "another model under the same name? `afmrl embed --force`, and `afmrl index push`",
            )
        near = self.engine.nearest(vector, settings.k, condition, effort=max(card.effort, settings.k))
        terms = QueryTerms.of_listing(liked[0], _rows(*liked)) if liked else QueryTerms.of_query(item)
        hits = [self._hit((place + 1, each.score), self._read(each.payload), terms) for place, each in enumerate(near)]
        shown = self._hit((0, 1.0), liked, QueryTerms(frozenset(), {})) if liked else None
        return Found(
            item,
            hits,
            shown,
            query.filters,
            notes=tuple(notes.notes),
            warnings=tuple(notes.warnings),
            without=query.without,
        )

    def _check(self, query: Query) -> None:
        query.check(self.work.settings)
        settings = self.work.settings.search
        for flag, given in (
            ("--change", query.change is not None),
            ("--rerank", settings.rerank),
            ("--collapse", settings.collapse != "no"),
        ):
            if given:
                raise UsageError(f"{flag}: an index is not searched so", "leave out --index, or the other")

    def card(self, query: Query) -> Card:
        """Return the card of the index. UsageError for a query that it can't answer, ModelError where there is none, or
        it is not of the settings' embedder.
        """
        self._check(query)
        card, wanted = self.engine.open(), vectors_folder(self.work).name
        if card is None:
            raise ModelError(f"{self.engine.shown}: no index here", PUSH_HINT)
        if card.vectors != wanted:
            raise ModelError(
                f"{self.engine.shown}: holds vectors of {card.vectors}, the settings name {wanted}",
                f"{PUSH_HINT} with these settings, or search with those",
            )
        return card

    def _stale(self, card: Card) -> Sequence[str]:
        """Say what the index does not have yet, as far as two small files tell."""
        if not card.complete:
            return [f"a push into this index was stopped, and some products are as they were: {PUSH_HINT}"]
        place = vectors_folder(self.work)
        try:
            version = (place / CURRENT).read_text("utf-8").strip()
            manifest = read_object(place / version / MANIFEST) if VERSION.fullmatch(version) else {}
            content = content_of(place / version, manifest)
        except (OSError, ValueError, DataError):
            return []  # no vectors of its own here: nothing to compare with
        try:
            changed = manifest.get("catalog") != catalog_state(self.work.folder)
        except AfmrlError as error:  # a bucket that can't be listed is no reason not to search
            return [f"not known whether the catalog has changed since `afmrl embed`: {error}"]
        if changed:
            return ["the catalog has changed since `afmrl embed`: run it, and `afmrl index push`, again"]
        return [] if content == card.data else [f"`afmrl embed` has newer products or vectors: {PUSH_HINT}"]

    def _tell_unknown(self, wanted: Sequence[tuple[str, Sequence[str]]], flag: str, card: Card, notes: Notes) -> None:
        for key, values in wanted:
            known = card.keys.get(key)
            for value in values if known else ():
                condition: Condition = {"must": [has_value(key, [value])]}
                if known and not self.engine.count(condition):
                    sign = "=" if flag == "--filter" else ": "
                    notes.note(f"{flag} {key}{sign}{value}: no listing has it; {near_values(value, known.cells)}")

    def _liked(self, id: str) -> tuple[NDArray[np.float32], tuple[Listing, str]]:
        found = self.engine.point(number_of(id))
        if found is None:
            raise DataError(f"--like {id}: no such listing in the index", PUSH_HINT)
        return found[0], self._read(found[1])

    def _read(self, payload: Mapping[str, Any]) -> tuple[Listing, str]:
        try:
            listing, attributes = listing_of(payload)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{self.engine.shown}: holds points that afmrl did not write", PUSH_HINT) from error
        # What a server says is no reason to open a file outside of the catalog's folder.
        inside = [name for name in listing.images if not Path(name).is_absolute() and ".." not in Path(name).parts]
        images = listing.images if self.work.settings.catalog.allow_outside else inside
        return replace(listing, images=images), attributes

    def _hit(self, place: tuple[int, float], read: tuple[Listing, str], terms: QueryTerms) -> Hit:
        listing, _ = read
        hit = make_hit(place, listing, _rows(*read)[listing.id], terms, self.work.folder.root)
        return hit


def _rows(listing: Listing, attributes: str) -> dict[str, StoredAttributes]:
    return {listing.id: StoredAttributes("", "", "", listing.id, attributes, None, 0.0)}
