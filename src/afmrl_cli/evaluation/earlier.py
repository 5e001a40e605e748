"""Rankings of an earlier time: a folder in .afmrl/runs, its name alone, or a TREC run of any tool.

An evaluation's folder holds the judgements that it went by. They must be those of now: metrics over other queries or
other relevant products are not comparable, however alike their names. What else was different then (a smaller gallery
is easier) is reported.

A run of another tool may rank what can't be the answer (the query's own listing) and more products than are ranked
here: both are left out, so that it is scored as the systems beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..store.files import parse_json
from ..store.folder import CatalogFolder
from .metrics import Run, ranked_ids
from .task import Task
from .trec import as_word, read_qrels, read_run

EMBEDDER_RUN, VISION_RUN, QRELS, DOCUMENT = "run-embedder.trec", "run-vision-encoder.trec", "qrels.trec", "metrics.json"
"""The ranking of the evaluation's first row is one of the first two."""
CIRCUMSTANCES = ("protocol", "gallery", "query_fields", "gallery_fields", "enrich")
"""Keys of the document that say how hard the task was."""


@dataclass(frozen=True)
class Earlier:
    """A ranking by its `name`, as it was given. `document`: the metrics that were kept with it, {} for a bare file."""

    name: str
    run: Run
    document: Mapping[str, Any] = field(default_factory=dict)

    def differs(self, now: Mapping[str, Any]) -> str:
        """Return what was not as it is in the document `now`, in words; "" for nothing."""
        then = self.document
        return ", ".join(
            f"{key} = {then[key]} (now {now[key]})" for key in CIRCUMSTANCES if key in then and then[key] != now[key]
        )


def find_run(written: str, folder: CatalogFolder, task: Task, depth: int) -> Earlier:
    """Find the run that `written` means, for the queries of `task`, at most `depth` products each.

    Raises DataError when there is no such run, when it is empty or of another catalog, or with other relevant products.
    """
    given = Path(written).expanduser()
    places = [given, folder.root / given, folder.runs / given]
    place = next((each for each in places if each.exists()), given)
    if place.is_file():
        return Earlier(written, outside_run(place, task, depth))
    if not place.is_dir():
        known = sorted(path.name for path in folder.runs.glob("*-eval*"))[-3:]
        hint = f"the latest here: {', '.join(known)}" if known else "a run folder, its name in .afmrl/runs, or a file"
        raise DataError(f"{written}: no such run", hint)
    run = VISION_RUN if (place / VISION_RUN).is_file() else EMBEDDER_RUN
    if missing := [name for name in (run, QRELS, DOCUMENT) if not (place / name).is_file()]:
        raise DataError(f"{place}: not a finished evaluation", f"it has no {', '.join(missing)}")
    _check_judgements(place, task)
    return Earlier(place.name, outside_run(place / run, task, depth), _document(place / DOCUMENT))


def outside_run(file: Path, task: Task, depth: int) -> Run:
    """Return a TREC run of any tool as an answer to `task`: without what can't be the answer, at most `depth`
    products.
    """
    run = read_run(file, [query.id for query in task.queries], [document.id for document in task.documents])
    queries = {query.id: query for query in task.queries}
    kept: dict[str, list[tuple[str, float]]] = {}
    for query, ranking in run.items():
        scores = {product: score for product, score in ranking if queries[query].may_find(product)}
        kept[query] = [(product, scores[product]) for product in ranked_ids(list(scores.items()))[:depth]]
    return kept


def _document(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read: {error}", "compare with another run") from None
    if not isinstance(found, dict):
        raise DataError(f"{file}: not the document of an evaluation", "compare with another run")
    return found


def _check_judgements(place: Path, task: Task) -> None:
    theirs = read_qrels(place / QRELS)
    for query, grades in task.qrels.items():
        ours = {as_word(product): grade for product, grade in grades.items()}
        if ours and ours != theirs.get(as_word(query)):
            missing = "is not in it" if as_word(query) not in theirs else "has other relevant products there"
            raise DataError(
                f"{place}: not the same evaluation: query {query} {missing}",
                "compare runs of one catalog, protocol, gallery and sample",
            )
