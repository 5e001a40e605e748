"""The rows of an evaluation of recommenders: the sources of retrieval, their fusion, a sequential model, the oracle."""

from __future__ import annotations

from collections.abc import Sequence

from ..recommend.customers import kept_customers
from ..workspace import Workspace
from .histories import Histories, Recommender
from .oracle import Oracle, read_own_truth
from .retrieval import open_retrieval
from .sequential import load_sequential

MAIN = "fused"
"""What `afmrl recommend` ranks by."""
MOST_TRUE = 20_000_000
"""True probabilities at most: they are computed one by one."""


def open_systems(work: Workspace, part: int) -> tuple[Histories, Sequence[Recommender]]:
    """Return the histories and what ranks, learnt from their training part. The caller holds the lock. Raises DataError
    where there are no interactions.
    """
    retrieval = open_retrieval(work)
    histories = retrieval.histories
    systems: list[Recommender] = [*retrieval.recommenders, retrieval.fused]
    if histories.training.any():
        systems.append(load_sequential(work, histories, work.settings.eval.seed))
    if (truth := read_own_truth(work.folder.root)) is not None:
        if int((histories.part == part).sum()) * len(histories.ids) <= MOST_TRUE:
            systems.append(Oracle(truth, histories, kept_customers(work.folder)))
        else:
            work.listener.note("no row `oracle`: so many true probabilities would take too long")
    return histories, systems
