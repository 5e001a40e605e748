"""What is measured of composed queries, beside the metrics of any ranking.

    R@k            share of queries with a relevant listing among the first k: with one target a query it is recall@k
    R_subset@k     the same among the relevant listings and those most like the reference: the file's (CIRR), else
                   SUBSET in all, the first by the embedder when it is shown the reference's photo alone
    unchanged@10   share of queries with a listing of the reference's style, but without the wish, among the first ten;
                   of the queries whose reference has such (same `group_id` or product)

All without the reference, which is taken out of the ranking. Neighbours and styles are the same for every system of a
table. Per category, and their plain mean, as FashionIQ has it.

    paraphrases    the wish as it is written and in two other ways: how far R@k lies apart, and the share of queries
                   that only some of the three find among the first ten
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..intervals import interval
from ..settings import EvalSettings
from ..workspace import Workspace
from .composed import OF_PAIRS, is_composed, part_alone, rephrased
from .metrics import Run, ranked_ids
from .systems import RetrievalSystem, SystemRun, vector_run
from .task import Document, Query, Task, groups_of, sample

CUTS, SUBSET_CUTS, FIRST = (1, 5, 10, 50), (1, 2, 3), 10
SUBSET = 5
"""As in CIRR, whose sets of six hold the reference."""
PARAPHRASED = 500
"""At most so many queries are asked in other words."""


Rankings = Mapping[str, Sequence[str]]
"""Listings by query, best first."""


@dataclass(frozen=True)
class ComposedFacts:
    """What is true of a task's queries whatever answers them, by query: its category, the listings that it is compared
    with (`subsets`; "file" or "neighbours" says whose they are), and those of the reference's style without the wish.
    """

    categories: Mapping[str, str]
    subsets: Mapping[str, frozenset[str]]
    source: str
    styles: Mapping[str, frozenset[str]]
    paraphrases: dict[str, Any] | None

    def describe(self) -> dict[str, Any]:
        """Return what the document says of them beside the systems."""
        return {"subsets": self.source, "paraphrases": self.paraphrases}


def composed_facts(
    task: Task, own: RetrievalSystem, first: SystemRun, work: Workspace, problems: Problems
) -> ComposedFacts | None:
    """Return the facts of a composed task, None of another one; `first` is what the embedder, `own`, found."""
    if not is_composed(task):
        return None
    level = work.settings.eval.min_grade
    right = {q.id: frozenset(id for id, grade in task.qrels[q.id].items() if grade >= level) for q in task.queries}
    counted = [query for query in task.queries if right[query.id]]
    by_id = {document.id: document for document in task.documents}
    source = "file" if any(query.subset for query in counted) else "neighbours"
    if source == "file":
        subsets = {query.id: query.subset for query in counted if query.subset}
    else:
        near = vector_run(part_alone(task, "photos"), own, work, problems).run
        subsets = {query.id: _nearest(near[query.id], right[query.id]) for query in counted if query.id in near}
    return ComposedFacts(
        {query.id: query.category or _category(query, right[query.id], by_id) for query in counted},
        subsets,
        source,
        _styles(task, counted, right),
        _paraphrases(task, counted, right, (own, first), work, problems),
    )


def _nearest(ranking: Sequence[tuple[str, float]], right: frozenset[str]) -> frozenset[str]:
    others = [id for id in ranked_ids(ranking) if id not in right]
    return right | frozenset(others[: max(0, SUBSET - len(right))])


def _references(query: Query, by_id: Mapping[str, Document]) -> list[Document]:
    return [by_id[id] for id in sorted(query.exclude) if id in by_id]


def _category(query: Query, right: frozenset[str], by_id: Mapping[str, Document]) -> str:
    """Return the category of the reference, of the target where it is not in the gallery."""
    known = _references(query, by_id) or [by_id[id] for id in sorted(right)]
    return next((value for document in known if (value := document.labels.get("category", "").strip())), "")


def _styles(task: Task, queries: Sequence[Query], right: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return, by query, the listings of the reference's style, or of its product, that are neither the reference nor
    relevant; queries without any are left out.
    """
    by_id = {document.id: document for document in task.documents}
    holders: dict[tuple[str, str], set[str]] = {}
    for document in task.documents:
        for key in _style(document):
            holders.setdefault(key, set()).add(document.id)
    styles: dict[str, frozenset[str]] = {}
    for query in queries:
        known = _references(query, by_id) or [by_id[id] for id in sorted(right[query.id])]
        same = {id for document in known for key in _style(document) for id in holders[key]}
        if same := {id for id in same - right[query.id] if query.may_find(id)}:
            styles[query.id] = frozenset(same)
    return styles


def _style(document: Document) -> list[tuple[str, str]]:
    return [("product", document.identity), *([("group", document.group)] if document.group else [])]


def _paraphrases(
    task: Task,
    counted: Sequence[Query],
    right: Mapping[str, frozenset[str]],
    own: tuple[RetrievalSystem, SystemRun],
    work: Workspace,
    problems: Problems,
) -> dict[str, Any] | None:
    """Ask a sample of the queries in other words: R@k of each way, how far apart they lie, and the share of queries
    that only some of the ways find among the first ten. None where queries have no words.
    """
    asked = sample([query for query in counted if query.text], PARAPHRASED, work.settings.eval.seed)
    if not asked:
        return None
    system, first = own
    part = replace(task, queries=asked)
    runs = [
        first.run,
        *(vector_run(rephrased(part, way), system, work, problems).run for way in range(1, len(OF_PAIRS))),
    ]
    tables = [_hits([_ranked(run, asked)], asked, right, CUTS) for run in runs]
    means = np.array([table.mean(axis=0) for table in tables])
    found = np.array([table[:, CUTS.index(FIRST)] for table in tables])
    return {
        "queries": len(asked),
        "metrics": [_named("R", CUTS, row) for row in means],
        "range": _named("R", CUTS, means.max(axis=0) - means.min(axis=0)),
        "found_by_some": float((found.max(axis=0) > found.min(axis=0)).mean()),
    }


def composed_metrics(runs: Sequence[Run], task: Task, facts: ComposedFacts, settings: EvalSettings) -> dict[str, Any]:
    """Return the metrics of one system, the mean of its merged `runs`, with intervals."""
    level = settings.min_grade
    queries = [query for query in task.queries if query.id in facts.categories]
    right = {q.id: frozenset(id for id, grade in task.qrels[q.id].items() if grade >= level) for q in queries}
    groups = groups_of(task, [query.id for query in queries])

    def measured(name: str, cuts: Sequence[int], rows: Sequence[int], table: NDArray[np.float64]) -> dict[str, Any]:
        """Return the means of some rows with their intervals."""
        chosen = table[list(rows)]
        ends = interval(chosen, [groups[row] for row in rows], settings.confidence).T
        return {
            "queries": len(rows),
            "metrics": _named(name, cuts, chosen.mean(axis=0)),
            "intervals": dict(zip(_names(name, cuts), ends.tolist(), strict=True)),
        }

    rankings = [_ranked(run, queries) for run in runs]
    table = _hits(rankings, queries, right, CUTS)
    by_category: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        by_category.setdefault(facts.categories[query.id], []).append(row)
    categories = [
        {"value": value, **measured("R", CUTS, rows, table)}
        for value, rows in sorted(by_category.items(), key=lambda each: (-len(each[1]), each[0]))
    ]
    means = np.array([list(each["metrics"].values()) for each in categories])
    compared = [row for row, query in enumerate(queries) if query.id in facts.subsets]
    among = _hits([_among(each, facts.subsets) for each in rankings], queries, right, SUBSET_CUTS)
    styled = [row for row, query in enumerate(queries) if query.id in facts.styles]
    unchanged = _hits(rankings, queries, facts.styles, (FIRST,))
    return {
        **measured("R", CUTS, range(len(queries)), table),
        "categories": categories,
        "category_mean": _named("R", CUTS, means.mean(axis=0)),
        "subset": measured("R_subset", SUBSET_CUTS, compared, among) if compared else None,
        "unchanged": measured("unchanged", (FIRST,), styled, unchanged) if styled else None,
    }


def _ranked(run: Run, queries: Sequence[Query]) -> Rankings:
    return {query.id: ranked_ids(run.get(query.id, ())) for query in queries}


def _among(rankings: Rankings, subsets: Mapping[str, frozenset[str]]) -> Rankings:
    """Return the rankings of what is in each query's subset alone."""
    return {query: [id for id in rankings[query] if id in subset] for query, subset in subsets.items()}


def _hits(
    runs: Sequence[Rankings], queries: Sequence[Query], wanted: Mapping[str, frozenset[str]], cuts: Sequence[int]
) -> NDArray[np.float64]:
    """Return [queries, cuts]: the share of `runs` with one of the `wanted` listings among the first k."""
    table = np.zeros((len(queries), len(cuts)))
    for row, query in enumerate(queries):
        right = wanted.get(query.id, frozenset())
        for run in runs:
            place = next((place for place, id in enumerate(run.get(query.id, ())) if id in right), None)
            table[row] += [place is not None and place < k for k in cuts]
    return table / len(runs)


def _names(name: str, cuts: Sequence[int]) -> list[str]:
    return [f"{name}@{k}" for k in cuts]


def _named(name: str, cuts: Sequence[int], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(_names(name, cuts), values.tolist(), strict=True))
