"""From settings and flags to a task: labels, gallery, protocol, query and gallery fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..catalog.images import ImagePaths, ImageProblem
from ..catalog.splits import LEAST_PRODUCTS, Split, first_to_judge_by
from ..errors import DataError, UsageError
from ..retrieval.filters import parse_filters
from ..retrieval.vectors import RowMaker
from ..settings import Settings, SplitSettings
from ..workspace import Workspace
from .composed import fault_of, with_known_attributes, without_reference
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
from .published import is_published, read_published
from .seen import Seen, not_seen, noting_seen, unseen
from .task import (
    Document,
    Query,
    Task,
    about_split,
    gallery_of,
    groups_of,
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
    """What to measure: `protocol` None is what `whole_task` chooses; `gallery` are `key=value` filters."""

    protocol: str | None = None
    queries: Path | None = None
    qrels: Path | None = None
    gallery: tuple[str, ...] = ()
    split: Split | Literal["all"] | None = None
    """Only queries about products of this split, or all; None: about those that no model in the table has seen."""
    seen: Seen = field(default_factory=Seen)


def labels_file(settings: Settings, root: Path) -> Path | None:
    """Find `eval.labels`, from the working directory or from the catalog's folder; None for none."""
    if not settings.eval.labels:
        return None
    given = Path(settings.eval.labels).expanduser()
    return given if given.is_file() else root / given


def judged_files(root: Path, queries: Path | None, qrels: Path | None) -> tuple[Path, Path]:
    """Return (queries, judgements) that are read for `--queries` and `--qrels`: by default beside the catalog, the
    judgements beside the queries (queries_photo.jsonl goes with qrels_photo.trec, else BEIR's qrels/test.tsv).
    """
    queries = queries or root / "queries.jsonl"
    if qrels is not None:
        return queries, qrels
    beside = queries.with_name(queries.stem.replace("queries", "qrels") + ".trec")
    beir = queries.with_name("qrels") / "test.tsv"
    return queries, beir if beir.is_file() and not beside.is_file() else beside


def build_task(work: Workspace, documents: list[Document], spec: TaskSpec, rows: RowMaker) -> Task:
    """Make the task over the catalog's `documents`. Raises as the protocols do, UsageError for what can't go
    together.
    """
    chosen, shares = work.settings.eval, work.settings.split
    task = whole_task(work, documents, spec, rows)
    protocol, hide = task.protocol, frozenset([task.label] if task.label else [])
    if chosen.label.strip() and protocol not in ("coarse", "composed"):
        raise UsageError(f"--label is for coarse and composed, not for {protocol}", "leave it out")
    if spec.split is None:
        task = unseen(task, spec.seen)
    else:
        task = task if spec.split == "all" else of_split(task, spec.split, shares)
        task = noting_seen(task, spec.seen)
    task = sampled(task, chosen.max_queries, chosen.seed)
    task = with_query_fields(task, chosen.query_fields or ("title" if protocol == "text" else "all"))
    gallery_fields = chosen.gallery_fields or ("photos" if protocol == "text" else "all")
    viewed = with_views(with_gallery_fields(task, gallery_fields, hide, rows), rows.views)
    return with_known_attributes(viewed, documents, work, rows.views)


def whole_task(work: Workspace, documents: list[Document], spec: TaskSpec, rows: RowMaker) -> Task:
    """Make the task before its queries are chosen by split or by what was seen.

    Without a `protocol`: the first that the catalog offers (`protocols.offered`) and that can ask anything. Where a
    split is chosen, or what checkpoints have not seen, `first_to_judge_by` chooses: few duplicates in a small shop
    would leave identity no queries.
    """
    if spec.protocol:
        return _made(spec.protocol, work, documents, spec, rows)
    offers = offered(documents, *judged_files(work.folder.root, spec.queries, spec.qrels))
    plain = spec.split == "all" or (spec.split is None and not spec.seen.names)
    made: dict[str, Task] = {}

    def counted() -> Iterator[tuple[str, int]]:
        """Yield each protocol with the number of products that its queries are about."""
        for protocol in offers:
            try:
                made[protocol] = _made(protocol, work, documents, spec, rows)
                narrow = with_query_fields(made[protocol], work.settings.eval.query_fields or "all")
            except DataError:
                if protocol == "queries" and protocol not in made:  # a faulty file is an error, not passed over
                    raise
                yield protocol, 0
            else:
                yield (
                    protocol,
                    _products(narrow, narrow.queries) if plain else _judged(narrow, spec, work.settings.split),
                )

    protocol = first_to_judge_by(counted(), 1 if plain else LEAST_PRODUCTS)
    return made.get(protocol) or _made(protocol, work, documents, spec, rows)


def _judged(task: Task, spec: TaskSpec, shares: SplitSettings) -> int:
    """Count how many products `task` asks about where it asks about the fewest: of the validation and of the test
    split, so that evaluations by either take the same protocol, and of what `spec` asks about.
    """
    sides: list[Split] = [side for side in ("validation", "test") if getattr(shares, side) != 0]
    sides += [spec.split] if spec.split and spec.split not in (*sides, "all") else []  # type: ignore[list-item]
    counts = [_products(task, about_split(task, side, shares)) for side in sides]
    if spec.split is None:
        counts.append(_products(task, not_seen(task, spec.seen)))
    return min(counts)


def _products(task: Task, queries: Sequence[Query]) -> int:
    return len(set(groups_of(task, [query.id for query in queries if task.qrels[query.id]])))


def _made(protocol: str, work: Workspace, documents: list[Document], spec: TaskSpec, rows: RowMaker) -> Task:
    chosen = work.settings.eval
    gallery = gallery_of(documents, parse_filters(spec.gallery, "--gallery"))
    label = chosen.label.strip().casefold().removeprefix("attr_")
    if protocol == "identity":
        return identity_task(documents, gallery)
    if protocol == "photo":
        return photo_task(gallery, rows)
    if protocol == "fine":
        return fine_task(documents, gallery, rows)
    if protocol == "coarse":
        return coarse_task(gallery, label, chosen.max_queries, chosen.seed)
    if protocol == "text":
        return text_task(gallery)
    if protocol == "composed" and not (spec.queries or spec.qrels):
        return composed_task(gallery, label)
    return _file_task(work, documents, gallery, replace(spec, protocol=protocol), rows)


def tuning_task(work: Workspace, task: Task, documents: list[Document], spec: TaskSpec, rows: RowMaker) -> Task | None:
    """Make queries as those of `task`, over the same gallery, about products of the validation split; at most
    TUNING_QUERIES. None where there are none, or where `task` asks about those products itself.
    """
    settings = work.settings
    if about_split(task, "validation", settings.split):
        return None
    unsampled = settings.model_copy(update={"eval": settings.eval.model_copy(update={"max_queries": 0})})
    every = replace(spec, protocol=task.protocol, split="all", seen=Seen())
    whole = build_task(work.with_settings(unsampled), documents, every, rows)
    queries = sample(about_split(whole, "validation", settings.split), TUNING_QUERIES, settings.eval.seed)
    return replace(whole, queries=queries, qrels={q.id: whole.qrels[q.id] for q in queries}) if queries else None


def _file_task(
    work: Workspace, documents: Sequence[Document], gallery: list[Document], spec: TaskSpec, rows: RowMaker
) -> Task:
    level = work.settings.eval.min_grade
    if is_published(spec.queries):
        if spec.qrels is not None:
            raise UsageError(f"{spec.queries} has its targets in it", "leave --qrels out")
        asked, targets = read_published(spec.queries, documents)
        task = queries_task(asked, targets, gallery)
        splits = {query.id.rpartition("-")[0]: len(query.within or ()) for query in asked}
        sizes = ", ".join(f"{name} {number:,}" for name, number in splits.items())
        return replace(task, protocol="composed", notes=[*task.notes, f"searched in their own splits: {sizes}"])
    queries, qrels = judged_files(work.folder.root, spec.queries, spec.qrels)
    if spec.qrels is None and queries.is_file() and not qrels.is_file():
        raise DataError(f"{qrels}: no judgements beside {queries.name}", "give them with --qrels FILE")
    paths = ImagePaths(queries.parent, work.settings.catalog)

    def image_path(cell: str) -> Path:
        try:
            return paths.find(cell)
        except ImageProblem as problem:
            raise ValueError(problem.reason) from problem

    ids, composed = {document.id for document in documents}, spec.protocol == "composed"
    asked = read_queries(queries, image_path, (lambda query: fault_of(query, ids)) if composed else None)
    judged = read_qrels(qrels, {query.id for query in asked}, ids)
    if composed:
        task = queries_task(without_reference(asked, judged, documents, rows), judged, gallery, level)
        return replace(task, protocol="composed")
    if qrels.suffix != ".tsv":
        return queries_task(asked, judged, gallery, level)
    # BEIR keeps the queries of all splits in one file: those of another split are left out.
    kept = [query for query in asked if query.id in judged]
    task = queries_task(kept, judged, gallery, level)
    others = len(asked) - len(kept)
    return replace(task, notes=[*task.notes, f"{others:,} queries are not judged in {qrels.name}"]) if others else task
