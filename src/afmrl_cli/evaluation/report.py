"""One evaluation from settings to metrics: build the task, let each system rank, score, compare, keep."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..attributes.views import QUERIES, AttributeSource, open_views
from ..catalog.problems import Problems
from ..catalog.product import Product, product_text
from ..errors import DataError, UsageError
from ..models.backends import photos_alone, reads_photos, reads_text
from ..retrieval.vectors import RowMaker, described_products, load_vectors
from ..settings import EvalSettings, Settings
from ..store.checkpoints import versions
from ..store.files import write_json, writing, writing_folder
from ..store.runs import new_run
from ..workspace import Workspace
from .answers import Answering
from .build import TaskSpec, build_task, labels_file, tuning_task, whole_task
from .composed import is_composed
from .composed_metrics import CUTS, ComposedFacts, composed_facts, composed_metrics
from .earlier import Earlier, find_run
from .entries import Entry, needs_attributes
from .labels import read_labels
from .metrics import Evaluation, Run, best_possible, metric_names
from .score import Scored, compare_all, queries_of, score, slice_metrics, system_metrics
from .slices import check_slices
from .systems import (
    EMBEDDER,
    VISION_ENCODER,
    RetrievalSystem,
    SystemRun,
)
from .task import Document, Query, Task, as_product, documents_of, groups_of, variants_of
from .thresholds import check_cuts, floor_checks, parse_thresholds
from .trec import write_qrels, write_run

SCHEMA = "afmrl.eval/2"
NAMED_QUERIES = 5
ASKING_IN_WORDS = ("text", "composed")
"""Protocols of which a vision encoder can read no query, or half of each."""
SHAPING = ("query_fields", "label", "labels", "max_queries", "seed")
"""Settings that decide what queries show."""


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate: the task, the rows of the table beside the embedder, and what its metrics must reach."""

    spec: TaskSpec = field(default_factory=TaskSpec)
    entries: tuple[Entry, ...] = ()
    thresholds: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Report:
    """A finished evaluation: `content` is the JSON document, `runs` the rankings by system, `folder` keeps both."""

    content: dict[str, Any]
    runs: dict[str, Run]
    notes: list[str]
    folder: Path
    task: Task
    variants: dict[str, frozenset[str]]
    per_query: Mapping[str, Mapping[str, float]]

    @property
    def own(self) -> Run:
        """Return the ranking of what embeds, the first row."""
        return next(iter(self.runs.values()))

    def failed(self) -> list[str]:
        """Return what did not pass its check, in words."""
        return [check["message"] for check in self.content["checks"] if not check["passed"]]


def measure(work: Workspace, request: EvalRequest, place: Path | None = None) -> Report:
    """Evaluate the embedder and the systems beside it.

    The report is kept in the new folder `place`, by default in one under the runs. Raises DataError when the catalog or
    the files don't offer what is requested, or when no query has a relevant product; ModelError when the catalog has
    not been embedded with this embedder; UsageError for settings that can't go together.
    """
    started = time.monotonic()
    folder, settings, listener = work.folder, work.settings, work.listener
    drops = parse_thresholds(settings.eval.max_drop, "--max-drop")
    if drops and not settings.eval.compare:
        raise UsageError("--max-drop needs a run to compare with", "add --compare RUN")
    vectors, embed, problems = load_vectors(work), settings.embed, Problems()
    source = work.source_on_disk if needs_attributes(settings, request.entries) else None
    task, tuning, texts = _tasks(work, request, source, problems)
    in_words = reads_text(settings)
    if not in_words and task.protocol in ASKING_IN_WORDS:
        raise photos_alone(settings, f"protocol {task.protocol} asks with words")
    own = RetrievalSystem(
        EMBEDDER if in_words else VISION_ENCODER,
        work.embedder_id,
        work.embedder,
        text=in_words,
        photos=reads_photos(settings, listener),
        query_instruction=work.embed.query_instruction,
        target_instruction=work.embed.target_instruction,
        stored=vectors,
        attributes=texts,
    )
    wished = [*(request.thresholds or {}), *drops]
    names = list(dict.fromkeys([*metric_names(settings.eval.ks), *wished]))
    notes = check_cuts(names, wished, len(task.documents), settings.eval.depth)
    slices = check_slices(task, settings.eval.slices)
    earlier = [find_run(each, folder, task, settings.eval.depth) for each in settings.eval.compare]
    merged = [find_run(each, folder, task, settings.eval.depth) for each in settings.eval.merge]
    answers, left_out = Answering(work, task, tuning, own, problems).all(request.entries)
    scored = [score(answer, task, names, settings, merged if i == 0 else ()) for i, answer in enumerate(answers)]
    evaluation = scored[0].evaluation
    if not evaluation.means:
        raise DataError("no query has a relevant product in the gallery", "check the qrels, --gallery and min_grade")
    if not answers[0].readable.intersection(queries_of(evaluation)):
        problems.tell(listener)
        hint = (
            "see `afmrl check`"
            if in_words
            else "the vision encoder reads photos alone: --protocol photo asks with them"
        )
        raise DataError(f"the {own.name} can read none of the queries, or nothing of the gallery", hint)
    possible = best_possible(task.qrels, names, settings.eval.min_grade)
    composed = composed_facts(task, own, answers[0], work, problems)
    problems.tell(listener)
    notes += [*task.notes, *left_out, *_notes(task, request.spec, answers, evaluation, texts, settings)]
    variants = variants_of(task, settings.eval.min_grade)
    listener.progress("statistics", 0, None)
    comparisons, checks = compare_all(scored, earlier, task, names, drops, settings)
    content = {
        "catalog": str(folder.catalog),
        "protocol": task.protocol,
        "embedder": work.embedder_id,
        "enrich": embed.enrich if in_words else "none",
        "attributes": asdict(source) if source else None,
        **_task_facts(task, request.spec, evaluation, variants, settings),
        "possible": possible,
        "systems": [_system(each, task, variants, composed, settings) for each in scored],
        "composed": composed.describe() if composed else None,
        "comparisons": comparisons,
        "slices": _varied({key: slice_metrics(key, scored[0], task, variants, settings) for key in slices}, settings),
        "checks": [*floor_checks(request.thresholds or {}, evaluation.means, possible), *checks],
        "notes": notes,
        "seconds": round(time.monotonic() - started, 3),
    }
    notes += _comparison_notes([*earlier, *merged], content, settings)
    runs: dict[str, Run] = {answer.system: answer.run for answer in answers}
    kept = place or new_run(folder.runs, "eval")
    with contextlib.nullcontext(kept) if place is None else writing_folder(place) as temporary:
        _keep(temporary, settings, content, task, runs, evaluation)
    return Report({**content, "folder": str(kept)}, runs, notes, kept, task, variants, evaluation.per_query)


def _system(
    scored: Scored,
    task: Task,
    variants: Mapping[str, frozenset[str]],
    composed: ComposedFacts | None,
    settings: Settings,
) -> dict[str, Any]:
    """Return a system's part of the document, with the metrics of composed queries where they are."""
    content = system_metrics(scored, task, variants, settings)
    if composed is None or not content["readable"]:
        return {**content, "composed": None}
    runs = [scored.answer.run, *scored.others]
    return {**content, "composed": composed_metrics(runs, task, composed, settings.eval)}


def _tasks(
    work: Workspace, request: EvalRequest, source: AttributeSource | None, problems: Problems
) -> tuple[Task, Task | None, dict[str, str]]:
    """Make the task, the queries that weights are tuned on (None: no others), and attribute texts by the fingerprints
    of queries and listings.
    """
    with open_views(work, source) as views:
        rows = RowMaker(work, views)
        documents = _documents(work, rows, problems)
        task = build_task(work, documents, request.spec, rows)
        tuning = None
        if any(entry.kind in ("fusion", "hybrid") for entry in request.entries):
            tuning = tuning_task(work, task, documents, request.spec, rows)
        queries = [*task.queries, *(tuning.queries if tuning else ())]
        prints = [*(q.fingerprint for q in queries), *(d.row.fingerprint for d in task.documents)]
        texts = views.texts(prints)
        views.tell(work.listener)
        return task, tuning, texts


def _task_facts(
    task: Task, spec: TaskSpec, evaluation: Evaluation, variants: Mapping[str, frozenset[str]], settings: Settings
) -> dict[str, Any]:
    """Return what the document says of the queries and the gallery, and how they are measured."""
    counted = list(queries_of(evaluation))
    return {
        "split": task.split,
        "seen": spec.seen.describe(task),
        "gallery": len(task.documents),
        "gallery_filters": list(spec.gallery),
        "query_fields": task.query_fields,
        "gallery_fields": task.gallery_fields,
        "label": task.label,
        "queries": evaluation.queries,
        "groups": len(set(groups_of(task, counted))),
        "queries_without_relevant": evaluation.without_relevant,
        "queries_with_variants": sum(query in variants for query in counted),
        "min_grade": settings.eval.min_grade,
        "depth": settings.eval.depth,
        "confidence": settings.eval.confidence,
        "resamples": settings.eval.resamples,
    }


def task_views(work: Workspace, spec: TaskSpec) -> list[Product]:
    """List what the queries show, and with `enrich = both` what the gallery shows, where that is not a whole listing:
    the views that the generator has to describe beside the catalog. Raises as `measure`.
    """
    with open_views(work, None) as stored:
        rows = RowMaker(work, stored)
        documents = _documents(work, rows, Problems())
        task = build_task(work, documents, spec, rows)
        views = [as_product(query) for query in task.queries]
        if work.settings.embed.enrich == "both":
            views += [document.product for document in task.documents]
        known = {document.row.fingerprint for document in documents}
        prints = stored.fingerprints(views)
    return [view for view, each in zip(views, prints, strict=True) if each not in known]


def query_views(work: Workspace, names: Sequence[str]) -> list[Product]:
    """List the `task_views` of all splits that `names` of `attributes.views` ask for: `queries` are those that `afmrl
    eval` takes by itself, and those of queries.jsonl beside the catalog; `queries:PROTOCOL` those of that protocol.
    """
    protocols: list[str | None] = [name.partition(":")[2] or None for name in names if name.split(":")[0] == QUERIES]
    if None in protocols and (work.folder.root / "queries.jsonl").is_file():
        protocols.append("queries")
    specs = [TaskSpec(protocol, split="all") for protocol in dict.fromkeys(protocols)]
    views = [view for spec in specs for view in task_views(work, spec)]
    return list({(view.id, product_text(view), view.images): view for view in views}.values())


def _how_to_describe(task: Task, queries: Sequence[Query], spec: TaskSpec, settings: Settings) -> str:
    """Return the command that writes the attributes of `queries`, in words."""
    listings = task.protocol != "queries" and all(query.kind == "listing" for query in queries)
    if listings and task.query_fields == "all" and not task.label:
        return "run `afmrl attributes`"
    if spec.queries or spec.qrels:
        return f"`afmrl attributes --views {QUERIES}` writes those of queries.jsonl and qrels.trec beside the catalog"
    views = QUERIES if task.protocol == "queries" else f"{QUERIES}:{task.protocol}"
    given, usual = settings.eval, EvalSettings()
    chosen = {name: getattr(given, name) for name in SHAPING if getattr(given, name) != getattr(usual, name)}
    more = "".join(f" --set {shlex.quote(f'eval.{name}={value}')}" for name, value in chosen.items())
    return f"run `afmrl attributes --views listing,{views}{more}`"


def independent_queries(work: Workspace, spec: TaskSpec) -> tuple[str, int]:
    """Find the protocol, and how many products the queries of `spec` are about; 0 where the catalog offers queries, and
    none of its split, or none about products that were not seen.

    Raises as `measure` where it offers none at all.
    """
    with open_views(work, None) as stored:
        rows = RowMaker(work, stored)
        documents = _documents(work, rows, Problems())
        protocol = whole_task(work, documents, spec, rows).protocol
        chosen = replace(spec, protocol=protocol)
        build_task(work, documents, replace(chosen, split="all"), rows)
        try:
            task = build_task(work, documents, chosen, rows)
        except DataError:
            return protocol, 0
    return protocol, len(set(groups_of(task, [query.id for query in task.queries if task.qrels[query.id]])))


def _documents(work: Workspace, rows: RowMaker, problems: Problems) -> list[Document]:
    described = list(described_products(work, rows, problems))
    file = labels_file(work.settings, work.folder.root)
    ids = {product.id for product, _ in described}
    return documents_of(described, read_labels(file, ids, problems.add) if file else None)


def _varied(slices: dict[str, list[dict[str, Any]]], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Keep of `--slices all` only those with more than one value: the others repeat the first table."""
    if "all" not in settings.eval.slices:
        return slices
    return {key: rows for key, rows in slices.items() if len(rows) > 1 or key in settings.eval.slices}


def _notes(
    task: Task,
    spec: TaskSpec,
    answers: Sequence[SystemRun],
    scored: Evaluation,
    texts: Mapping[str, str],
    settings: Settings,
) -> list[str]:
    notes: list[str] = []
    if is_composed(task) and settings.eval.depth < CUTS[-1]:
        notes.append(f"R@{CUTS[-1]} looks no further than eval.depth = {settings.eval.depth}")
    if without := scored.without_relevant:
        named = ", ".join(without[:NAMED_QUERIES]) + (", ..." if len(without) > NAMED_QUERIES else "")
        notes.append(f"{len(without):,} queries have no relevant product and are left out of the means: {named}")
    if unreadable := [query.id for query in task.queries if query.id not in answers[0].readable]:
        notes.append(f"{len(unreadable):,} queries could not be read and count as not found: {unreadable[0]}, ...")
    bare = [query for query in task.queries if not query.attributes and query.fingerprint not in texts]
    if bare and settings.embed.enrich != "none" and reads_text(settings):
        notes.append(
            f"{len(bare):,} of {len(task.queries):,} queries have no attributes that were written from what they show, "
            f"and go without: {_how_to_describe(task, bare, spec, settings)}"
        )
    return notes


def _comparison_notes(runs: Sequence[Earlier], content: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return what a reader of the comparisons must know: runs made otherwise, and draws too few to show anything."""
    notes = [f"{run.name} was made with {words}" for run in runs if (words := run.differs(content))]
    return notes


def _keep(
    kept: Path,
    settings: Settings,
    content: Mapping[str, Any],
    task: Task,
    runs: Mapping[str, Run],
    scored: Evaluation,
) -> None:
    write_json(kept / "settings.json", settings.model_dump())
    write_json(kept / "metrics.json", {"schema": SCHEMA, **content, "versions": versions()})
    write_qrels(kept / "qrels.trec", task.qrels)
    for system, run in runs.items():
        write_run(kept / f"run-{system}.trec", run, system)
    with writing(kept / "per_query.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for query in task.queries:
            if query.id in next(iter(scored.per_query.values())):
                values = {name: by_query[query.id] for name, by_query in scored.per_query.items()}
                file.write(json.dumps({"qid": query.id, "type": query.kind, **values}, ensure_ascii=False) + "\n")
