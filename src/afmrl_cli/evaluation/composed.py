"""Composed queries as an evaluation asks them: checked where they come from a file, without their reference in the
ranking, with what is known of it; parts of them alone; and the wish in other words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from ..attributes.parse import read_stored
from ..attributes.views import StoredViews
from ..catalog.fingerprints import UNREADABLE
from ..catalog.problems import clipped
from ..retrieval.composed import attribute_columns, changed_attributes, own_attributes, read_change
from ..retrieval.vectors import RowMaker
from ..workspace import Workspace
from .metrics import Qrels
from .task import COMPOSED, Document, Query, Task

Part = Literal["text", "photos", "attributes"]
ALONE: dict[str, Part] = {"change-alone": "text", "reference-alone": "photos", "attributes-alone": "attributes"}
"""The baselines that must lose, by what is left of a query. Attributes are those of the reference with the change."""
OF_PAIRS = ("{wish}", "the same, but {values}", "I want the {words}")
OF_WORDS = ("{wish}", "the same, but {wish}", "like this one, {wish}")
"""Three ways to write a wish, the first as it is."""


def is_composed(task: Task) -> bool:
    """Check whether all queries of a task are composed."""
    return all(query.kind == COMPOSED for query in task.queries)


def fault_of(query: Query, ids: Collection[str]) -> str:
    """Say what is wrong with a composed query of a file over the catalog's listings `ids`, "" for nothing."""
    if not query.images:
        return "has no image, and a composed query starts from one"
    if not query.text:
        return "has no text that says what should differ"
    unknown = next((id for id in sorted(query.exclude) if id not in ids), "")
    return f"leaves out {clipped(unknown, 80)}, which is no listing of the catalog" if unknown else ""


def without_reference(
    queries: Sequence[Query], judged: Qrels, documents: Sequence[Document], rows: RowMaker
) -> list[Query]:
    """Return `queries` as composed ones; those that exclude nothing leave out the listings that show their photo, by
    content, but those that are judged relevant: variants may share a photo.
    """
    shown: dict[str, set[str]] = {}
    for document in documents if not all(query.exclude for query in queries) else ():
        for path in document.product.images:
            shown.setdefault(rows.fingerprinter.hash_of(path), set()).add(document.id)
    shown.pop(UNREADABLE, None)

    def reference(query: Query) -> frozenset[str]:
        """Return the listings that can't answer a query."""
        found = (shown.get(rows.fingerprinter.hash_of(path), set()) for path in query.images)
        right = {id for id, grade in judged.get(query.id, {}).items() if grade > 0}
        return query.exclude or frozenset(id for ids in found for id in ids if id not in right)

    return [replace(query, kind=COMPOSED, exclude=reference(query)) for query in queries]


def with_known_attributes(task: Task, documents: Sequence[Document], work: Workspace, views: StoredViews) -> Task:
    """Return `task` whose wishes that are `key: value` bring the attributes of their reference, the catalog's listing
    that they exclude, with that key replaced: as `search --change` writes them, where the settings want it.
    """
    wanted = work.settings.search.known_attributes and work.settings.embed.enrich != "none"
    if not wanted or task.protocol != "composed":
        return task
    excluded = {id for query in task.queries for id in query.exclude}
    by_id = {document.id: document for document in documents if document.id in excluded}
    texts = views.texts([document.row.fingerprint for document in by_id.values()])
    columns = attribute_columns(work)

    def known(query: Query) -> Query:
        """Return `query` with them."""
        references = [by_id[id] for id in query.exclude if id in by_id]
        pairs = read_change(query.text).pairs
        if not pairs or len({document.identity for document in references}) != 1:
            return query
        row = references[0].row
        attributes = read_stored(texts.get(row.fingerprint, "")) or own_attributes(row, columns)
        return replace(query, attributes=changed_attributes(attributes, pairs) if attributes else "")

    return replace(task, queries=[known(query) for query in task.queries])


def part_alone(task: Task, part: Part) -> Task:
    """Return `task` with a part of each query as a plain one: its change, the photos of its reference, or the edited
    attributes, which leave nothing of a query that has none.
    """

    def plain(query: Query) -> Query:
        """Return the part of `query`."""
        return replace(
            query,
            kind="",
            fingerprint="",
            text=query.text if part == "text" else "",
            title=query.title if part == "text" else "",
            images=query.images if part == "photos" else (),
            attributes=query.attributes if part == "attributes" else "",
        )

    return replace(task, queries=[plain(query) for query in task.queries])


def rephrased(task: Task, way: int) -> Task:
    """Return `task` with its wishes written in the way of that number."""
    return replace(task, queries=[replace(query, text=in_words(query.text, way)) for query in task.queries])


def in_words(wish: str, way: int) -> str:
    """Return a wish written in the way of that number; 0: as it is."""
    pairs = read_change(wish).pairs
    words, values = (" and ".join(each) for each in ((f"{k} {v}" for k, v in pairs.items()), pairs.values()))
    return (OF_PAIRS if pairs else OF_WORDS)[way].format(wish=wish, values=values, words=words)
