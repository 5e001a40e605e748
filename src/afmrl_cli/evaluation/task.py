"""What a protocol makes: queries, the gallery that they search, and which answers are right.

Labels (identity, group, category, attributes) come from the catalog's own columns or from a separate file; they decide
and never become text. The fields of queries and of the gallery can be narrowed (`query_fields`, `gallery_fields`,
`hide`): such a listing is described anew from what remains. Attribute texts stand on either side only where they were
written from the very view that it shows (`attributes.views`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ..attributes.views import StoredViews, narrowed
from ..catalog.product import Product, product_text
from ..catalog.splits import Split, split_of
from ..errors import DataError
from ..retrieval.filters import Filters, check_units, field_name, fields_of, known_filters, passes
from ..retrieval.listings import Listing
from ..retrieval.vectors import RowMaker
from ..settings import SplitSettings
from .metrics import Qrels

COMPOSED = "composed"
"""The kind of a query of which photo and words are only together what is wanted."""
Labels = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """One query. `fingerprint` is that of what it shows (`with_views`): the attributes stored under it are the query's,
    "" until it is known. `exclude` are listings that can't be the answer.
    `group` joins queries that are about one product, which intervals and tests must not take for independent ("": the
    query stands alone).

    Of composed queries: `category` is that of their file, "" for that of the reference; `attributes` are the
    reference's with the change; of what the gallery holds only `within` is searched (None: all of it), and `subset` are
    the listings, the relevant one among them, that the file compares it with.
    """

    id: str
    text: str
    images: tuple[Path, ...]
    exclude: frozenset[str] = frozenset()
    fingerprint: str = ""
    kind: str = ""
    title: str = ""
    group: str = ""
    category: str = ""
    attributes: str = ""
    within: frozenset[str] | None = field(default=None, repr=False)
    subset: frozenset[str] = frozenset()

    def may_find(self, id: str) -> bool:
        """Check whether a listing of the gallery can be an answer at all."""
        return id not in self.exclude and (self.within is None or id in self.within)


@dataclass(frozen=True)
class Document:
    """One listing as it may be seen: `product.images` lacks held-out photos, `row` fits that. `labels` decide
    what is relevant.
    """

    product: Product
    row: Listing
    labels: Labels

    @property
    def id(self) -> str:
        """Return the listing's id."""
        return self.product.id

    @property
    def identity(self) -> str:
        """Return what it shares with other listings of the same product; its own id when it is labelled with none."""
        return self.labels.get("product_id") or self.product.id

    @property
    def group(self) -> str:
        """Return what it shares with its variants, "" when it is not labelled."""
        return self.labels.get("group_id", "")


@dataclass(frozen=True)
class Task:
    """Queries, gallery and judgements. `notes` say what was left out, for people. `label` is what coarse goes by."""

    protocol: str
    queries: list[Query]
    documents: list[Document]
    qrels: Qrels
    notes: list[str] = field(default_factory=list)
    label: str = ""
    query_fields: str = "all"
    gallery_fields: str = "all"
    split: str = "all"
    """Which products the queries are about: all, those of a split, or unseen in training."""


def documents_of(
    described: Iterable[tuple[Product, Listing]], labels: Mapping[str, Labels] | None = None
) -> list[Document]:
    """Return the catalog as documents; `labels` by listing id (of `labels.read_labels`) win over the catalog's
    columns.
    """
    labels = labels or {}
    return [Document(product, row, {**fields_of(product), **labels.get(product.id, {})}) for product, row in described]


def gallery_of(documents: list[Document], filters: Filters) -> list[Document]:
    """Return the listings that pass `filters`; UsageError for an unknown key, DataError when none passes."""
    if not filters:
        return documents
    filters = known_filters(filters, {key for document in documents for key in document.labels}, "--gallery")
    for key, wanted in filters.items():
        check_units(key, wanted, (document.labels.get(key, "") for document in documents), "--gallery")
    kept = [document for document in documents if passes(document.labels, filters)]
    if not kept:
        raise DataError("no listing passes the --gallery filters", "look at the column's values with `afmrl check`")
    return kept


def show_only(
    documents: Sequence[Document], views: Sequence[Product], rows: RowMaker
) -> tuple[list[Document], list[str]]:
    """Return the documents as far as their views show them, described anew where that is less, with the attributes of
    the very view; and the ids of those of which nothing can be seen.
    """
    narrower = {
        document.id: view
        for document, view in zip(documents, views, strict=True)
        if view != document.product and (product_text(view) or view.images)
    }
    described = dict(zip(narrower, rows.make(list(narrower.values())), strict=True))
    shown, bare = list[Document](), list[str]()
    for document, view in zip(documents, views, strict=True):
        if document.id in described:
            shown.append(Document(view, described[document.id], document.labels))
        elif view == document.product:
            shown.append(document)
        else:
            bare.append(document.id)
    return shown, bare


def with_gallery_fields(task: Task, fields: str, hide: frozenset[str], rows: RowMaker) -> Task:
    """Return `task` with a gallery made of `fields` without the fields `hide`. DataError when nothing remains to be
    seen.

    Judgements of listings of which nothing can be seen are left out.
    """
    if fields == "all" and not hide:
        return task
    shown = [narrowed(d.product, text=fields != "photos", photos=fields != "text") for d in task.documents]
    documents, gone = show_only(task.documents, [without_fields(view, hide) for view in shown], rows)
    if not documents:
        raise DataError(f"no listing of the gallery has {fields}", "choose another --gallery-fields")
    notes = list(task.notes)
    if gone:
        notes.append(f"{len(gone):,} listings have nothing left to show and are left out: {', '.join(gone[:5])}")
    there = {document.id for document in documents}
    qrels = {
        query: {id: grade for id, grade in grades.items() if id in there} if gone else grades
        for query, grades in task.qrels.items()
    }
    return replace(task, documents=documents, qrels=qrels, notes=notes, gallery_fields=fields)


def with_query_fields(task: Task, fields: str) -> Task:
    """Return `task` whose queries are made of `fields` alone: text, title, photos or all. DataError when no query
    has any.
    """
    if fields == "all":
        return task
    kept = []
    for query in task.queries:
        text = {"text": query.text, "title": query.title, "photos": ""}[fields]
        images = query.images if fields == "photos" else ()
        if text or images:
            kept.append(replace(query, text=text, images=images))
    if not kept:
        raise DataError(f"no query has {fields}", "choose another --query-fields")
    gone = len(task.queries) - len(kept)
    notes = [*task.notes, f"{gone:,} queries have no {fields} and are left out"] if gone else task.notes
    qrels = {query.id: task.qrels[query.id] for query in kept}
    return replace(task, queries=kept, qrels=qrels, notes=notes, query_fields=fields)


FIELDS = {"Title": "title", "Brand": "brand", "Category": "category", "Description": "description"}
"""The lines of product text."""


def as_product(query: Query) -> Product:
    """Return a query as the generator is shown it, as by `search --enrich`: its words and photos, and nothing else.

    The text of a listing may have lines of own columns between those of the fields.
    """
    lines = [line.partition(": ") for line in query.text.splitlines()]
    known = [name in FIELDS for name, _, _ in lines]
    if lines and (all(known) or (query.kind == "listing" and any(known))):
        fields = {FIELDS[name]: value for name, _, value in lines if name in FIELDS}
        own = tuple((name, value) for name, _, value in lines if name not in FIELDS)
        return Product(query.id, images=query.images, text=own, **fields)  # type: ignore[arg-type]
    return Product(query.id, title=query.text, images=query.images)


def with_views(task: Task, views: StoredViews) -> Task:
    """Return `task` whose queries have the fingerprints of what they show: only attributes written from that are
    theirs.
    """
    prints = views.fingerprints([as_product(query) for query in task.queries])
    queries = [replace(query, fingerprint=each) for query, each in zip(task.queries, prints, strict=True)]
    return replace(task, queries=queries)


def query_text(product: Product, hide: frozenset[str]) -> str:
    """Return the text of a query that is made from a listing, without the fields in `hide`."""
    return product_text(without_fields(product, hide))


def without_fields(product: Product, hide: frozenset[str]) -> Product:
    """Return `product` without the fields of its text in `hide`: category, brand, own columns that are text."""
    standard = dict.fromkeys(hide & {"category", "brand"}, "")
    own = tuple((name, value) for name, value in product.text if field_name(name) not in hide)
    return replace(product, text=own, **standard)  # type: ignore[arg-type]


def products_of(task: Task) -> Callable[[Query], list[Product]]:
    """Return what a query is about, of the gallery's products: the listing that it is, else its relevant
    documents; a wish for another variant is about the listing that it shows too.
    """
    products = {document.id: document.product for document in task.documents}

    def about(query: Query) -> list[Product]:
        if query.id in products:
            return [products[query.id]]
        shown = query.exclude if query.kind == COMPOSED else ()
        return [products[id] for id in (*task.qrels[query.id], *shown) if id in products]

    return about


def of_split(task: Task, split: Split, settings: SplitSettings) -> Task:
    """Return `task` with the queries about products of `split` alone, and the gallery as it is. DataError without
    any.
    """
    queries = about_split(task, split, settings)
    if not queries:
        raise DataError(f"no query is about products of the {split} split", f"raise split.{split}")
    notes = [*task.notes, f"{len(queries):,} of {len(task.queries):,} queries are about products of the {split} split"]
    qrels = {query.id: task.qrels[query.id] for query in queries}
    return replace(task, queries=queries, qrels=qrels, notes=notes, split=split)


def about_split(task: Task, split: Split, settings: SplitSettings) -> list[Query]:
    """Return the queries about products of `split` alone: a query that is a listing is about that; another one about
    its relevant products, all of which must be of the split.
    """
    about = products_of(task)

    def inside(query: Query) -> bool:
        products = about(query)
        return bool(products) and all(split_of(product, settings) == split for product in products)

    return [query for query in task.queries if inside(query)]


def groups_of(task: Task, queries: Sequence[str]) -> list[str]:
    """Return what each of `queries` is about: queries of one product are not independent."""
    group = {query.id: query.group or f"query {query.id}" for query in task.queries}
    return [group[query] for query in queries]


def sampled(task: Task, number: int, seed: int) -> Task:
    """Return `task` with at most `number` of its queries (0: all), always the same ones for a seed."""
    if not number or number >= len(task.queries):
        return task
    queries = sample(task.queries, number, seed)
    notes = [*task.notes, f"a sample of {number:,} of {len(task.queries):,} queries"]
    return replace(task, queries=queries, qrels={query.id: task.qrels[query.id] for query in queries}, notes=notes)


def sample(items: Sequence[T], number: int, seed: int) -> list[T]:
    """Return `number` of `items` in their order, the same ones for a seed; all when there are no more."""
    if number >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), number))]


def variants_of(task: Task, level: int) -> dict[str, frozenset[str]]:
    """Find, by query, the listings that are variants of a relevant product and another product: what fine-grained is
    about.

    Queries without one are left out. A listing that is right itself, or taken out, is no variant.
    """
    if task.label:  # relevant by a label: all listings of a category are right, so that no variant is wrong
        return {}
    by_group: dict[str, list[Document]] = {}
    by_id = {}
    for document in task.documents:
        by_id[document.id] = document
        if document.group:
            by_group.setdefault(document.group, []).append(document)
    variants: dict[str, frozenset[str]] = {}
    for query in task.queries:
        right = {id for id, grade in task.qrels[query.id].items() if grade >= level}
        products = {by_id[id].identity for id in right}
        found = frozenset(
            other.id
            for group in {by_id[id].group for id in right} - {""}
            for other in by_group[group]
            if other.identity not in products and other.id not in right and other.id not in query.exclude
        )
        if found:
            variants[query.id] = found
    return variants
