"""What the service does, without a word of HTTP: admission, search, a listing, filters, marks, duplicates.

A search is prepared and answered in a small pool of threads, photos opened there; the model reads it in the line
between. At most `serve.queue` searches are in here at once, in whatever stage, so memory is bounded: a photo waits in
at most `serve.photo_side` pixels a side.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from .. import __version__
from ..errors import AfmrlError
from ..listener import Silent
from ..models.backends import reads_photos, reads_text
from ..models.embed_input import Item
from ..retrieval.document import SCHEMA, found_document
from ..retrieval.filters import parse_filters
from ..retrieval.hits import QueryTerms, attributes_on_disk, fields_shown, make_hit
from ..retrieval.search import Found, Prepared, Query
from ..workspace import Workspace
from .line import Line
from .marks import Marks
from .opened import OpenCatalog, Opened
from .photos import Photo, Photos, address, unknown
from .refusals import Refusal, busy, without_flags, without_place
from .requests import MarkRequest, SearchRequest, Sent, VerdictRequest
from .review import pairs_to_review, titles_of

THREADS = max(2, os.cpu_count() or 1)
T = TypeVar("T")


class Service:
    """One catalog, served. `start` opens it, `stop` ends its threads."""

    def __init__(self, work: Workspace, tell: Callable[[str], None]) -> None:
        settings = work.settings
        self.settings, self.folder = settings, work.folder
        self.catalog = OpenCatalog(work, tell)
        other = beside_of(work)
        self.beside = OpenCatalog(other, tell) if other else None
        """The same catalog by the embedder of `serve.beside`."""
        self.marks = Marks(work)
        self._line = Line(settings.serve.batch)
        self._photos = Photos(work.folder.root, settings.catalog, settings.serve.cached_megabytes * 1_000_000)
        self._searching = ThreadPoolExecutor(THREADS, "afmrl search")
        self._drawing = ThreadPoolExecutor(THREADS, "afmrl photo")
        """Apart: a page of photos is no reason for a search to wait."""
        self._inside = 0

    @cached_property
    def reads(self) -> dict[str, bool]:
        """Tell what the embedder reads: `text`, `photos`; the page offers nothing else."""
        try:
            photos = reads_photos(self.settings, Silent())
        except AfmrlError:  # it can't be had: what is searched says so
            photos = True
        return {"text": reads_text(self.settings), "photos": photos}

    def start(self) -> None:
        """Open the catalog, load the models, begin to work."""
        for each in self._catalogs:
            each.start()
        self._line.start()

    def stop(self) -> None:
        """End all threads."""
        self._line.stop()
        for each in self._catalogs:
            each.stop()
        for pool in (self._searching, self._drawing):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _catalogs(self) -> list[OpenCatalog]:
        return [self.catalog, *([self.beside] if self.beside else [])]

    @property
    def problem(self) -> tuple[str, str]:
        """Return what is wrong with what is served, one sentence and a hint, both "" where nothing is."""
        return next(((each.problem, each.hint) for each in self._catalogs if each.problem), ("", ""))

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request that costs something while the block runs. Raises Refusal when there are too many."""
        if self._inside >= self.settings.serve.queue:
            raise busy(f"{self._inside} searches are waiting already")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    async def search(self, sent: Sent) -> dict[str, Any]:
        """Return the document of a search, in it that of the other embedder if wanted. Raises AfmrlError."""
        if not sent.request.beside:
            return await self._found(self.catalog.now, sent)
        if self.beside is None:
            raise Refusal(422, "nothing is served beside", "start the service with serve.beside")
        opened = [each.now for each in self._catalogs]
        first, second = await asyncio.gather(*(self._found(each, sent) for each in opened))
        return {**first, "beside": second}

    async def _found(self, opened: Opened, sent: Sent) -> dict[str, Any]:
        request = sent.request
        prepared = await self._in(self._searching, lambda: self._prepared(opened, request, sent.photos))
        if prepared.needs_model:
            vector = await self._line.vector(opened.searcher, prepared)
        else:
            vector = opened.searcher.encode([prepared])[0]
        found = await self._in(self._searching, lambda: opened.searcher.answer(prepared, vector))
        return self._document(found, opened)

    def _prepared(self, opened: Opened, request: SearchRequest, photos: Sequence[Path]) -> Prepared:
        if request.like and request.like not in opened.rows:
            raise unknown(request.like)
        if not (request.text.strip() or photos or request.like or request.change is not None):
            raise Refusal(422, "nothing to search for", "send text, a photo, or like, the id of a listing")
        query = Query(
            request.text,
            tuple(photos),
            like=request.like,
            change=request.change,
            filters=tuple(request.filters),
            without=tuple(request.without),
        )
        own: dict[str, Any] = request.model_dump(include={"k", "collapse"}, exclude_none=True)
        if request.change is not None:  # a reranker finds the same product, which a change does not want
            own["rerank"] = 0
        settings = self.settings.search.model_copy(update=own)
        prepared = opened.searcher.prepare(query, settings)
        item, composed = self._smaller(prepared.item), prepared.composed
        return replace(prepared, item=item, composed=replace(composed, query=item) if composed else None)

    def _smaller(self, item: Item) -> Item:
        """Return `item` with photos no larger than they may be while they wait."""
        side = self.settings.serve.photo_side

        def small(image: Any) -> Any:
            if isinstance(image, Image.Image) and max(image.size) > side:
                image = image.copy()
                image.thumbnail((side, side))
            return image

        return replace(item, images=tuple(map(small, item.images)))

    def _document(self, found: Found, opened: Opened) -> dict[str, Any]:
        document = found_document(found, self.folder.catalog.name, opened.embedder)
        hits = [*document["hits"], *([document["question"]["liked"]] if document["question"]["liked"] else [])]
        for hit in hits:  # addresses in place of paths of this machine
            hit["images"] = [address(hit["id"], number) for number in range(len(hit["images"]))]
        document["notes"] = [without_flags(note) for note in document["notes"]]
        return {"schema": SCHEMA, **document}

    async def product(self, id: str) -> dict[str, Any]:
        """Return what is known of a listing. Raises Refusal where there is none."""
        opened = self.catalog.now
        row = opened.rows.get(id)
        if row is None:
            raise unknown(id)
        return await self._in(self._searching, lambda: self._product(opened, row))

    def _product(self, opened: Opened, row: int) -> dict[str, Any]:
        listing, root = opened.searcher.vectors.listings.listing(row), self.folder.root
        stored = attributes_on_disk(opened.searcher.work, [listing]).get(listing.id)
        [shown] = fields_shown([make_hit((0, 0.0), listing, stored, QueryTerms(frozenset(), {}), root)])
        kept = ("id", "title", "brand", "price", "link", "attributes", "confidence")
        photos = [address(listing.id, number) for number in range(len(listing.images))]
        return {
            "schema": "afmrl.product/1",
            **{name: shown[name] for name in kept},
            "images": photos,
            "text": listing.text,
            "fields": json.loads(listing.fields),
        }

    async def photo(self, id: str, number: int, size: str) -> Photo:
        """Return a photo of a listing. Raises Refusal where there is none."""
        opened = self.catalog.now
        return await self._in(self._drawing, lambda: self._photos.get(opened, id, number, size))

    async def filters(self, written: Sequence[str]) -> dict[str, Any]:
        """Return the keys and values by which listings can be filtered, with their counts beside the filters that are
        `written`. Raises UsageError for one of another form.
        """
        opened, filters = self.catalog.now, parse_filters(written, "filter")
        count, facets = await self._in(self._searching, lambda: opened.facets.counts(filters))
        shown = [
            {"key": each.key, "values": [{"value": value, "count": number} for value, number in each.values]}
            for each in facets
        ]
        price = asdict(opened.facets.price) if opened.facets.price else None
        return {"schema": "afmrl.filters/1", "listings": count, "filters": shown, "price": price}

    async def mark(self, sent: Sent) -> dict[str, int]:
        """Note a person's word on a result. Raises Refusal."""
        request: MarkRequest = sent.request
        opened = self.catalog.now

        def note() -> dict[str, int]:
            """Store the mark: of a listing and its result as a verdict, else as a judged query."""
            row = opened.rows.get(request.like)
            reference: list[Path] = []
            if request.like and row is None:
                raise unknown(request.like)
            if row is not None and request.change is None:
                titles = titles_of(opened, (request.like, request.id))
                return self.marks.judge(
                    VerdictRequest(id=request.like, other_id=request.id, same=request.right), titles
                )
            if row is not None:
                names = opened.searcher.vectors.listings.listing(row).images
                reference = [self.folder.root / name for name in names]
            return self.marks.mark(request, sent.photos, reference, opened.rows)

        return await self._in(self._searching, note)

    async def marks_of(self, sent: Sent) -> dict[str, bool]:
        """Return the marks that a query's results have, by listing."""
        request: SearchRequest = sent.request

        def found() -> dict[str, bool]:
            if request.like and request.change is None:
                pairs = self.marks.verdicts()
                return {b if a == request.like else a: same for (a, b), same in pairs.items() if request.like in (a, b)}
            return self.marks.marks_of(request, sent.photos)

        return await self._in(self._searching, found)

    async def judge(self, sent: Sent) -> dict[str, int]:
        """Note a person's word on a pair. Raises Refusal."""
        request: VerdictRequest = sent.request
        opened = self.catalog.opened
        titles: Mapping[str, str] = titles_of(opened, (request.id, request.other_id))
        return await self._in(self._searching, lambda: self.marks.judge(request, titles))

    async def review(self) -> dict[str, Any]:
        """Return the pairs to review. Raises Refusal where there are none."""
        opened = self.catalog.opened
        return await self._in(self._searching, lambda: pairs_to_review(self.catalog.work, self.marks, opened))

    async def counts(self) -> dict[str, int]:
        """Return the counts of all marks."""
        return await self._in(self._searching, self.marks.counts)

    def state(self) -> dict[str, Any]:
        """Return what is served: versions, how many products the vectors don't show as they are, how many wait."""
        catalog, opened = self.catalog, self.catalog.opened
        return {
            "schema": "afmrl.version/1",
            "afmrl": __version__,
            "catalog": self.folder.catalog.name,
            "embedder": opened.embedder if opened else None,
            "beside": self.beside.opened.embedder if self.beside and self.beside.opened else None,
            "vectors": opened.version if opened else None,
            "listings": len(opened.rows) if opened else 0,
            "stale": catalog.stale,
            "problem": without_place(self.problem[0], self.folder.root) or None,
            "searching": self._inside,
            "queue": self.settings.serve.queue,
        }


def beside_of(work: Workspace) -> Workspace | None:
    """Return the catalog under the embedder of `serve.beside`, None where it names none. Raises ModelError for a
    checkpoint that there is not.
    """
    name = work.settings.serve.beside
    if not name:
        return None
    names = {"embedder_checkpoint": "", "vision_checkpoint": ""}
    if name != "base":
        role = "vision" if work.checkpoints.find(name, "embedder").role == "vision" else "embedder"
        names[f"{role}_checkpoint"] = name
    model = work.settings.model.model_copy(update=names)
    return work.with_settings(work.settings.model_copy(update={"model": model}))
