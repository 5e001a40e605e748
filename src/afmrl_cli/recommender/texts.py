"""Listings as text, once: what the recommender reads in place of photos.

    title, brand, category, price; attribute values, ...; a caption        as `recommender.text` says, in its order

Attributes are those that `afmrl attributes` stored, else the shop's own columns. Captions are written by the generator
once, kept like attributes, and asked for with `recommender.text = [..., "caption"]`. From here on nothing reads a
photo: training and ranking run no vision tower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..attributes.own_columns import own_columns, own_text
from ..attributes.parse import read_stored
from ..attributes.views import LISTING, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import open_catalog, read_products
from ..errors import UsageError
from ..next_item.retrieval import Lock
from ..store.files import hash_json
from ..workspace import Workspace
from .captions import captions_of

if TYPE_CHECKING:
    from ..models.processor import Processor

PARTS = ("title", "brand", "category", "price", "attributes", "caption")


@dataclass(frozen=True)
class Texts:
    """The text of each listing of `ids`, one line, never empty, with its title and product's id; `described` have
    attributes, `generated` of them those that a generator wrote."""

    ids: tuple[str, ...]
    lines: tuple[str, ...]
    titles: tuple[str, ...]
    identities: tuple[str, ...]
    described: int
    generated: int = 0

    @property
    def fingerprint(self) -> str:
        """Return a hash of all of it."""
        return hash_json([self.ids, self.lines])

    @property
    def shared(self) -> int:
        """Count the listings whose text another one has, too: text can't tell these apart."""
        counts: dict[str, int] = {}
        for line in self.lines:
            counts[line] = counts.get(line, 0) + 1
        return sum(number for number in counts.values() if number > 1)


def listing_texts(work: Workspace, processor: Processor, problems: Problems, lock: Lock = nullcontext) -> Texts:
    """Return the text of each listing of the catalog, special tokens taken out, cut to `recommender.item_tokens`;
    captions that are missing are written, by the caller who holds the store's lock, or while `lock` is held.
    UsageError for a part that is none.
    """
    settings = work.settings.recommender
    if unknown := [part for part in settings.text if part not in PARTS]:
        raise UsageError(f"recommender.text: {unknown[0]!r} is no part of it", f"known: {', '.join(PARTS)}")
    products = list(read_products(work.folder, work.settings.catalog, problems))
    attributes, generated = [""] * len(products), 0
    if "attributes" in settings.text:
        attributes, generated = _attributes(work, products)
    captions = captions_of(work, products, problems, lock) if "caption" in settings.text else {}
    lines = list[str]()
    for product, text in zip(products, attributes, strict=True):
        line = listing_line(product, settings.text, text, captions.get(product.id, ""))
        cut = processor.cut(processor.clean(line), settings.item_tokens).strip()
        lines.append(cut or f"listing {len(lines) + 1}")
    return Texts(
        tuple(product.id for product in products),
        tuple(lines),
        tuple(product.title for product in products),
        tuple(product.identity for product in products),
        sum(map(bool, attributes)),
        generated,
    )


def listing_line(product: Product, parts: Sequence[str], attributes: str, caption: str) -> str:
    """Return what `parts` say of a product, in one line: of attribute text the values; the id where they say nothing.

    Semicolons stand between parts, commas between values.
    """
    said: Mapping[str, str] = {
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "price": next((value for name, value in product.given.items() if name.casefold() == "price"), ""),
        "attributes": ", ".join(dict.fromkeys(read_stored(attributes).values())),
        "caption": caption,
    }
    shown = [" ".join(said[part].split()) for part in parts]
    return "; ".join(filter(None, shown)) or product.id


def _attributes(work: Workspace, products: Sequence[Product]) -> tuple[list[str], int]:
    """Return the attribute text of each product, "" for none: what the generator wrote, else the shop's columns; and
    how many the generator wrote.
    """
    with open_catalog(work.folder, work.settings.catalog, Problems()) as catalog:
        columns = own_columns(work.settings.sft.columns, work.task.schema, catalog)
    found, generated = [], 0
    with open_views(work, work.source_on_disk) as views:
        for product, texts in views.of_listings(products, [LISTING[0]]):
            generated += bool(texts.get(LISTING))
            found.append(texts.get(LISTING, "") or own_text(product, columns))
        views.tell(work.listener)
    return found, generated
