"""From answers to metrics with intervals: per system, against other systems and earlier runs, by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..intervals import interval
from ..settings import Settings
from .clusters import class_metrics
from .compare import differences, spread, table_of
from .earlier import Earlier
from .metrics import Evaluation, Run, evaluate, headline_metric, ranked_ids
from .slices import slice_values, sliced
from .systems import SystemRun
from .task import Task, groups_of, sample
from .thresholds import drop_checks


@dataclass(frozen=True)
class Scored:
    """A system's answers with their metrics. `others` are the answers of other seeds that were merged with them."""

    answer: SystemRun
    evaluation: Evaluation
    spread: Mapping[str, float]
    others: tuple[Run, ...] = ()

    @property
    def merged(self) -> int:
        """Return how many runs the metrics are the mean of."""
        return 1 + len(self.others)


def score(answer: SystemRun, task: Task, names: Sequence[str], settings: Settings, merged: Sequence[Earlier]) -> Scored:
    """Score `answer`: its metrics, averaged query by query with those of the runs of other seeds."""
    level = settings.eval.min_grade
    own = evaluate(answer.run, task.qrels, names, level)
    if not merged or not own.means:
        return Scored(answer, own, {})
    others = tuple(each.run for each in merged)
    return _merged(answer, others, [own, *(evaluate(run, task.qrels, names, level) for run in others)])


def _merged(answer: SystemRun, others: tuple[Run, ...], runs: Sequence[Evaluation]) -> Scored:
    queries = queries_of(runs[0])
    tables = [table_of(run.per_query, queries) for run in runs]
    mean = sum(tables[1:], tables[0]) / len(tables)
    per_query = {name: dict(zip(queries, mean[:, i].tolist(), strict=True)) for i, name in enumerate(runs[0].per_query)}
    means = dict(zip(per_query, mean.mean(axis=0).tolist(), strict=True))
    merged = replace(runs[0], means=means, per_query=per_query)
    return Scored(answer, merged, dict(zip(per_query, spread(tables), strict=True)), others)


def queries_of(evaluation: Evaluation) -> list[str]:
    """Return the queries that the means are over."""
    return list(next(iter(evaluation.per_query.values()), {}))


def compare_all(
    scored: Sequence[Scored],
    earlier: Sequence[Earlier],
    task: Task,
    names: Sequence[str],
    drops: Mapping[str, float],
    settings: Settings,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare the embedder with the runs of `--compare` (several: seeds of one thing) and with every system
    beside it.
    """
    queries = queries_of(scored[0].evaluation)
    groups = groups_of(task, queries)
    ours = table_of(scored[0].evaluation.per_query, queries)
    chosen = settings.eval
    rivals: list[tuple[str, Scored, bool]] = []
    if earlier:
        evaluations = [evaluate(each.run, task.qrels, names, chosen.min_grade) for each in earlier]
        answer = SystemRun("compared", earlier[0].run, frozenset(earlier[0].run))
        others = tuple(each.run for each in earlier[1:])
        rivals.append((", ".join(each.name for each in earlier), _merged(answer, others, evaluations), True))
    rivals += [(each.answer.system, each, False) for each in scored[1:] if each.answer.readable.intersection(queries)]
    comparisons, checks = [], []
    headline = headline_metric(names, task.label)
    for against, rival, given in rivals:
        theirs = table_of(rival.evaluation.per_query, queries)
        found = differences(
            names, ours, theirs, groups, draws=chosen.resamples, confidence=chosen.confidence, seed=chosen.seed
        )
        if given:
            checks += drop_checks(drops, found, against, chosen.confidence)
        each_metric = [{**asdict(each), "difference": each.difference, "words": each.words(against)} for each in found]
        comparisons.append(
            {
                "against": against,
                "given": given,
                "runs": rival.merged,
                "spread": dict(rival.spread),
                "differences": each_metric,
                "words": [each.words(against) for each in found if given or each.metric == headline],
            }
        )
    return comparisons, checks


def system_metrics(
    scored: Scored, task: Task, variants: Mapping[str, frozenset[str]], settings: Settings
) -> dict[str, Any]:
    """Return a system's part of the JSON document."""
    answer, queries = scored.answer, queries_of(scored.evaluation)
    table = table_of(scored.evaluation.per_query, queries)
    readable = len(answer.readable.intersection(queries))
    means: dict[str, float | None] = dict(scored.evaluation.means)
    ends: list[list[float] | None] = interval(table, groups_of(task, queries), settings.eval.confidence).T.tolist()
    if not readable:  # it can't answer, which is something else than to answer wrongly
        means, ends = dict.fromkeys(means), [None] * len(ends)
    classed = readable and task.label and answer.vectors is not None
    return {
        "system": answer.system,
        "id": answer.id,
        "readable": readable,
        "metrics": means,
        "intervals": dict(zip(means, ends, strict=True)),
        "runs": scored.merged,
        "spread": dict(scored.spread),
        "variants": _variant_metrics(scored, task, variants, settings) if readable and variants else None,
        "fusion": [asdict(weight) for weight in answer.fusion] or None,
        "hybrid": [asdict(weight) for weight in answer.hybrid] or None,
        "classes": _classes(answer, task, settings) if classed else None,
    }


def _classes(answer: SystemRun, task: Task, settings: Settings) -> dict[str, Any]:
    by_id = {document.id: document for document in task.documents}
    labels = [by_id[id].labels.get(task.label, "").strip() for id in answer.ids]
    rows = sample([i for i, label in enumerate(labels) if label], settings.eval.cluster_sample, settings.eval.seed)
    assert answer.vectors is not None
    made = class_metrics(
        answer.vectors[rows],
        [labels[i] for i in rows],
        [by_id[answer.ids[i]].identity for i in rows],
        neighbors=settings.eval.neighbors,
        clusterings=settings.eval.clusterings,
        seed=settings.eval.seed,
    )
    return {"label": task.label, **asdict(made)}


def _variant_metrics(
    scored: Scored, task: Task, variants: Mapping[str, frozenset[str]], settings: Settings
) -> dict[str, Any]:
    """Compute variant@1: share of queries with variants where a sibling variant ranks first; above_variants: where the
    first relevant product stands above every variant (found or not; a query without a relevant product in its ranking
    is not). Means over merged runs.
    """
    chosen, names, queries = settings.eval, ("variant@1", "above_variants"), list(variants)
    runs = (scored.answer.run, *scored.others)
    table = np.zeros((len(queries), len(names)))
    for i, query in enumerate(queries):
        for run in runs:
            ids = ranked_ids(run.get(query, ()))
            table[i] += _among_variants(ids, task.qrels[query], variants[query], chosen.min_grade)
    table /= len(runs)
    ends = interval(table, groups_of(task, queries), chosen.confidence)
    return {
        "queries": len(queries),
        **dict(zip(names, table.mean(axis=0).tolist(), strict=True)),
        "intervals": dict(zip(names, ends.T.tolist(), strict=True)),
    }


def _among_variants(
    ids: Sequence[str], grades: Mapping[str, int], variants: frozenset[str], level: int
) -> tuple[bool, bool]:
    """Return (a sibling variant ranks first, a relevant product stands above all variants)."""
    for place, id in enumerate(ids):
        if id in variants:
            return place == 0, False
        if grades.get(id, 0) >= level:
            return False, True
    return False, False


def slice_metrics(
    key: str, scored: Scored, task: Task, variants: Mapping[str, frozenset[str]], settings: Settings
) -> list[dict[str, Any]]:
    """Return the metrics of a system by the values of slice `key`."""
    chosen = settings.eval
    queries = queries_of(scored.evaluation)
    return sliced(
        slice_values(task, key, variants, chosen.min_grade),
        scored.evaluation.per_query,
        dict(zip(queries, groups_of(task, queries), strict=True)),
        chosen.confidence,
    )
