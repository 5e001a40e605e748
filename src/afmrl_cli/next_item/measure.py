"""One evaluation of recommenders: the questions of a part, ranked by each system, as one JSON document.

A row of the part asks what its customer takes at its time, given all that came before, as far as the row's own time:
what a system may read of a history is not frozen at the split, what it learns from is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from ..evaluation.compare import differences
from ..evaluation.thresholds import floor_checks
from ..intervals import interval
from ..recommend.split import LEAK, PARTS, VALIDATION, day_of
from ..settings import EvalSettings
from ..workspace import Workspace
from .histories import Chooser, Histories, Items, Question, Recommender, questions_of
from .metrics import (
    CUTS,
    SAMPLED,
    Floats,
    Ranks,
    coverage,
    first_shown,
    gini,
    identity,
    joined,
    metric_names,
    popularity_of,
    rank_among,
    rank_first,
    rank_targets,
    sample_others,
)
from .sequential import Sequential

MOST = 10_000
"""Questions at most where `eval.max_queries` doesn't say."""
CELLS, AT_ONCE = 4_000_000, 256
"""Scores and questions at a time."""
COMPARED = ("hr@10", "ndcg@10")


@dataclass(frozen=True)
class Ranked:
    """What a system made of the questions: ranks among all listings, among 9 and 99 (by the number of candidates), and
    its first ten [questions, 10]."""

    full: Ranks
    among: dict[int, Ranks]
    shown: Items
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """A finished evaluation: `content` is the JSON document."""

    content: dict[str, Any]
    histories: Histories
    questions: list[Question]
    ranked: dict[str, Ranked]

    def failed(self) -> list[str]:
        """Return what did not pass its check, in words."""
        return [check["message"] for check in self.content["checks"] if not check["passed"]]


def check_name(name: str) -> str:
    """Return `name` when it is a metric that is measured; UsageError with the known ones else."""
    known = _names([1 + count for count in SAMPLED])
    if name not in known:
        raise UsageError(f"{name}: no such metric", f"known: {', '.join(known)}")
    return name


def measure(
    work: Workspace,
    histories: Histories,
    part: int,
    systems: Sequence[Recommender],
    main: str,
    thresholds: Mapping[str, float],
) -> Measurement:
    """Rank the questions of `part` by each of `systems`; all are compared with the one called `main`, which must reach
    the `thresholds`. Raises DataError where there is no question, UsageError for a threshold that can't be measured.
    """
    chosen, started, kind = work.settings.eval, time.monotonic(), work.settings.recommend.split
    asked = questions_of(histories, part)
    rows = int((histories.part == part).sum())
    if not asked:
        raise _nothing_asked(rows, part)
    questions = sample_questions(asked, histories, chosen.max_queries or MOST, chosen.seed)
    drawn = {count: sample_others(questions, histories, count, chosen.seed) for count in SAMPLED}
    others = [each for each in drawn.values() if each is not None]
    names = _names([1 + each.shape[1] for each in others])
    few = _too_few(len(histories.ids), [count for count, each in drawn.items() if each is None])
    if refused := [(name, why) for name in thresholds for about, why in few.items() if name in about]:
        raise UsageError(f"{refused[0][0]}: {refused[0][1]}", "choose another metric")
    step = max(1, min(AT_ONCE, CELLS // len(histories.ids)))
    ranked = {system.name: _ranked(work, system, questions, others, step) for system in systems}
    values = {name: _values(each) for name, each in ranked.items()}
    groups = [str(question.customer) for question in questions]
    slices = _slices(histories, questions)
    content = {
        "catalog": str(work.folder.catalog),
        "part": PARTS[part],
        "split": {"kind": kind, "leaks": LEAK if kind == "last" else ""},
        "from": day_of(min(question.seconds for question in questions)),
        "to": day_of(max(question.seconds for question in questions)),
        "listings": len(histories.ids),
        "interactions": rows,
        "without_history": rows - len(asked),
        "asked": len(asked),
        "questions": len(questions),
        "customers": len(set(groups)),
        "sampled": [each.shape[1] for each in others],
        "confidence": chosen.confidence,
        "resamples": chosen.resamples,
        "seed": chosen.seed,
        "slices": {name: _size(groups, mask) for name, mask in slices.items()},
        "systems": [
            {
                "system": name,
                **_metrics(names, values[name], groups, chosen),
                "slices": {
                    key: _metrics(names, values[name][mask], list(compress(groups, mask)), chosen)
                    for key, mask in slices.items()
                },
                **_shares(ranked[name].shown, histories),
                "seconds": round(ranked[name].seconds, 3),
            }
            for name in ranked
        ],
        "sequential": next((asdict(each.training) for each in systems if isinstance(each, Sequential)), None),
        "taken": {"popularity": _mean(popularity_of(histories)[[question.target for question in questions]])},
        "main": main,
        "comparisons": [
            _compare(name, values[name], main, values[main], groups, names, chosen) for name in ranked if name != main
        ],
        "checks": _checks(thresholds, names, values[main]),
        "notes": [*_notes(asked, questions, groups, part), *_seen(systems, questions), *few.values()],
        "seconds": round(time.monotonic() - started, 3),
    }
    return Measurement(content, histories, questions, ranked)


def _nothing_asked(rows: int, part: int) -> DataError:
    name = PARTS[part]
    if not rows:
        return DataError(f"the {name} split holds no interaction", f"see `afmrl interactions`; recommend.{name}")
    return DataError(
        f"the {rows:,} interactions of the {name} split are all their customers' first: nothing is known to rank by",
        "a later --split, or interactions over a longer time",
    )


def sample_questions(asked: Sequence[Question], histories: Histories, most: int, seed: int) -> list[Question]:
    """Return the questions of so many customers, sampled at random, that there are at most `most`; of one customer at
    least. The questions' order stays.
    """
    if len(asked) <= most:
        return list(asked)
    first: dict[int, bytes] = {}
    counts: dict[int, int] = {}
    for question in asked:
        if question.customer not in first:
            first[question.customer] = identity(question, histories, seed)
        counts[question.customer] = counts.get(question.customer, 0) + 1
    taken, total = set[int](), 0
    for customer in sorted(first, key=lambda each: (first[each], each)):
        if taken and total + counts[customer] > most:
            break
        taken.add(customer)
        total += counts[customer]
    return [question for question in asked if question.customer in taken]


def _notes(asked: Sequence[Question], questions: Sequence[Question], groups: Sequence[str], part: int) -> list[str]:
    notes = []
    if len(asked) > len(questions):
        notes.append(
            f"{len(questions):,} of {len(asked):,} questions, all those of {len(set(groups)):,} customers who were "
            "sampled at random; eval.max_queries sets how many"
        )
    if part == VALIDATION:
        who = "fused, sequential, a trained recommender"
        notes.append(f"what was fitted, stopped or chosen by these very questions ({who}) looks better than it is")
    return notes


def _seen(systems: Sequence[Recommender], questions: Sequence[Question]) -> list[str]:
    """Say which systems have learnt from interactions as late as these questions."""
    first = min(question.seconds for question in questions)
    return [
        f"{system.name} learnt from interactions up to {day_of(system.learnt_until)[:10]}, and these questions begin "
        f"on {day_of(first)[:10]}: it may have seen some of them, and looks better than it is"
        for system in systems
        if isinstance(system, Chooser) and system.learnt_until >= first
    ]


def _too_few(listings: int, missing: Sequence[int]) -> dict[tuple[str, ...], str]:
    """Return which metrics say nothing, or can't be had, for a catalog of so few `listings`, and why."""
    found: dict[tuple[str, ...], str] = {}
    if beyond := tuple(name for cut, name in zip(CUTS, metric_names(), strict=False) if cut >= listings):
        found[beyond] = f"{', '.join(beyond)}: whatever is ranked, nothing is missed among {listings:,} listings"
    for count in missing:
        why = f"of {listings:,} listings too few are left beside what customers have taken"
        found[tuple(_sampled_names(1 + count))] = f"no metrics among {count} sampled listings: {why}"
    return found


def _ranked(
    work: Workspace, system: Recommender, questions: Sequence[Question], others: Sequence[Items], step: int
) -> Ranked:
    """Rank all questions by a system, `step` at a time."""
    started = time.monotonic()
    full, shown = list[Ranks](), list[Items]()
    among: dict[int, list[Ranks]] = {1 + each.shape[1]: [] for each in others}
    for start in range(0, len(questions), step):
        work.listener.progress(f"ranking by {system.name}", start, len(questions))
        part = questions[start : start + step]
        targets = np.array([question.target for question in part], dtype=np.int32)
        scores = system.scores(part)
        full.append(rank_targets(scores, targets, system.name))
        shown.append(first_shown(scores))
        for each in others:
            chosen = each[start : start + step]
            if isinstance(system, Chooser):
                few = system.among(part, np.column_stack([targets, chosen]).astype(np.int64))
                among[1 + each.shape[1]].append(rank_first(few))
            else:
                among[1 + each.shape[1]].append(rank_among(scores, targets, chosen))
    return Ranked(
        joined(full),
        {count: joined(ranks) for count, ranks in among.items()},
        np.concatenate(shown),
        time.monotonic() - started,
    )


def _names(candidates: Sequence[int]) -> list[str]:
    """Return all metrics, those over the whole catalog first. Among as few listings as a cut has places, nothing is
    missed: no such HR."""
    return [*metric_names(), *(name for count in candidates for name in _sampled_names(count))]


def _sampled_names(count: int) -> list[str]:
    return [name for name in metric_names(among=count) if name != f"hr@{count}_of_{count}"]


def _values(ranked: Ranked) -> Floats:
    """Return [questions, metrics] in the order of `_names`."""
    found = [ranked.full.values(CUTS)]
    for count, ranks in ranked.among.items():
        kept = [metric_names(among=count).index(name) for name in _sampled_names(count)]
        found.append(ranks.values(CUTS)[:, kept])
    return np.concatenate(found, axis=1)


def _slices(histories: Histories, questions: Sequence[Question]) -> dict[str, NDArray[np.bool_]]:
    """Return which questions are about an item, or by a customer, without a training row, and the others."""
    known_item = np.zeros(len(histories.ids), dtype=np.bool_)
    known_customer = np.zeros(len(histories.customers), dtype=np.bool_)
    known_item[histories.item[histories.training]] = True
    known_customer[histories.customer[histories.training]] = True
    item = known_item[[question.target for question in questions]]
    customer = known_customer[[question.customer for question in questions]]
    return {"known": item & customer, "new_items": ~item, "new_customers": ~customer}


def _size(groups: Sequence[str], mask: NDArray[np.bool_]) -> dict[str, int]:
    return {"questions": int(mask.sum()), "customers": len(set(compress(groups, mask)))}


def _metrics(names: Sequence[str], values: Floats, groups: Sequence[str], chosen: EvalSettings) -> dict[str, Any]:
    """Return means and their intervals over customers; None where there is no question."""
    if not len(values):
        return {"metrics": dict.fromkeys(names), "intervals": dict.fromkeys(names)}
    ends = interval(values, groups, chosen.confidence).T.tolist()
    return {
        "metrics": dict(zip(names, values.mean(axis=0).tolist(), strict=True)),
        "intervals": dict(zip(names, ends, strict=True)),
    }


def _shares(shown: Items, histories: Histories) -> dict[str, float]:
    popularity = popularity_of(histories)
    return {
        "coverage@10": coverage(shown, len(histories.ids)),
        "gini@10": gini(shown, len(histories.ids)),
        "popularity@10": _mean(popularity[shown[shown >= 0]]),
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _compare(
    system: str,
    ours: Floats,
    against: str,
    theirs: Floats,
    groups: Sequence[str],
    names: Sequence[str],
    chosen: EvalSettings,
) -> dict[str, Any]:
    """Return what a system differs from another in, on the same questions."""
    columns = [names.index(name) for name in COMPARED]
    found = differences(
        COMPARED,
        ours[:, columns],
        theirs[:, columns],
        groups,
        draws=chosen.resamples,
        confidence=chosen.confidence,
        seed=chosen.seed,
    )
    each = [{**asdict(one), "difference": one.difference, "words": one.words(against)} for one in found]
    return {"system": system, "against": against, "differences": each}


def _checks(thresholds: Mapping[str, float], names: Sequence[str], values: Floats) -> list[dict[str, Any]]:
    means = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
    return floor_checks(thresholds, means, dict.fromkeys(names, 1.0))
