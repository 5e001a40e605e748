"""Queries and what counts as relevant: seven ways of making queries from a retailer's files.

identity   every listing that has another listing of the same `product_id` in the gallery asks for it. The listing
           itself is taken out of its ranking: it would always stand first.
photo      every product with two photos or more: its last photo alone, no text, asks for the product. Every held-out
           photo is taken out of whatever listing shows it (compared by content, so a copy under another name too), and
           that listing is encoded anew from what remains. Otherwise the query would be compared with itself.
fine       identity (or photo, where no two listings share a product), but only queries whose product has a variant in
           the gallery: same `group_id`, other product. A sibling variant ranked first is counted apart.
coarse     every listing asks for listings of its category (or another label). The label's own text is hidden on both
           sides, and listings of the very same product are taken out: both would give the answer away.
text       every title asks a gallery that shows photos only. Listings that share the title are all right.
composed   a listing's photo and "color: red" ask for its variant in red. The listing itself is taken out. Or what a
           file asks (`composed`, `published`).
queries    queries.jsonl and qrels.trec, whatever they ask. `listing_id` and `exclude` are taken out of the ranking.

The gallery is the catalog, or the listings that pass `--gallery` filters. Judgements of products outside the gallery,
and of those taken out of a query's ranking, are left out: they can't be found. Their number is noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError, UsageError
from ..retrieval.vectors import RowMaker
from .metrics import Qrels
from .task import Document, Query, Task, query_text, sample, show_only, variants_of

PROTOCOLS = ("identity", "photo", "fine", "coarse", "text", "composed", "queries")
PHOTO_QUERY, TITLE_QUERY = "photo of ", "title of "
COARSE_QUERIES = 1000
SHOWS: Mapping[str, tuple[str, str]] = {
    "identity": ("a whole listing", "all other listings; right are those of the same product"),
    "photo": ("a product's last photo alone", "all listings without the photos that ask; right is the product"),
    "fine": (
        "a listing, or its last photo, whose product has variants",
        "all other listings; right are those of the same product",
    ),
    "coarse": ("a listing", "all listings of other products; right are those of its class"),
    "text": ("a title", "photos alone; right is the listing with that title"),
    "composed": ("a photo and a wish such as color: red", "all other listings; right is its variant"),
    "queries": ("what stands in queries.jsonl", "all listings; right is what the judgements say"),
}
"""Of each protocol, in words: what a query shows, and what is searched."""
STANDARD_LABELS = ("id", "product_id", "group_id", "brand", "category")


def offered(documents: Sequence[Document], queries_file: Path, judgements: Path) -> list[str]:
    """Return the protocols that the catalog offers, the best first: identity, its queries.jsonl, photo; text where it
    offers none of these. DataError for none.

    Queries without their judgements are no offer beside identity; without it, their lack is the user's to mend.
    """
    found = ["identity"] if _shares_identities(documents) else []
    if queries_file.is_file() and (judgements.is_file() or not found):
        found.append("queries")
    if any(len(document.product.images) >= 2 for document in documents):
        found.append("photo")
    if not found and any(document.product.images and document.product.title.split() for document in documents):
        found.append("text")
    if found:
        return found
    raise DataError(
        "nothing to evaluate by: no two listings share a product_id, none has two photos, or a title and a photo",
        "give --queries queries.jsonl and --qrels qrels.trec, or name the column: catalog.columns.product_id",
    )


def _shares_identities(documents: Sequence[Document]) -> bool:
    identities = [document.identity for document in documents]
    return len(set(identities)) < len(identities)


def identity_task(documents: Sequence[Document], gallery: list[Document]) -> Task:
    """Make queries of listings that share a `product_id`; DataError when no two do."""
    holders: dict[str, list[str]] = {}
    for document in gallery:
        holders.setdefault(document.identity, []).append(document.id)
    queries, qrels = [], {}
    for document in documents:
        others = [id for id in holders.get(document.identity, []) if id != document.id]
        if others:
            queries.append(_listing_query(document, frozenset([document.id])))
            qrels[document.id] = dict.fromkeys(others, 1)
    if not queries:
        raise DataError(
            "protocol identity: no two listings share a product_id", "is the column found? see `afmrl check`"
        )
    return Task("identity", queries, gallery, qrels)


def _listing_query(document: Document, exclude: frozenset[str], hide: frozenset[str] = frozenset()) -> Query:
    product = document.product
    text = query_text(product, hide)
    return Query(
        document.id, text, product.images, exclude, kind="listing", title=product.title, group=document.identity
    )


def photo_task(gallery: list[Document], rows: RowMaker, only: Collection[str] | None = None) -> Task:
    """Make a query of the last photo of each product with several, or of those of the listings `only`; DataError when
    no product has two.
    """
    chosen = [d for d in gallery if len(d.product.images) >= 2 and (only is None or d.id in only)]
    if not chosen:
        raise DataError("protocol photo: no product has two photos", "name the columns: catalog.columns.image")
    content = rows.fingerprinter.hash_of
    held_out = {content(document.product.images[-1]) for document in chosen}
    shown = []
    for document in gallery:
        left = tuple(path for path in document.product.images if content(path) not in held_out)
        shown.append(replace(document.product, images=left))
    documents, bare = show_only(gallery, shown, rows)
    by_identity: dict[str, dict[str, int]] = {}
    for document in documents:
        by_identity.setdefault(document.identity, {})[document.id] = 1
    queries = [
        Query(_word(PHOTO_QUERY + document.id), "", document.product.images[-1:], kind="photo", group=document.identity)
        for document in chosen
    ]
    qrels = {query.id: by_identity.get(query.group, {}) for query in queries}
    hidden = len(gallery) - len(documents)
    notes = [f"{len(held_out):,} photos are held out; {hidden:,} listings show nothing else"]
    notes += [f"left out, since nothing remains of them: {', '.join(bare[:5])}"] if bare else []
    return Task("photo", queries, documents, qrels, notes)


def _word(name: str) -> str:
    return "_".join(name.split())


def fine_task(documents: Sequence[Document], gallery: list[Document], rows: RowMaker) -> Task:
    """Make queries whose product has variants in the gallery; DataError when none has."""
    if not any(document.group for document in documents):
        raise DataError(
            "protocol fine: no listing has a group_id, so that nothing is known as a variant",
            "name the column (catalog.columns.group_id) or give --labels with a column group_id",
        )
    shared = _shares_identities(documents)
    task = identity_task(documents, gallery) if shared else photo_task(gallery, rows)
    variants = variants_of(task, 1)
    queries = [query for query in task.queries if query.id in variants]
    if not queries:
        raise DataError(
            "protocol fine: no query's product has a variant in the gallery", "same group_id, other product"
        )
    notes = [*task.notes, f"{len(queries):,} of {len(task.queries):,} queries have a variant in the gallery"]
    return replace(task, protocol="fine", queries=queries, qrels={q.id: task.qrels[q.id] for q in queries}, notes=notes)


def coarse_task(gallery: list[Document], label: str, number: int, seed: int) -> Task:
    """Make queries for listings of the same class; `label` "" is the category. At most `number` queries (0: 1,000).

    Raises UsageError for a label that no listing has, DataError when all are of one class.
    """
    label = label or "category"
    classes: dict[str, list[Document]] = {}
    for document in gallery:
        if value := document.labels.get(label, "").strip():
            classes.setdefault(value, []).append(document)
    if not classes:
        raise UsageError(f"protocol coarse: no listing has a {label}", f"--label: {_known_labels(gallery)}")
    if len(classes) < 2:
        raise DataError(
            f"protocol coarse: all listings are of one class, {label} = {next(iter(classes))}", "--label another one"
        )
    labelled = [document for holders in classes.values() for document in holders]
    chosen = sample(labelled, number or COARSE_QUERIES, seed)
    queries, qrels = [], {}
    same: dict[str, list[str]] = {}
    for document in labelled:
        same.setdefault(document.identity, []).append(document.id)
    for document in chosen:
        query = _listing_query(document, frozenset(same[document.identity]), frozenset([label]))
        if query.text or query.images:
            queries.append(query)
            holders = classes[document.labels[label].strip()]
            qrels[query.id] = {other.id: 1 for other in holders if other.identity != document.identity}
    if not any(qrels.values()):
        raise DataError(f"protocol coarse: no two products share a {label}", "--label another one")
    notes = [f"a sample of {len(chosen):,} of {len(labelled):,} queries"] if len(chosen) < len(labelled) else []
    if missing := len(gallery) - len(labelled):
        notes.append(f"{missing:,} listings have no {label}: they can be found, and are never right")
    return Task("coarse", queries, gallery, qrels, notes, label)


def text_task(gallery: list[Document]) -> Task:
    """Make queries of titles for listings with photos; DataError when no listing has both."""
    holders: dict[str, list[Document]] = {}
    for document in gallery:
        if document.product.images and (title := " ".join(document.product.title.split())):
            holders.setdefault(title, []).append(document)
    if not holders:
        raise DataError("protocol text: no listing has a title and a photo", "see `afmrl check`")
    queries, qrels = [], {}
    by_identity: dict[str, list[str]] = {}
    for document in gallery:
        by_identity.setdefault(document.identity, []).append(document.id)
    for title, found in holders.items():
        id = _word(TITLE_QUERY + found[0].id)
        queries.append(Query(id, title, (), kind="title", title=title, group=found[0].identity))
        qrels[id] = {other: 1 for document in found for other in by_identity[document.identity]}
    return Task("text", queries, gallery, qrels)


def composed_task(gallery: list[Document], label: str) -> Task:
    """Make queries of a photo and the wanted value of `label` for the variant that has it; "" is what variants mostly
    differ in.

    Raises DataError when no listing with a photo has a variant with another value, UsageError for an unknown label.
    """
    groups: dict[str, list[Document]] = {}
    for document in gallery:
        if document.group:
            groups.setdefault(document.group, []).append(document)
    chosen = label or _what_differs(groups)
    if label and not any(document.labels.get(label) for document in gallery):
        raise UsageError(f"protocol composed: no listing has a {label}", f"--label: {_known_labels(gallery)}")
    queries, qrels = [], {}
    for document in gallery:
        images, own = document.product.images[:1], document.labels.get(chosen, "")
        wanted: dict[str, list[str]] = {}
        for other in groups.get(document.group, []) if images and own else []:
            value = other.labels.get(chosen, "")
            if value and value != own and other.identity != document.identity:
                wanted.setdefault(value, []).append(other.id)
        for value, right in wanted.items():
            id = _word(f"{document.id} in {value}")
            query = Query(id, f"{chosen}: {value}", images, frozenset([document.id]), kind="composed")
            queries.append(replace(query, group=document.group))
            qrels[id] = dict.fromkeys(right, 1)
    if not queries:
        raise DataError(
            "protocol composed: no listing with a photo has a variant that differs in a label",
            "variants share a group_id; --label says what they differ in",
        )
    return Task("composed", queries, gallery, qrels, [f"variants are asked for by {chosen}"])


def _what_differs(groups: dict[str, list[Document]]) -> str:
    """Return the label of which a group's listings have different values in the most groups, "" for none."""
    counts: Counter[str] = Counter()
    for members in groups.values():
        keys = {key for document in members for key in document.labels} - set(STANDARD_LABELS)
        for key in keys:
            values = [document.labels.get(key, "") for document in members]
            if all(values) and len(set(values)) > 1:
                counts[key] += 1
    # Not what is different on every listing: a price or a file's name is no wish that a person would utter.
    spoken = {key: n for key, n in counts.items() if _few_values(key, groups)}
    return max(sorted(spoken), key=lambda key: spoken[key]) if spoken else ""


def _few_values(key: str, groups: dict[str, list[Document]]) -> bool:
    values = [d.labels.get(key, "") for members in groups.values() for d in members if d.labels.get(key)]
    named = any(char.isalpha() for value in values for char in value)
    return named and len(set(values)) <= max(10, len(values) // 5)


def _known_labels(documents: Sequence[Document]) -> str:
    known = sorted({key for document in documents for key, value in document.labels.items() if value})
    return f"one of {', '.join(known[:20])}"


def queries_task(judged: Sequence[Query], qrels: Qrels, gallery: list[Document], level: int = 1) -> Task:
    """Take the judged queries of a file; those whose relevant products (grade of at least `level`) are one and the same
    product are about that product.
    """
    there = {document.id: document.identity for document in gallery}
    queries, used = [], {}
    for query in judged:
        grades = {id: grade for id, grade in qrels.get(query.id, {}).items() if id in there and id not in query.exclude}
        right = {there[id] for id, grade in grades.items() if grade >= level}
        queries.append(replace(query, group=right.pop() if len(right) == 1 else ""))
        used[query.id] = grades
    outside = sum(len(qrels.get(query.id, {})) - len(used[query.id]) for query in queries)
    notes = [f"{outside:,} judgements of products outside the gallery or taken out are not used"] if outside else []
    return Task("queries", queries, gallery, used, notes)
