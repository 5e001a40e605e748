"""From settings and flags to a task: labels, gallery, protocol, query and gallery fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..catalog.images import ImagePaths, ImageProblem
from ..catalog.splits import Split
from ..errors import DataError, UsageError
from ..retrieval.filters import parse_filters
from ..retrieval.vectors import RowMaker
from ..settings import Settings
from ..store.folder import CatalogFolder
from .fusion import TUNING_QUERIES
from .protocols import (
    coarse_task,
    composed_task,
    fine_task,
    identity_task,
    offered,
    photo_task,
    queries_task,
    text_task,
)
from .seen import Seen, told_of_seen, unseen
from .task import (
    Document,
    Task,
    about_split,
    gallery_of,
    of_split,
    sample,
    sampled,
    with_gallery_fields,
    with_query_fields,
    with_views,
)
from .trec import read_qrels, read_queries


@dataclass(frozen=True)
class TaskSpec:
    """What to measure: `protocol` None is what the catalog offers; `gallery` are `key=value` filters."""

    protocol: str | None = None
    queries: Path | None = None
    qrels: Path | None = None
    gallery: tuple[str, ...] = ()
    split: Split | Literal["all"] | None = None
    """Only queries about products of this split, or all; None: about those that no model in the table has seen."""
    seen: Seen = field(default_factory=Seen)


def labels_file(settings: Settings, root: Path) -> Path | None:
    """`eval.labels`, from where one stands or from the catalog's folder; None for none."""
    if not settings.eval.labels:
        return None
    given = Path(settings.eval.labels).expanduser()
    return given if given.is_file() else root / given


def judged_files(root: Path, queries: Path | None, qrels: Path | None) -> tuple[Path, Path]:
    """(queries, judgements) that are read for `--queries` and `--qrels`: by default beside the catalog, the judgements
    beside the queries (queries_photo.jsonl goes with qrels_photo.trec, else BEIR's qrels/test.tsv).
    """
    queries = queries or root / "queries.jsonl"
    if qrels is not None:
        return queries, qrels
    beside = queries.with_name(queries.stem.replace("queries", "qrels") + ".trec")
    beir = queries.with_name("qrels") / "test.tsv"
    return queries, beir if beir.is_file() and not beside.is_file() else beside


def build_task(
    documents: list[Document], folder: CatalogFolder, settings: Settings, spec: TaskSpec, rows: RowMaker
) -> Task:
    """The task over the catalog's `documents`. Raises as the protocols do, UsageError for what can't go together."""
    chosen = settings.eval
    gallery = gallery_of(documents, parse_filters(spec.gallery, "--gallery"))
    protocol = spec.protocol or offered(documents, folder.root / "queries.jsonl")
    label = chosen.label.strip().casefold().removeprefix("attr_")
    hide: frozenset[str] = frozenset()
    if protocol == "identity":
        task = identity_task(documents, gallery)
    elif protocol == "photo":
        task = photo_task(gallery, rows)
    elif protocol == "fine":
        task = fine_task(documents, gallery, rows)
    elif protocol == "coarse":
        task = coarse_task(gallery, label, chosen.max_queries, chosen.seed)
        hide = frozenset([task.label])
    elif protocol == "text":
        task = text_task(gallery)
    elif protocol == "composed":
        task = composed_task(gallery, label)
    else:
        task = _file_task(documents, gallery, folder.root, settings, spec)
    if label and protocol not in ("coarse", "composed"):
        raise UsageError(f"--label is for coarse and composed, not for {protocol}", "leave it out")
    if spec.split is None:
        task = unseen(task, spec.seen)
    else:
        task = task if spec.split == "all" else of_split(task, spec.split, settings.split)
        task = told_of_seen(task, spec.seen)
    task = sampled(task, chosen.max_queries, chosen.seed)
    task = with_query_fields(task, chosen.query_fields or ("title" if protocol == "text" else "all"))
    gallery_fields = chosen.gallery_fields or ("photos" if protocol == "text" else "all")
    return with_views(with_gallery_fields(task, gallery_fields, hide, rows), rows.views)


def tuning_task(
    task: Task,
    documents: list[Document],
    folder: CatalogFolder,
    settings: Settings,
    spec: TaskSpec,
    rows: RowMaker,
) -> Task | None:
    """Queries as those of `task`, over the same gallery, about products of the validation split; at most
    TUNING_QUERIES. None where there are none, or where `task` asks about those products itself.
    """
    if about_split(task, "validation", settings.split):
        return None
    unsampled = settings.model_copy(update={"eval": settings.eval.model_copy(update={"max_queries": 0})})
    whole = build_task(documents, folder, unsampled, replace(spec, split="all", seen=Seen()), rows)
    queries = sample(about_split(whole, "validation", settings.split), TUNING_QUERIES, settings.eval.seed)
    return replace(whole, queries=queries, qrels={q.id: whole.qrels[q.id] for q in queries}) if queries else None


def _file_task(
    documents: Sequence[Document], gallery: list[Document], root: Path, settings: Settings, spec: TaskSpec
) -> Task:
    level = settings.eval.min_grade
    queries, qrels = judged_files(root, spec.queries, spec.qrels)
    if spec.qrels is None and queries.is_file() and not qrels.is_file():
        raise DataError(f"{qrels}: no judgements beside {queries.name}", "give them with --qrels FILE")
    paths = ImagePaths(queries.parent, settings.catalog)

    def image_path(cell: str) -> Path:
        try:
            return paths.find(cell)
        except ImageProblem as problem:
            raise ValueError(problem.reason) from problem

    rows = read_queries(queries, image_path)
    judged = read_qrels(qrels, {row.id for row in rows}, {document.id for document in documents})
    if qrels.suffix != ".tsv":
        return queries_task(rows, judged, gallery, level)
    # BEIR keeps the queries of all splits in one file: those of another split are left out.
    kept = [row for row in rows if row.id in judged]
    task = queries_task(kept, judged, gallery, level)
    others = len(rows) - len(kept)
    return replace(task, notes=[*task.notes, f"{others:,} queries are not judged in {qrels.name}"]) if others else task
