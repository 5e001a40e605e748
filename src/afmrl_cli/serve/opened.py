"""The catalog as it is served: its stored vectors, opened, and opened anew when `afmrl embed` has run.

A thread watches the small files that name what counts (`embeddings/*/current`, the weights of hybrid search, the fit of
`light`, checkpoints), once a second. What is new is opened beside, its model loaded where that is another, and put in
the place of the old at once; searches that run end on the version that they began with. Where it can't be opened, the
old one goes on and the page says so. No vectors yet is a state like any other.

The same thread counts how many products are new, changed or gone since the vectors were made, when the catalog's file
was written to; at most every half minute, since that reads all of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AfmrlError
from ..retrieval.search import Query, Searcher, open_search
from ..retrieval.vectors import CURRENT, catalog_state
from ..retrieval.weights import FILE as WEIGHTS
from ..store.folder import check_store
from ..workspace import Workspace
from .facets import Facets
from .refusals import Refusal

WATCH_SECONDS = 1.0
COUNT_SECONDS = 30.0
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Opened:
    """A version of the stored vectors, opened for searching; `rows` are the listings' places by id."""

    searcher: Searcher
    rows: dict[str, int]
    facets: Facets

    @property
    def version(self) -> str:
        """Return the version's name, such as v7."""
        return self.searcher.vectors.folder.name

    @property
    def embedder(self) -> str:
        """Return the id of the embedder that made the vectors."""
        return str(self.searcher.vectors.manifest["embedder"])


class OpenCatalog:
    """What is served now (`now`), and what is wrong with it: `problem`, one sentence or ""; `stale`, how many products
    the vectors don't show as they are (None: not counted yet, or it can't be).
    """

    def __init__(self, work: Workspace, tell: Callable[[str], None]) -> None:
        self._work, self._tell = work, tell
        self._opened: Opened | None = None
        self._seen: tuple[Any, ...] = ()
        self._counted: dict[str, Any] | None = None
        self._next_count = self._next_try = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="afmrl watch", daemon=True)
        self.problem, self.hint = "", ""
        self.stale: int | None = None

    @property
    def work(self) -> Workspace:
        """Return the workspace whose model is loaded."""
        return self._work

    @property
    def opened(self) -> Opened | None:
        """Return what is served now, None where there are no vectors yet."""
        return self._opened

    @property
    def now(self) -> Opened:
        """Return what is served now. Raises Refusal where there are no vectors yet."""
        if (opened := self._opened) is None:
            raise Refusal(503, self.problem or "no vectors yet", self.hint, {"Retry-After": "10"})
        return opened

    def start(self) -> None:
        """Open what there is and watch for what comes."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def refresh(self) -> None:
        """Open the stored vectors where they are others than those that are served; note what is wrong."""
        seen, now = tuple(_marks(self._work)), time.monotonic()
        if seen == self._seen and not (self.problem and now >= self._next_try):
            return
        self._next_try = now + RETRY_SECONDS
        try:
            self._open()
            self.problem = self.hint = ""
        except AfmrlError as error:
            self.problem, self.hint = str(error), error.hint
        self._seen = seen

    def _open(self) -> None:
        check_store(self._work.folder.store)
        fresh = self._work.with_settings(self._work.settings)
        # Checkpoints are named by labels, and a fit of `light` is made anew: the same settings may mean another model.
        same = self._opened is not None and fresh.embedder_id == self._opened.embedder
        work = self._work if same else fresh
        searcher = open_search(work)
        if self._opened is not None and same and _is_same(searcher, self._opened.searcher):
            return
        listings = searcher.vectors.listings
        opened = Opened(
            searcher, {id: row for row, id in enumerate(searcher.vectors.ids)}, Facets(searcher.opened.columns)
        )
        if not same:
            warm(searcher)
        self._work, self._opened, self._counted = work, opened, None
        self._tell(f"{len(listings):,} listings, vectors {opened.version} by {opened.embedder}")

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            with contextlib.suppress(OSError):  # a file that a writer is just removing
                self.refresh()
                self.count_stale()

    def count_stale(self) -> None:
        """Count what is new, changed or gone, where the catalog's file was written to since."""
        opened = self._opened
        if opened is None:
            return
        state = catalog_state(self._work.folder)
        if state == opened.searcher.vectors.manifest["catalog"]:
            self.stale, self._counted = 0, state
        elif state != self._counted and time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + COUNT_SECONDS
            try:
                self.stale = opened.searcher.stale()
            except AfmrlError:  # it is just being written, or can't be read as it is now: `afmrl check` says why
                self.stale = None
            self._counted = state


def _is_same(one: Searcher, other: Searcher) -> bool:
    """Tell whether two searchers find the same."""
    return one.vectors.manifest == other.vectors.manifest and one.opened.weights == other.opened.weights


def warm(searcher: Searcher) -> None:
    """Load the embedder and search once, so that the first client does not wait for it."""
    searcher.work.embedder()
    with contextlib.suppress(AfmrlError):  # an embedder that reads photos alone
        searcher.search(Query("navy blouse"))


def _marks(work: Workspace) -> Iterator[tuple[str, int]]:
    """Yield the small files that say which vectors and models count, with the times of their last change."""
    folder = work.folder
    named = (name for each in (CURRENT, WEIGHTS) for name in folder.embeddings.glob(f"*/{each}"))
    places = [*named, *_inside(folder.light), folder.checkpoints]
    places += list(_inside(folder.checkpoints))
    for path in sorted(places):
        with contextlib.suppress(OSError):
            yield str(path), path.stat().st_mtime_ns


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
