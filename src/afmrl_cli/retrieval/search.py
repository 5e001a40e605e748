"""Text, photo, both, or a listing -> ranked listings, over a catalog that is opened once.

    searcher = open_search(work)
    found = searcher.search(Query("red shirt", filters=("brand=Luma",)))

A query of `like` is the listing's stored vector: no model is loaded, and the listing itself is left out. Everything
else is encoded with the query instruction. Unfiltered queries go to the index; with a filter the search is exact over
the listings that pass, so that a filter never loses a result.

A service that answers many people calls the three steps of `search` by themselves: `prepare` and `answer` in as many
threads as it likes, `encode` for all queries that wait. Models are behind one lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..catalog.images import open_image
from ..errors import DataError, UsageError
from ..listener import Notes
from ..models.backends import photos_alone, reads_text
from ..models.embed_input import Item, for_composed
from ..settings import SearchSettings, Settings
from ..workspace import Workspace
from .cache import other_dimension
from .composed import Change, Composed, check_embedder, compose, read_change
from .encode import cut_message
from .filters import Filters, check_keys, parse_filters, passes
from .hits import Hit, QueryTerms, attributes_on_disk, make_hit, unknown_listing
from .index import Index, exact_search, search_index
from .rerank import Ranked, listing_item, rerank_first
from .vectors import Vectors, load_vectors, stale_products

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Query:
    """What is wanted: `text`, `photos` (paths, or opened) or both, with the `attributes` that a generator wrote of
    them; or products `like` a listing. With a `change`, as a person writes it, the one photo or listing is its
    reference. `filters` are `key=value`.
    """

    text: str = ""
    photos: tuple[Path | Image, ...] = ()
    attributes: str = ""
    like: str = ""
    change: str | None = None
    filters: tuple[str, ...] = ()

    def check(self, settings: Settings) -> None:
        """Raise UsageError for parts that can't stand together, for nothing at all, and for words where the embedder
        reads photos alone.
        """
        words = self.text.strip()
        if self.change is not None:
            if not " ".join(self.change.split()):
                raise UsageError(
                    "--change: says nothing", "such as --change 'color: red' or --change 'with longer sleeves'"
                )
            if bool(self.photos) == bool(self.like):
                raise UsageError("--change needs one reference", "give either --image FILE or --like ID")
            if words:
                raise UsageError("--change is the text of its query", "put all words into --change")
            if settings.search.rerank:
                raise UsageError(
                    "--rerank: --change asks for another product than its reference",
                    "a reranker tells whether two listings are one product: leave it out, or --rerank 0",
                )
        elif self.like and (words or self.photos or self.attributes):
            raise UsageError("--like stands alone", "it searches by the listing's stored vector; leave out the rest")
        elif not self.like and not words and not self.photos:
            raise UsageError("nothing to search for", 'give a text, --image or --like, as in: afmrl search "red shirt"')
        if (words or self.attributes) and not reads_text(settings):
            raise photos_alone(settings, "the query's words" if words else "--enrich")


@dataclass(frozen=True)
class Found:
    """What a search found: `hits`, best first. `liked` is the listing that they are like, None for a `query`; `filters`
    are as given; `reranked` is what the reranker took, None where there was none. `change` is that of a composed
    query, and `left_out` are the ids of its reference. `notes` and `warnings` are for who searches.
    """

    query: Item
    hits: Sequence[Hit]
    liked: Hit | None = None
    filters: Sequence[str] = ()
    reranked: dict[str, float] | None = None
    change: Change | None = None
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Prepared:
    """A query that has been checked and opened. `like` is the row of the listing that results are like; `hidden` rows
    are no result; `work` tells its notes to the query's own.
    """

    query: Query
    item: Item
    settings: SearchSettings
    filters: Filters
    work: Workspace
    notes: Notes
    like: int | None = None
    composed: Composed | None = None
    hidden: frozenset[int] = frozenset()

    @property
    def needs_model(self) -> bool:
        """Tell whether `encode` has to load the embedder for it."""
        return self.composed is not None or self.like is None


@dataclass(frozen=True)
class Searcher:
    """A catalog opened for searching: `open_search` makes it. Reading is safe from several threads."""

    work: Workspace
    vectors: Vectors
    _model: Lock = field(default_factory=Lock, repr=False)

    def search(self, query: Query, settings: SearchSettings | None = None) -> Found:
        """Find the `settings.k` listings nearest to `query` (fewer when the catalog or the filter holds fewer), best
        first; the first `settings.rerank` in the reranker's order. The workspace's `[search]` by default.

        Raises UsageError for a query that can't be, or an unknown filter key; DataError for an unknown `like` and for
        a photo that can't be opened; ModelError without a model that is wanted.
        """
        prepared = self.prepare(query, settings)
        [vector] = self.encode([prepared])
        return self.answer(prepared, vector)

    def prepare(self, query: Query, settings: SearchSettings | None = None) -> Prepared:
        """Check `query`, open its photos and its reference. Raises as `search`; loads no model."""
        settings, notes = settings or self.work.settings.search, Notes()
        whole = self.work.settings.model_copy(update={"search": settings})
        query.check(whole)
        filters = parse_filters(query.filters, "--filter")
        if query.change is not None and self.work.folder.database.is_file():
            self.work.source_on_disk  # noqa: B018  once for all queries
        work = self.work.telling(notes, whole)
        if query.change is not None:
            check_embedder(work)
            paths = [photo for photo in query.photos if isinstance(photo, Path)]
            change = read_change(query.change)
            composed = compose(work, self.vectors, change, like=query.like, photos=paths, written=query.attributes)
            like = self.vectors.listings.row_of(query.like) if query.like else None
            return Prepared(
                query, composed.query, settings, filters, work, notes, like, composed, hidden=composed.hidden
            )
        if query.like:
            row = self.vectors.listings.row_of(query.like)
            if row is None:
                raise unknown_listing(query.like, self.vectors)
            return Prepared(query, Item(), settings, filters, work, notes, row, hidden=frozenset([row]))
        catalog = self.work.settings.catalog
        images = tuple(open_image(photo, catalog) if isinstance(photo, Path) else photo for photo in query.photos)
        item = Item(query.text.strip(), images, query.attributes)
        return Prepared(query, item, settings, filters, work, notes)

    def encode(self, queries: Sequence[Prepared]) -> NDArray[np.float32]:
        """Return the vector of each query [n, d]: the embedder reads all that need it at once, and is loaded when one
        does.
        """
        made = np.empty((len(queries), self.vectors.matrix.shape[1]), dtype=np.float32)
        for composed in (False, True):
            places = [i for i, each in enumerate(queries) if each.needs_model and bool(each.composed) == composed]
            if not places:
                continue
            with self._model:
                encoder = for_composed(self.work.embedder()) if composed else self.work.embedder()
                before = encoder.texts_cut
                items = [queries[i].item for i in places]
                encoded = encoder.encode(items, instruction=self.work.embed.query_instruction)
                cut = encoder.texts_cut - before
            if encoded.shape[1] != made.shape[1]:
                raise other_dimension(encoded.shape[1], made.shape[1])
            made[places] = encoded
            for i in places if cut else ():
                queries[i].notes.warn(f"the query: {cut_message(cut)}")
        for i, each in enumerate(queries):
            if not each.needs_model:
                made[i] = self.vectors.matrix[each.like]
        return made

    def answer(self, prepared: Prepared, vector: NDArray[np.float32]) -> Found:
        """Find what is nearest to a query's `vector` [d], and say why."""
        settings, listings = prepared.settings, self.vectors.listings
        wanted = max(settings.k, settings.rerank)
        scores, rows = self._nearest(vector[None], wanted + len(prepared.hidden), prepared.filters)
        found = [(float(score), int(row)) for score, row in zip(scores, rows, strict=True) if row >= 0]
        found = [(score, row) for score, row in found if row not in prepared.hidden]
        if found and not any(score for score, _ in found):
            raise _nothing_in_common(prepared)
        ranked: list[Ranked] = [(score, listings.listing(row), None) for score, row in found[:wanted]]
        reranked = None
        if settings.rerank:
            ranked, reranked = self._reranked(prepared, ranked)
        return self._shown(prepared, ranked[: settings.k], reranked)

    def stale(self) -> int:
        """Count the products that are new, changed or gone since the vectors were made."""
        return stale_products(self.work, self.vectors)

    @cached_property
    def _index(self) -> Index:
        return self.vectors.index()

    def _nearest(
        self, query: NDArray[np.float32], k: int, filters: Filters
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        vectors = self.vectors
        if filters:
            fields = list(vectors.listings.fields())
            check_keys(filters, {key for each in fields for key in each}, "--filter")
            rows = np.array([row for row, each in enumerate(fields) if passes(each, filters)], dtype=np.int64)
            scores, found = exact_search(vectors.matrix, query, k, rows)
        elif vectors.index_kind == "flat":
            # Exact either way: for one query the matrix product is the faster one, and importing FAISS costs more.
            scores, found = exact_search(vectors.matrix, query, k)
        else:
            with self._model:  # the effort of a search is set on the index
                scores, found = search_index(self._index, query, k)
        return scores[0], found[0]

    def _reranked(self, prepared: Prepared, ranked: list[Ranked]) -> tuple[list[Ranked], dict[str, float]]:
        item = prepared.item
        if prepared.like is not None:
            item = listing_item(self.vectors.listings.listing(prepared.like), self.work.folder.root)
        with self._model:
            self.work.reranker()
            work = self.work.telling(prepared.notes, prepared.work.settings)
            return rerank_first(work, item, ranked)

    def _shown(self, prepared: Prepared, ranked: Sequence[Ranked], reranked: dict[str, float] | None) -> Found:
        composed, listings, root = prepared.composed, self.vectors.listings, self.work.folder.root
        liked = None if prepared.like is None else listings.listing(prepared.like)
        shown = [listing for _, listing, _ in ranked]
        texts = attributes_on_disk(self.work, [*shown, *([liked] if liked else [])])
        change = composed.change if composed else None
        terms = QueryTerms.of_query(prepared.item, change)
        if liked and not change:
            terms = QueryTerms.of_listing(liked, texts)
        hits = [
            replace(make_hit((rank, score), listing, texts.get(listing.id), terms, root), same=same)
            for rank, (score, listing, same) in enumerate(ranked, 1)
        ]
        nothing = QueryTerms(frozenset(), {})
        return Found(
            prepared.item,
            hits,
            make_hit((0, 1.0), liked, texts.get(liked.id), nothing, root) if liked else None,
            prepared.query.filters,
            reranked,
            change,
            [listings.listing(row).id for row in sorted(prepared.hidden)] if composed else [],
            tuple(prepared.notes.notes),
            tuple(prepared.notes.warnings),
        )


def open_search(work: Workspace) -> Searcher:
    """Open the catalog's vectors and listings for searching. Raises ModelError where it was not embedded so."""
    return Searcher(work, load_vectors(work))


def _nothing_in_common(prepared: Prepared) -> DataError:
    """Return the error of a query that an encoder without a common space of texts and photos can compare with
    nothing.
    """
    photos = bool(prepared.item.images)
    asked, kind = ("this photo", "a photo") if photos else ("this text", "a text")
    if prepared.like is not None and not prepared.composed:
        asked, kind = prepared.query.like, "the same"
    return DataError(
        f"the embedder can't compare {asked} with any listing: it reads texts and photos apart, and none has {kind}",
        "search with words" if photos else "search with a photo",
    )
