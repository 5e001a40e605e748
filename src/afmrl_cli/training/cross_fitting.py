"""Whose attributes a training product carries: those of the first generator that did not learn from it.

A generator repeats of a product that it learnt from what it was told, and is wrong more often of others: an embedder
that saw nothing but right words in training trusts wrong ones later. So its training products carry what a generator
writes that has not seen them, as the queries of evaluation and search do. Which products a generator has seen, its
checkpoint says, with all that it came from (`store.training_products`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from ..attributes.views import LISTING, LOOKUP_PRODUCTS, VIEWS, AttributeSource, StoredViews, ViewKey
from ..catalog.fingerprints import Fingerprinter
from ..catalog.product import Product
from ..catalog.splits import Split
from ..listener import Listener
from ..store.database import Database
from ..store.training_products import TrainingProducts
from ..workspace import Workspace


class CrossFitted:
    """The stored attribute texts of training and validation listings; `used` counts training listings by the generator
    that described them.

    They are those of `source` (None: none), or with `work.part.generators` each training product's by the first of
    these that did not learn from it, and the first one's where all have; of the validation split the first one's.
    """

    def __init__(
        self, work: Workspace, source: AttributeSource | None, database: Database, fingerprinter: Fingerprinter
    ) -> None:
        names = work.part.generators if work.part and source else ()
        sources: list[AttributeSource | None] = [source]
        if names and source:
            sources = [replace(source, generator=work.generator_id_of(name)) for name in names]
        self._views = [StoredViews(database, fingerprinter, each) for each in sources]
        self._seen = [_seen_by(work, name) for name in names] or [TrainingProducts()]
        self.used: Counter[str] = Counter()
        self.learnt_by_all = 0

    @property
    def first(self) -> StoredViews:
        """Return the texts of the first generator."""
        return self._views[0]

    def of_listings(
        self, products: Iterable[tuple[Product, Split]]
    ) -> Iterator[tuple[Product, Split, dict[ViewKey, str]]]:
        """Return each product with the texts of its views, as far as there are any, in their order."""
        stream = iter(products)
        while chunk := list(islice(stream, LOOKUP_PRODUCTS)):
            chosen = [self._choose(product) if side == "train" else 0 for product, side in chunk]
            texts: list[dict[ViewKey, str]] = [{} for _ in chunk]
            for number, views in enumerate(self._views):
                places = [place for place, each in enumerate(chosen) if each == number]
                found = views.of_listings([chunk[place][0] for place in places], VIEWS)
                for place, (_, own) in zip(places, found, strict=True):
                    texts[place] = own
                    if views.source and own.get(LISTING) and chunk[place][1] == "train":
                        self.used[views.source.generator] += 1
            for (product, side), own in zip(chunk, texts, strict=True):
                yield product, side, own

    def _choose(self, product: Product) -> int:
        """Return the number of the first generator that did not learn from a product."""
        for number, seen in enumerate(self._seen):
            if not seen.trained_on(product.id, product.identity):
                return number
        self.learnt_by_all += 1
        return 0

    def tell(self, listener: Listener) -> None:
        """Say what could not be used, and of how many products no generator is that did not learn from them."""
        for views in self._views:
            views.tell(listener)
        if self.learnt_by_all:
            listener.warn(
                f"{self.learnt_by_all:,} training listings have attributes by a generator that learnt from them: none "
                "is there that did not"
            )


def _seen_by(work: Workspace, name: str) -> TrainingProducts:
    """Return what a checkpoint has seen; nothing is known of one that does not say, and of a bare base."""
    seen = work.checkpoints.get(name).training_products() if name else None
    return seen or TrainingProducts()
