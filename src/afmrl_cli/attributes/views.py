"""Views: what one side of retrieval shows of a listing, and which attribute text may stand there.

A view is a narrowed `Product`: the text fields and photos that a query or a gallery row may show, a category only
where its text is shown. Attribute texts are stored under the view's fingerprint, a hash of its text and of the photos
that the generator was shown. So a side is given the text that a generator wrote from the very same view, or none: a
photo query never carries words from the title, and a row that is to answer a photo none that have
seen it.
`StoredViews.attributes` decides that for training, validation, RAR, embed, eval and the cycle alike.

Texts of stores from before views were recorded say nothing of what was seen. They can be shown, exported and filtered
by, and stand on no side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeGuard

from ..catalog.fingerprints import UNREADABLE, Fingerprinter
from ..catalog.product import Product, product_text
from ..errors import UsageError
from ..listener import Listener
from ..store.database import Database, StoredAttributes
from .agreement import confident

if TYPE_CHECKING:
    from ..workspace import Workspace

ViewName = Literal["listing", "text", "photos", "all-photos", "rest"]
VIEWS: tuple[ViewName, ...] = ("listing", "text", "photos", "all-photos", "rest")
"""A whole listing; its text alone; each of its photos alone; all photos without text; all but one photo, for each."""
EACH = ("photos", "rest")
"""Those that there are of each photo."""
QUERIES = "queries"
"""What the evaluation asks with, of the protocol that it takes by itself; `queries:text` of another protocol."""
ViewKey = tuple[ViewName, str]
"""A view of a listing: its name, and for `photos` and `rest` the content hash of the photo shown or left out."""
LISTING: ViewKey = ("listing", "")
TEXT: ViewKey = ("text", "")
ALL_PHOTOS: ViewKey = ("all-photos", "")
LOOKUP_PRODUCTS = 256


@dataclass(frozen=True)
class AttributeSource:
    """Whose stored attribute texts are used: the generator's id, the prompt's hash, and how many photos of a view the
    generator is shown (0: all). Pairs below `min_confidence` are left out of them.
    """

    generator: str
    prompt: str
    photos: int = 0
    min_confidence: float = 0.0


def first_photos(view: Product, most: int) -> Product:
    """Return `view` with its first `most` photos (0: all): what a model that takes so many is shown."""
    return replace(view, images=view.images[:most]) if most and len(view.images) > most else view


def narrowed(product: Product, *, text: bool = True, photos: bool = True) -> Product:
    """Return `product` without its text or without its photos."""
    if not text:
        product = replace(product, title="", description="", category="", brand="", text=())
    return product if photos else replace(product, images=())


def listing_views(product: Product, names: Iterable[str], contents: Sequence[str]) -> dict[ViewKey, Product]:
    """Return the views of a listing that have something to show; `contents` are its photos' content hashes."""
    photos = [content for content in dict.fromkeys(contents) if content != UNREADABLE]
    keys = [(name, content) for name in VIEWS if name in names for content in (photos if name in EACH else [""])]
    views = {key: _view(product, key, contents) for key in keys}
    return {key: view for key, view in views.items() if key == LISTING or product_text(view) or view.images}


def _view(product: Product, key: ViewKey, contents: Sequence[str]) -> Product:
    name, content = key
    images = product.images if name != "text" else ()
    if name in EACH:
        same = [path for path, other in zip(images, contents, strict=True) if other == content]
        images = tuple(same[:1]) if name == "photos" else tuple(path for path in images if path not in same)
    return replace(narrowed(product, text=name not in ("photos", "all-photos")), images=images)


def check_view_names(names: Sequence[str], protocols: Sequence[str]) -> None:
    """Raise UsageError for a view that is none; `protocols` are those whose queries can be named."""
    of_queries = (QUERIES, *(f"{QUERIES}:{protocol}" for protocol in protocols))
    if unknown := [name for name in names if name not in (*VIEWS, *of_queries)]:
        known = f"known: {', '.join(VIEWS)}, {QUERIES}, and {QUERIES}:PROTOCOL with {', '.join(protocols)}"
        raise UsageError(f"attributes.views: {unknown[0]!r} is no view", known)


class ListingViews:
    """The views of these names of each product, one after the other, and then `queries`, what queries show; `products`
    counts the products read so far.
    """

    def __init__(
        self,
        products: Iterable[Product],
        names: Sequence[str],
        fingerprinter: Fingerprinter,
        queries: Sequence[Product] = (),
    ) -> None:
        self._products, self._names, self._fingerprinter, self._queries = products, names, fingerprinter, queries
        self.products = 0

    def __iter__(self) -> Iterator[Product]:
        parts = set(EACH) & set(self._names)
        for product in self._products:
            self.products += 1
            contents = [self._fingerprinter.hash_of(path) for path in product.images] if parts else product.images
            yield from listing_views(product, self._names, [str(each) for each in contents]).values()
        yield from self._queries


def fingerprint_pairs(views: Sequence[Product], photos: int, fingerprinter: Fingerprinter) -> list[tuple[str, str]]:
    """Give (fingerprint of what a generator that takes so many `photos` is shown, fingerprint of all of it) for each
    of `views`.
    """
    shown = fingerprinter.of_all([first_photos(view, photos) for view in views])
    return list(zip(shown, fingerprinter.of_all(views) if photos else shown, strict=True))


def stored_rows(
    database: Database, source: AttributeSource, prints: Sequence[tuple[str, str]]
) -> list[StoredAttributes | None]:
    """Return what is stored of views, by their `fingerprint_pairs`, None for nothing: the one lookup.

    Rows of earlier versions stand under the whole view and are found, too: see `StoredAttributes.viewed`. With
    `min_confidence` a row without confidence is none.
    """
    keys = sorted({each for pair in prints for each in pair} - {""})
    stored = _confident(database.attributes(source.generator, source.prompt, keys), source)
    earlier = {key: row for key, row in stored.items() if not row.viewed}
    return [stored.get(shown) or earlier.get(whole) for shown, whole in prints]


def text_to_show(row: StoredAttributes | None) -> str:
    """Return the valid attribute text of a row for people, filters and `dedupe`, whatever it was written from; "" for
    none.
    """
    return row.text if row is not None and row.failure is None else ""


class StoredViews:
    """The stored attribute texts of a source by view; without a source there are none."""

    def __init__(self, database: Database, fingerprinter: Fingerprinter, source: AttributeSource | None) -> None:
        self.database, self.fingerprinter, self.source = database, fingerprinter, source
        self.without_view: set[str] = set()
        """Fingerprints searched whose text is of a store that did not record what was seen."""
        self.without_confidence: set[str] = set()
        """Fingerprints searched whose text has no stored confidence, where the settings require one."""
        self._earlier: dict[str, set[str]] = {}
        """Such whole views by what the generator is shown of them, where that is less."""

    def fingerprints(self, views: Sequence[Product]) -> list[str]:
        """Compute under which fingerprint the text of each view is stored."""
        if self.source is None:
            return self.fingerprinter.of_all(views)
        prints = fingerprint_pairs(views, self.source.photos, self.fingerprinter)
        wholes = [(whole, whole) for shown, whole in prints if shown != whole]
        earlier = {row.fingerprint for row in stored_rows(self.database, self.source, wholes) if _unviewed(row)}
        for shown, whole in prints:
            if whole in earlier:
                self._earlier.setdefault(shown, set()).add(whole)
        return [shown for shown, _ in prints]

    def texts(self, fingerprints: Sequence[str]) -> dict[str, str]:
        """Return valid texts that were written from the view of that fingerprint (of `fingerprints`), by
        fingerprint.
        """
        if self.source is None:
            return {}
        keys = sorted({*fingerprints} - {""})
        stored = self.database.attributes(self.source.generator, self.source.prompt, keys)
        rows = _confident(stored, self.source)
        self.without_confidence |= stored.keys() - rows.keys()
        self.without_view |= {key for key, row in rows.items() if _unviewed(row)}
        self.without_view |= {whole for key in keys if key not in rows for whole in self._earlier.get(key, ())}
        return {key: row.text for key, row in rows.items() if row.viewed and row.failure is None and row.text}

    def stored(self, products: Iterable[Product]) -> Iterator[tuple[Product, str, StoredAttributes | None]]:
        """Give each product with the fingerprint of what the generator is shown of it, and its `stored_rows`."""
        source = self.source
        assert source is not None
        stream = iter(products)
        while chunk := list(islice(stream, LOOKUP_PRODUCTS)):
            prints = fingerprint_pairs(chunk, source.photos, self.fingerprinter)
            rows = stored_rows(self.database, source, prints)
            yield from zip(chunk, [shown for shown, _ in prints], rows, strict=True)

    def attributes(self, views: Sequence[Product]) -> list[str]:
        """Return the attribute text that may stand on a side that shows each of `views`: one that was written from the
        very same view, "" where there is none.
        """
        prints = self.fingerprints(views)
        texts = self.texts(prints)
        return [texts.get(each, "") for each in prints]

    def of_listings(
        self, products: Iterable[Product], names: Sequence[str]
    ) -> Iterator[tuple[Product, dict[ViewKey, str]]]:
        """Return each product with the texts of its views of these names, as far as there are any."""
        stream = iter(products)
        while chunk := list(islice(stream, LOOKUP_PRODUCTS)):
            views: list[tuple[int, ViewKey, Product]] = []
            for number, product in enumerate(chunk if self.source else ()):
                contents = [self.fingerprinter.hash_of(path) for path in product.images]
                views += [(number, key, view) for key, view in listing_views(product, names, contents).items()]
            texts = self.attributes([view for _, _, view in views])
            found: list[dict[ViewKey, str]] = [{} for _ in chunk]
            for (number, key, _), text in zip(views, texts, strict=True):
                if text:
                    found[number][key] = text
            yield from zip(chunk, found, strict=True)

    def tell(self, listener: Listener) -> None:
        """Say how many texts were not used since it isn't known what they were written from."""
        if self.without_view:
            listener.note(
                f"{len(self.without_view):,} stored attribute texts are of an earlier version, which did not record "
                "what was shown: they enrich nothing; run `afmrl attributes` to write them anew"
            )
        if self.without_confidence:
            listener.note(
                f"{len(self.without_confidence):,} stored attribute texts have no confidence, which "
                "attributes.min_confidence asks for: they enrich nothing; run `afmrl attributes` to write them anew"
            )


@contextmanager
def open_views(work: Workspace, source: AttributeSource | None) -> Iterator[StoredViews]:
    """Open the catalog's database for the attribute texts of `source`; photos hashed meanwhile are remembered in it."""
    with work.database() as database, Fingerprinter(database) as fingerprinter:
        yield StoredViews(database, fingerprinter, source)


def _confident(stored: Mapping[str, StoredAttributes], source: AttributeSource) -> dict[str, StoredAttributes]:
    """Return the rows with the confidence that `source` requires, without the pairs below it."""
    rows = {key: confident(row, source.min_confidence) for key, row in stored.items()}
    return {key: row for key, row in rows.items() if row is not None}


def _unviewed(row: StoredAttributes | None) -> TypeGuard[StoredAttributes]:
    """Check whether it is a valid text of a store that did not record what was seen."""
    return row is not None and not row.viewed and row.failure is None
