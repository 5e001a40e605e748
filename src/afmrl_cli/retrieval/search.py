"""Text, photo, both, or a listing -> ranked listings, over a catalog that is opened once.

    searcher = open_search(work)
    found = searcher.search(Query("red shirt", filters=("brand=Luma", "price<50")))

A query of `like` is the listing's stored vector: no model is loaded, and the listing itself is left out. Everything
else is encoded with the query instruction. How vectors and the other parts of a hybrid search come together says
`hybrid`; a query with a `change`, and every one with `search.hybrid = "no"`, goes by vectors alone. With a filter the
search is exact over the listings that pass, so that a filter never loses a result.

A service that answers many people calls the three steps of `search` by themselves: `prepare` and `answer` in as many
threads as it likes, `encode` for all queries that wait. Models are behind one lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import read_stored
from ..attributes.views import text_to_show
from ..catalog.images import open_image
from ..errors import DataError, UsageError
from ..listener import Notes
from ..models.backends import photos_alone, reads_text
from ..models.embed_input import Item, for_composed
from ..settings import SearchSettings, Settings
from ..workspace import Workspace
from .bm25 import tokenize
from .cache import other_dimension
from .colors import mean_colors
from .columns import Mask
from .composed import Change, Composed, check_embedder, compose, read_change
from .encode import cut_message
from .filters import parse_filters
from .hits import Hit, QueryTerms, attributes_on_disk, make_hit, unknown_listing
from .hybrid import HybridQuery, Kind, Ranking, Weights, rank
from .opened import GROUPS, Opened
from .rerank import listing_item, rerank_first
from .vectors import Vectors, load_vectors, stale_products

if TYPE_CHECKING:
    from PIL.Image import Image

DEEPER = 4
"""How many times as many listings are looked through where results are collapsed, again and again."""


@dataclass(frozen=True)
class Query:
    """What is wanted: `text`, `photos` (paths, or opened) or both, with the `attributes` that a generator wrote of
    them; or products `like` a listing. With a `change`, as a person writes it, the one photo or listing is its
    reference. `filters` are `key=value` or bounds such as `price<100`; listings that have any of `without`
    (`key: value`, or words) are no result.
    """

    text: str = ""
    photos: tuple[Path | Image, ...] = ()
    attributes: str = ""
    like: str = ""
    change: str | None = None
    filters: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

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
    query, and `left_out` are the ids of its reference. `notes` and `warnings` are for who searches. `weights` are those
    of a hybrid search, None where vectors alone ranked, and `tuned` says in words where they come from.
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
    without: Sequence[str] = ()
    weights: Weights | None = None
    tuned: str = ""


@dataclass(frozen=True)
class Prepared:
    """A query that has been checked and opened. `like` is the row of the listing that results are like; `hidden` rows
    are no result, nor are those that are not `allowed` [n] (None: all are); `work` tells its notes to the query's own.
    """

    query: Query
    item: Item
    settings: SearchSettings
    allowed: Mask | None
    work: Workspace
    notes: Notes
    like: int | None = None
    composed: Composed | None = None
    hidden: frozenset[int] = frozenset()

    @property
    def needs_model(self) -> bool:
        """Tell whether `encode` has to load the embedder for it."""
        return self.composed is not None or self.like is None

    @property
    def kind(self) -> Kind:
        """Return what asks."""
        if self.like is not None:
            return "listing"
        return "both" if self.item.images and self.item.text else "photo" if self.item.images else "text"


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
        allowed, found = self.opened.allowed(parse_filters(query.filters, "--filter"), query.without)
        for note in found:
            notes.note(note)
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
                query, composed.query, settings, allowed, work, notes, like, composed, hidden=composed.hidden
            )
        if query.like:
            row = self.vectors.listings.row_of(query.like)
            if row is None:
                raise unknown_listing(query.like, self.vectors)
            return Prepared(query, Item(), settings, allowed, work, notes, row, hidden=frozenset([row]))
        catalog = self.work.settings.catalog
        images = tuple(open_image(photo, catalog) if isinstance(photo, Path) else photo for photo in query.photos)
        item = Item(query.text.strip(), images, query.attributes)
        return Prepared(query, item, settings, allowed, work, notes)

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
        settings, weights = prepared.settings, self._weights(prepared)
        hybrid = None if weights is None else self._as_hybrid(prepared, vector, colors=weights.get("colors", 0.0) > 0)
        ranking, others = self._collapsed(prepared, vector, hybrid, weights)
        if len(ranking.rows) and not (ranking.scores.any() or ranking.cosines.any()):
            raise _nothing_in_common(prepared)
        same: list[float | None] = [None] * len(ranking.rows)
        reranked = None
        if settings.rerank:
            ranking, same, reranked = self._reranked(prepared, ranking)
        return self._shown(prepared, ranking, (hybrid, weights), others, same, reranked)

    def stale(self) -> int:
        """Count the products that are new, changed or gone since the vectors were made."""
        return stale_products(self.work, self.vectors)

    @cached_property
    def opened(self) -> Opened:
        """Return all that is read beside the vectors."""
        return Opened(self.work, self.vectors)

    def _weights(self, prepared: Prepared) -> Weights | None:
        """Return the weights of the parts that rank a query; None where vectors alone do."""
        if prepared.composed or prepared.settings.hybrid == "no":
            return None
        weights = self.opened.weights.of(prepared.kind)
        return weights if any(weight > 0 for part, weight in weights.items() if part != "vectors") else None

    def _as_hybrid(self, prepared: Prepared, vector: NDArray[np.float32], *, colors: bool) -> HybridQuery:
        text, written, item = prepared.item.text, prepared.item.attributes, prepared.item
        if prepared.like is None:
            wishes = self.opened.named.wishes(text, read_stored(written))
            shown = mean_colors(item) if colors and item.images and self.opened.colors is not None else None
            return HybridQuery(vector, tokenize(text), wishes, shown)
        listing = self.vectors.listings.listing(prepared.like)
        written = text_to_show(attributes_on_disk(self.work, [listing]).get(listing.id))
        wishes = self.opened.named.wishes("", read_stored(written))
        shown = self.opened.colors.colors(prepared.like) if colors and self.opened.colors is not None else None
        return HybridQuery(vector, tokenize(listing.text), wishes, shown)

    def _ranking(
        self,
        prepared: Prepared,
        vector: NDArray[np.float32],
        hybrid: HybridQuery | None,
        weights: Weights | None,
        k: int,
    ) -> Ranking:
        """Return the best k listings for a query."""
        if hybrid is not None and weights is not None:
            gallery = self.opened.gallery if hybrid.colors is None else self.opened.colored_gallery
            return rank(gallery, hybrid, weights, k, hidden=sorted(prepared.hidden), allowed=prepared.allowed)
        rows = None if prepared.allowed is None else np.flatnonzero(prepared.allowed)
        scores, found = self.opened.nearest(vector, k + len(prepared.hidden), rows)
        keep = ~np.isin(found, list(prepared.hidden))
        scores, found = scores[keep][:k], found[keep][:k]
        return Ranking(found, scores, {}, scores)

    def _collapsed(
        self, prepared: Prepared, vector: NDArray[np.float32], hybrid: HybridQuery | None, weights: Weights | None
    ) -> tuple[Ranking, dict[int, int]]:
        """Return as many listings as are shown or reranked, of each product or style the first where results are
        collapsed, and by row how many others of it there are.
        """
        settings = prepared.settings
        wanted = max(settings.k, settings.rerank)
        groups = None if settings.collapse == "no" else self.opened.groups(settings.collapse)
        if groups is None:
            if settings.collapse != "no":
                words = f"--collapse {settings.collapse}: no listing has a {GROUPS[settings.collapse]}"
                prepared.notes.note(f"{words}, so that nothing is collapsed")
            ranking = self._ranking(prepared, vector, hybrid, weights, wanted)
            return ranking, {}
        there = np.ones(len(groups), dtype=bool) if prepared.allowed is None else prepared.allowed.copy()
        there[list(prepared.hidden)] = False
        sizes, depth = np.bincount(groups[there], minlength=int(groups.max()) + 1), DEEPER * wanted
        while True:
            ranking = self._ranking(prepared, vector, hybrid, weights, depth)
            places = np.sort(np.unique(groups[ranking.rows], return_index=True)[1])[:wanted]
            if len(places) == wanted or len(ranking.rows) < depth or depth >= len(groups):
                break
            depth *= DEEPER
        ranking = ranking.at(places)
        return ranking, {int(row): int(sizes[groups[row]]) - 1 for row in ranking.rows}

    def _reranked(
        self, prepared: Prepared, ranking: Ranking
    ) -> tuple[Ranking, list[float | None], dict[str, float] | None]:
        listings, item = self.vectors.listings, prepared.item
        if prepared.like is not None:
            item = listing_item(listings.listing(prepared.like), self.work.folder.root)
        with self._model:
            self.work.reranker()
            work = self.work.telling(prepared.notes, prepared.work.settings)
            head = [listings.listing(int(row)) for row in ranking.rows[: prepared.settings.rerank]]
            order, same, reranked = rerank_first(work, item, head, ranking.cosines[: len(head)])
        rest = np.arange(len(head), len(ranking.rows))
        return ranking.at(np.concatenate([order, rest]).astype(np.int64)), [*same, *[None] * len(rest)], reranked

    def _shown(
        self,
        prepared: Prepared,
        ranking: Ranking,
        by: tuple[HybridQuery | None, Weights | None],
        others: Mapping[int, int],
        same: Sequence[float | None],
        reranked: dict[str, float] | None,
    ) -> Found:
        composed, listings, root = prepared.composed, self.vectors.listings, self.work.folder.root
        liked = None if prepared.like is None else listings.listing(prepared.like)
        rows = [int(row) for row in ranking.rows[: prepared.settings.k]]
        shown = [listings.listing(row) for row in rows]
        texts = attributes_on_disk(self.work, [*shown, *([liked] if liked else [])])
        change, (hybrid, weights) = composed.change if composed else None, by
        terms = QueryTerms.of_query(prepared.item, change)
        if liked and not change:
            terms = QueryTerms.of_listing(liked, texts)
        wishes = hybrid.wishes if hybrid is not None else ()
        hits = []
        for place, (row, listing) in enumerate(zip(rows, shown, strict=True)):
            named = self.opened.named.pairs_of(row, wishes) if wishes else {}
            where = place + 1, float(ranking.scores[place])
            hit = make_hit(where, listing, texts.get(listing.id), terms, root, named)
            shares: dict[str, float] = {part: float(values[place]) for part, values in ranking.shares.items()}
            cosine = float(ranking.cosines[place])
            hits.append(replace(hit, same=same[place], others=others.get(row), shares=shares, cosine=cosine))
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
            prepared.query.without,
            weights,
            self.opened.weights.words(prepared.kind) if weights is not None else "",
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
