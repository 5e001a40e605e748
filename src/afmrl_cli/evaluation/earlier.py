"""Rankings of an earlier time: a folder in .afmrl/runs, its name alone, or a TREC run of any tool.

An evaluation's folder holds the judgements that it went by. They must be those of now: figures over other queries or
other right answers are not comparable, however alike their names.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..store.folder import CatalogFolder
from .metrics import Run
from .task import Task
from .trec import as_word, read_qrels, read_run

EMBEDDER_RUN, QRELS = "run-embedder.trec", "qrels.trec"


@dataclass(frozen=True)
class Earlier:
    """A ranking by its `name`, as it was given."""

    name: str
    run: Run


def find_run(written: str, folder: CatalogFolder, task: Task, products: Collection[str]) -> Earlier:
    """The run that `written` means, for the queries of `task`; `products` are the ids of the gallery.

    Raises DataError when there is no such run, when it is empty or of another catalog, or judged by other answers.
    """
    given = Path(written).expanduser()
    places = [given, folder.root / given, folder.runs / given]
    place = next((each for each in places if each.exists()), given)
    queries = [query.id for query in task.queries]
    if place.is_file():
        return Earlier(written, read_run(place, queries, products))
    if not place.is_dir():
        known = sorted(path.name for path in folder.runs.glob("*-eval*"))[-3:]
        hint = f"the latest here: {', '.join(known)}" if known else "a run folder, its name in .afmrl/runs, or a file"
        raise DataError(f"{written}: no such run", hint)
    if not (place / EMBEDDER_RUN).is_file() or not (place / QRELS).is_file():
        raise DataError(f"{place}: not a finished evaluation", f"it has no {EMBEDDER_RUN} and {QRELS}")
    _check_judgements(place, task)
    return Earlier(place.name, read_run(place / EMBEDDER_RUN, queries, products))


def _check_judgements(place: Path, task: Task) -> None:
    theirs = read_qrels(place / QRELS)
    for query, grades in task.qrels.items():
        ours = {as_word(product): grade for product, grade in grades.items()}
        if ours and ours != theirs.get(as_word(query)):
            missing = "is not in it" if as_word(query) not in theirs else "has other right answers there"
            raise DataError(
                f"{place}: not the same evaluation: query {query} {missing}",
                "compare runs of one catalog, protocol, gallery and sample",
            )
