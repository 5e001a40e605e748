"""What is asked of retrieval and what counts as right: three ways of making queries from a retailer's files.

identity   every listing that has another listing of the same `product_id` in the gallery asks for it. The listing
           itself is taken out of its ranking: it would always stand first.
photo      every product with two photos or more: its last photo alone, no text, asks for the product. Every held-out
           photo is taken out of whatever listing shows it (compared by content, so a copy under another name too), and
           that listing is encoded anew from what remains. Otherwise the query would be compared with itself.
queries    queries.jsonl and qrels.trec, whatever they ask. `listing_id` and `exclude` are taken out of the ranking.

The gallery is the catalog, or the listings that pass `--gallery` filters. Judgements of products outside the gallery,
and of those taken out of a query's ranking, are left out: nobody could find them. Their number is told.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..catalog.fingerprints import Fingerprinter
from ..catalog.product import Product
from ..errors import DataError
from ..retrieval.filters import Filters, check_keys, fields_of, passes
from ..retrieval.listings import Listing, make_listing
from .metrics import Qrels
from .trec import QueryRow

Protocol = Literal["identity", "photo", "queries"]
PHOTO_QUERY = "photo of "


@dataclass(frozen=True)
class Query:
    """One question. `fingerprint` is that of the listing it was made from ("" for none): its stored attributes are the
    query's. `exclude` are listings that can't be the answer.
    """

    id: str
    text: str
    images: tuple[Path, ...]
    exclude: frozenset[str] = frozenset()
    fingerprint: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Document:
    """One listing of the gallery as it may be seen: `product.images` lacks held-out photos, `row` fits that."""

    product: Product
    row: Listing


@dataclass(frozen=True)
class Task:
    """Queries, gallery and judgements. `notes` say what was left out, for people."""

    protocol: Protocol
    queries: list[Query]
    documents: list[Document]
    qrels: Qrels
    notes: list[str]


Described = Sequence[tuple[Product, Listing]]
"""The catalog's products with their rows, as `retrieval.vectors.described_products` gives them."""


def offered(described: Described, queries_file: Path) -> Protocol:
    """The protocol that the catalog offers: identity, else its queries.jsonl, else photo. DataError when none fits."""
    identities = [product.product_id for product, _ in described if product.product_id]
    if len(set(identities)) < len(identities):
        return "identity"
    if queries_file.is_file():
        return "queries"
    if any(len(product.images) >= 2 for product, _ in described):
        return "photo"
    raise DataError(
        "nothing to evaluate by: no two listings share a product_id, no product has two photos",
        "give --queries queries.jsonl and --qrels qrels.trec, or name the column: catalog.columns.product_id",
    )


def gallery_of(described: Described, filters: Filters) -> list[Document]:
    """The listings that pass `filters`; UsageError for an unknown key, DataError when none passes."""
    documents = [Document(product, row) for product, row in described]
    if not filters:
        return documents
    fields = [fields_of(document.product) for document in documents]
    check_keys(filters, {key for each in fields for key in each}, "--gallery")
    kept = [document for document, each in zip(documents, fields, strict=True) if passes(each, filters)]
    if not kept:
        raise DataError("no listing passes the --gallery filters", "look at the column's values with `afmrl check`")
    return kept


def identity_task(described: Described, gallery: list[Document]) -> Task:
    """Listings that share a `product_id`; DataError when no two do."""
    holders: dict[str, list[str]] = {}
    for document in gallery:
        if document.product.product_id:
            holders.setdefault(document.product.product_id, []).append(document.product.id)
    queries, qrels = [], {}
    for product, row in described:
        others = [id for id in holders.get(product.product_id or "", []) if id != product.id]
        if others:
            query = Query(product.id, row.text, product.images, frozenset([product.id]), row.fingerprint, "listing")
            queries.append(query)
            qrels[product.id] = dict.fromkeys(others, 1)
    if not queries:
        raise DataError(
            "protocol identity: no two listings share a product_id", "is the column found? see `afmrl check`"
        )
    return Task("identity", queries, gallery, qrels, [])


def photo_task(gallery: list[Document], fingerprinter: Fingerprinter, root: Path) -> Task:
    """The last photo of each product with several; DataError when no product has two."""
    asked = [document.product for document in gallery if len(document.product.images) >= 2]
    if not asked:
        raise DataError("protocol photo: no product has two photos", "name the columns: catalog.columns.image")
    held_out = {_photo(fingerprinter, product.images[-1]) for product in asked}
    documents: list[Document] = []
    bare: list[str] = []
    for document in gallery:
        product = document.product
        left = tuple(path for path in product.images if _photo(fingerprinter, path) not in held_out)
        if len(left) == len(product.images):
            documents.append(document)
            continue
        product = replace(product, images=left)
        row = make_listing(product, fingerprinter.of(product), document.row.attributes, root)
        if left or row.text or row.attributes:
            documents.append(Document(product, row))
        else:
            bare.append(product.id)
    by_identity: dict[str, dict[str, int]] = {}
    for document in documents:
        by_identity.setdefault(document.product.identity, {})[document.product.id] = 1
    queries = [Query(PHOTO_QUERY + product.id, "", product.images[-1:], kind="photo") for product in asked]
    queries = [replace(query, id="_".join(query.id.split())) for query in queries]
    qrels = {query.id: by_identity.get(product.identity, {}) for query, product in zip(queries, asked, strict=True)}
    notes = [f"{len(held_out):,} photos are held out; {len(gallery) - len(documents):,} listings show nothing else"]
    notes += [f"left out, since nothing remains of them: {', '.join(bare[:5])}"] if bare else []
    return Task("photo", queries, documents, qrels, notes)


def _photo(fingerprinter: Fingerprinter, path: Path) -> str:
    """The content of one photo: the fingerprint of a product that is nothing but it."""
    return fingerprinter.of(Product("", images=(path,)))


def queries_task(rows: Sequence[QueryRow], qrels: Qrels, gallery: list[Document]) -> Task:
    """Judged queries of a file."""
    there = {document.product.id for document in gallery}
    queries = [Query(row.id, row.text, row.images, row.exclude, kind=row.kind) for row in rows]
    used = {
        query.id: {
            id: grade for id, grade in qrels.get(query.id, {}).items() if id in there and id not in query.exclude
        }
        for query in queries
    }
    outside = sum(len(qrels.get(query.id, {})) - len(used[query.id]) for query in queries)
    notes = [f"{outside:,} judgements of products outside the gallery or taken out are not used"] if outside else []
    return Task("queries", queries, gallery, used, notes)


def sampled(task: Task, number: int, seed: int) -> Task:
    """`task` with at most `number` of its queries (0: all), always the same ones for a seed."""
    if not number or number >= len(task.queries):
        return task
    chosen = sorted(random.Random(seed).sample(range(len(task.queries)), number))
    queries = [task.queries[i] for i in chosen]
    notes = [*task.notes, f"a sample of {number:,} of {len(task.queries):,} queries"]
    return replace(task, queries=queries, qrels={query.id: task.qrels[query.id] for query in queries}, notes=notes)
