"""The embedder's first products of each query in the reranker's order: a system of its own beside the embedder."""

from __future__ import annotations

import time

import numpy as np

from ..catalog.problems import Problems
from ..errors import UsageError
from ..models.embed_input import Item
from ..retrieval.rerank import cost, rerank, with_photos
from ..workspace import Workspace
from .entries import RERANKED
from .systems import SystemRun
from .task import COMPOSED, Task
from .trec import SCORE_DECIMALS


def reranked_run(first: SystemRun, task: Task, work: Workspace, problems: Problems) -> tuple[SystemRun, str]:
    """Return the run of `first` with the first `search.rerank` products of each query reranked, and what it took, in
    words. What follows them stays; scores are raised above it.

    UsageError for queries that ask for another product than the one that they show.
    """
    if task.label or any(query.kind == COMPOSED for query in task.queries):
        raise UsageError(
            f"--rerank: {task.protocol} asks for other products than the query's own",
            "a reranker tells whether two listings are one product: leave --rerank out, or choose another --protocol",
        )
    settings, reranker, began = work.settings, work.reranker(), time.monotonic()
    documents, run = {document.id: document for document in task.documents}, {}
    both = [np.empty((0, 2))]
    for done, query in enumerate(task.queries):
        work.listener.progress("reranking", done, len(task.queries))
        ranking = first.run.get(query.id)
        if not ranking:
            continue
        head = list(ranking[: settings.search.rerank])
        items = [
            with_photos(Item(each.row.text, each.product.images), each.id, reranker, settings, problems)
            for each in (documents[id] for id, _ in head)
        ]
        asked = with_photos(Item(query.text, query.images), query.id, reranker, settings, problems)
        cosines = np.array([score for _, score in head])
        found = rerank(reranker, asked, items, cosines)
        raised = (found.scores - found.scores.min() + cosines.min()).round(SCORE_DECIMALS)
        ordered = [(head[place][0], float(score)) for place, score in zip(found.order, raised, strict=True)]
        run[query.id] = [*ordered, *ranking[len(head) :]]
        both.append(found.both)
    _, words = cost(np.concatenate(both), time.monotonic() - began)
    by = f"the embedder's first {settings.search.rerank} by {reranker.id}, its weight {reranker.weight:g}"
    note = f"{RERANKED}: {by}; {words}"
    return SystemRun(RERANKED, run, frozenset(run), reranker.id), note
