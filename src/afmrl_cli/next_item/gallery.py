"""The listings of the catalog as recommending shows and explains them: title, photos, group, and their attributes.

Attributes are what the generator has written, where that covers as many listings as the shop's own columns, else those
columns: two sources would name one thing by two words. Category and brand are attributes, too, where no key is called
so. Sizes, numbers and long texts are none: nobody is known by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from sys import intern

from ..attributes.own_columns import own_text
from ..attributes.parse import UNREAD, read_stored
from ..attributes.schema import AttributeSchema, folded
from ..attributes.views import open_views, text_to_show
from ..catalog.categories import STEP
from ..catalog.name_forms import plain
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import read_products
from ..dedupe.variants import KEYS, SIZE
from ..retrieval.composed import attribute_columns
from ..retrieval.filters import PRICES, fields_of
from ..retrieval.hits import LINKS, first_filled
from ..workspace import Workspace

LONGEST_VALUE = 40
FLAGS = frozenset(("yes", "no", "true", "false", "ja", "nein", "oui", "non", "other", "none", "plain"))
"""Values that say nothing without their key."""

Value = tuple[str, str]
"""A key and a value, as they are compared."""


@dataclass(frozen=True, slots=True)
class GalleryListing:
    """A listing; variants have the same `group`."""

    id: str
    title: str
    brand: str
    price: str
    link: str
    images: tuple[Path, ...]
    group: str
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """Return its title, the id where it has none."""
        return self.title or self.id


@dataclass(frozen=True)
class Gallery:
    """All listings, in the catalog's order. `made_by` is "generated" or "given"; `spelled` how values are written."""

    listings: Sequence[GalleryListing]
    made_by: str
    spelled: Mapping[Value, str]

    @cached_property
    def ids(self) -> list[str]:
        """Return the listings' ids."""
        return [listing.id for listing in self.listings]

    @cached_property
    def counts(self) -> Counter[Value]:
        """Return how many listings have each value."""
        return Counter(value for listing in self.listings for value in listing.values)

    @cached_property
    def described(self) -> int:
        """Return how many listings have any value."""
        return sum(bool(listing.values) for listing in self.listings)

    @cached_property
    def _keys(self) -> Counter[str]:
        return Counter(value for _, value in self.spelled)

    def words(self, value: Value) -> str:
        """Return a value as people say it: with its key where it says little alone, or another key has it, too."""
        key, said = value
        alone = self._keys[said] == 1 and said not in FLAGS
        return self.spelled[value] if alone else f"{key}: {self.spelled[value]}"


def read_gallery(work: Workspace) -> Gallery:
    """Read all listings of the catalog, with the attributes that are stored or stand in its columns."""
    columns, schema = attribute_columns(work), work.task.schema
    spelled: tuple[dict[Value, str], dict[Value, str]] = ({}, {})
    listings: list[GalleryListing] = []
    written: list[tuple[Value, ...]] = []
    given = generated = 0
    for product, text in _described(work):
        own = own_text(product, columns)
        given, generated = given + bool(own), generated + bool(text)
        written.append(_values(product, text, schema, spelled[1]))
        fields = fields_of(product)
        link = first_filled(fields, LINKS)
        listings.append(
            GalleryListing(
                product.id,
                " ".join(product.title.split()),
                product.brand,
                first_filled(fields, PRICES),
                link if link.startswith(("http://", "https://")) else "",
                product.images,
                product.group_id or product.identity,
                _values(product, own, schema, spelled[0]),
            )
        )
        work.listener.progress("reading", len(listings))
    if not generated or generated < given:
        return Gallery(listings, "given", spelled[0])
    described = [replace(listing, values=values) for listing, values in zip(listings, written, strict=True)]
    return Gallery(described, "generated", spelled[1])


def _described(work: Workspace) -> Iterator[tuple[Product, str]]:
    """Yield each product with the attribute text that is stored of it, "" for none."""
    products = read_products(work.folder, work.settings.catalog, Problems())
    stored = False
    if work.folder.database.is_file():
        with work.database() as database:
            stored = bool(database.attribute_sources())
    if not stored or (source := work.source_on_disk) is None:
        yield from ((product, "") for product in products)
        return
    with open_views(work, source) as views:
        yield from ((product, text_to_show(row)) for product, _, row in views.stored(products))


def _values(product: Product, text: str, schema: AttributeSchema, spelled: dict[Value, str]) -> tuple[Value, ...]:
    """Return the values of a listing as they are compared, and note how they are written."""
    pairs = schema.without_gaps(read_stored(text))
    pairs.pop(UNREAD, None)
    keys = {folded(key) for key in pairs}
    kind = STEP.split(product.category)[-1]
    pairs |= {key: value for key, value in (("category", kind), ("brand", product.brand)) if key not in keys}
    found: dict[Value, None] = {}
    for key, value in _single(pairs):
        compared = (intern(key), intern(folded(value)))
        if compared[1]:
            spelled.setdefault(compared, value)
            found[compared] = None
    return tuple(found)


def _single(pairs: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield each single value that a person would say."""
    for key, written in pairs.items():
        if KEYS.get(plain(key)) == SIZE:
            continue
        for part in written.split(","):
            value = " ".join(part.split())
            if any(map(str.isalpha, value)) and len(value) <= LONGEST_VALUE:
                yield key, value
