"""One evaluation from settings to figures: read, build the task, let each system answer, score, keep."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog.fingerprints import Fingerprinter
from ..catalog.images import ImagePaths, ImageProblem
from ..catalog.problems import Problems
from ..errors import DataError, UsageError
from ..listener import Listener
from ..retrieval.encode import Encoder
from ..retrieval.filters import parse_filters
from ..retrieval.vectors import AttributeSource, described_products, load_vectors, stored_attributes
from ..settings import Settings
from ..store.checkpoints import versions
from ..store.database import Database
from ..store.files import write_json, writing
from ..store.folder import CatalogFolder
from ..store.runs import new_run
from .metrics import Evaluation, Run, check_metric, evaluate, metric_names
from .protocols import (
    Described,
    Protocol,
    Task,
    gallery_of,
    identity_task,
    offered,
    photo_task,
    queries_task,
    sampled,
)
from .systems import Kitchen, SystemRun, bm25_run, embedder_run, histogram_run
from .trec import read_qrels, read_queries, write_qrels, write_run

NAMED_QUERIES = 5


@dataclass(frozen=True)
class Wanted:
    """What to evaluate: `protocol` None is what the catalog offers; `gallery` are `key=value` filters; `thresholds`
    what the embedder's figures must reach.
    """

    protocol: Protocol | None = None
    queries: Path | None = None
    qrels: Path | None = None
    gallery: tuple[str, ...] = ()
    baselines: bool = False
    thresholds: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Report:
    """A finished evaluation: `content` is the JSON document, `runs` the rankings by system, `folder` keeps both."""

    content: dict[str, Any]
    runs: dict[str, Run]
    notes: list[str]
    folder: Path

    def failed(self) -> list[str]:
        """What did not reach its threshold, in words."""
        return [
            f"{check['metric']} is {check['value']:.4f}, below {check['threshold']:g}"
            for check in self.content["checks"]
            if not check["passed"]
        ]


def parse_thresholds(written: Sequence[str]) -> dict[str, float]:
    """`["recall@10=0.7"]` -> {"recall@10": 0.7}; UsageError for an unknown metric or a number not between 0 and 1."""
    thresholds: dict[str, float] = {}
    for pair in written:
        name, equals, number = pair.partition("=")
        if not equals:
            raise UsageError(f"--fail-under {pair}: not of the form METRIC=X", "for example recall@10=0.7")
        try:
            threshold = float(number)
        except ValueError:
            raise UsageError(f"--fail-under {pair}: {number!r} is no number", "for example recall@10=0.7") from None
        if not 0 <= threshold <= 1:
            raise UsageError(f"--fail-under {pair}: {number} is not between 0 and 1", "for example recall@10=0.7")
        thresholds[check_metric(name.strip().lower())] = threshold
    return thresholds


def measure(
    folder: CatalogFolder,
    settings: Settings,
    wanted: Wanted,
    embedder_id: str,
    load: Callable[[], Encoder],
    source: AttributeSource | None,
    listener: Listener,
) -> Report:
    """Evaluate the embedder, and the baselines when asked for.

    Raises DataError when the catalog or the files don't offer what is asked, or when no query has a relevant product;
    ModelError when the catalog has not been embedded with this embedder.
    """
    started = time.monotonic()
    vectors = load_vectors(folder, embedder_id, settings)
    problems = Problems()
    with Database(folder.database) as database, Fingerprinter(database) as fingerprinter:
        described = list(described_products(folder, settings, database, source, problems))
        task = _task(described, folder, settings, wanted, fingerprinter)
        texts = stored_attributes(database, source, [query.fingerprint for query in task.queries if query.fingerprint])
    kitchen = Kitchen(folder, settings, problems, listener)
    answers = [embedder_run(task, vectors, load, texts, kitchen)]
    if wanted.baselines:
        answers += [bm25_run(task, settings.eval.depth), histogram_run(task, kitchen)]
    names = list(dict.fromkeys([*metric_names(settings.eval.ks), *(wanted.thresholds or {})]))
    scored = [evaluate(answer.run, task.qrels, names, settings.eval.min_grade) for answer in answers]
    if not scored[0].means:
        raise DataError("no query has a relevant product in the gallery", "look at the qrels, --gallery and min_grade")
    problems.tell(listener)
    notes = [*task.notes, *_notes(task, answers, scored[0], texts, settings)]
    content = {
        "catalog": str(folder.catalog),
        "protocol": task.protocol,
        "embedder": embedder_id,
        "enrich": settings.embed.enrich,
        "gallery": len(task.documents),
        "gallery_filters": list(wanted.gallery),
        "queries": scored[0].queries,
        "queries_without_relevant": scored[0].without_relevant,
        "min_grade": settings.eval.min_grade,
        "depth": settings.eval.depth,
        "systems": [
            {"system": answer.system, "readable": _readable(answer, each), "metrics": each.means}
            for answer, each in zip(answers, scored, strict=True)
        ],
        "checks": [
            {"metric": name, "threshold": least, "value": value, "passed": value >= least}
            for name, least in (wanted.thresholds or {}).items()
            for value in [scored[0].means[name]]
        ],
        "notes": notes,
        "seconds": round(time.monotonic() - started, 3),
    }
    runs: dict[str, Run] = {answer.system: answer.run for answer in answers}
    kept = _keep(folder, settings, content, task, runs, scored[0])
    return Report({**content, "folder": str(kept)}, runs, notes, kept)


def _task(
    described: Described, folder: CatalogFolder, settings: Settings, wanted: Wanted, fingerprinter: Fingerprinter
) -> Task:
    beside = folder.root / "queries.jsonl"
    gallery = gallery_of(described, parse_filters(wanted.gallery, "--gallery"))
    protocol = wanted.protocol or offered(described, beside)
    if protocol == "identity":
        task = identity_task(described, gallery)
    elif protocol == "photo":
        task = photo_task(gallery, fingerprinter, folder.root)
    else:
        queries = wanted.queries or beside
        qrels = wanted.qrels or queries.with_name(queries.stem.replace("queries", "qrels") + ".trec")
        paths = ImagePaths(queries.parent, settings.catalog)

        def image_path(cell: str) -> Path:
            try:
                return paths.find(cell)
            except ImageProblem as problem:
                raise ValueError(problem.reason) from problem

        rows = read_queries(queries, image_path)
        judged = read_qrels(qrels, {row.id for row in rows}, {product.id for product, _ in described})
        task = queries_task(rows, judged, gallery)
    return sampled(task, settings.eval.max_queries, settings.eval.seed)


def _readable(answer: SystemRun, scored: Evaluation) -> int:
    """Of the queries that count, how many the system could read."""
    return len(answer.readable & next(iter(scored.per_query.values())).keys())


def _notes(
    task: Task, answers: Sequence[SystemRun], scored: Evaluation, texts: Mapping[str, str], settings: Settings
) -> list[str]:
    notes: list[str] = []
    if without := scored.without_relevant:
        named = ", ".join(without[:NAMED_QUERIES]) + (", ..." if len(without) > NAMED_QUERIES else "")
        notes.append(f"{len(without):,} queries have no relevant product and are left out of the means: {named}")
    if unreadable := [query.id for query in task.queries if query.id not in answers[0].readable]:
        notes.append(f"{len(unreadable):,} queries could not be read and count as not found: {unreadable[0]}, ...")
    if task.protocol == "identity" and settings.embed.enrich != "none":
        bare = sum(query.fingerprint not in texts for query in task.queries)
        if bare:
            notes.append(f"{bare:,} of {len(task.queries):,} queries have no stored attributes: run `afmrl attributes`")
    return notes


def _keep(
    folder: CatalogFolder,
    settings: Settings,
    content: Mapping[str, Any],
    task: Task,
    runs: Mapping[str, Run],
    scored: Evaluation,
) -> Path:
    kept = new_run(folder.runs, "eval")
    write_json(kept / "settings.json", settings.model_dump())
    write_json(kept / "metrics.json", {"schema": "afmrl.eval/1", **content, "versions": versions()})
    write_qrels(kept / "qrels.trec", task.qrels)
    for system, run in runs.items():
        write_run(kept / f"run-{system}.trec", run, system)
    with writing(kept / "per_query.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for query in task.queries:
            if query.id in next(iter(scored.per_query.values())):
                figures = {name: figure[query.id] for name, figure in scored.per_query.items()}
                file.write(json.dumps({"qid": query.id, "type": query.kind, **figures}, ensure_ascii=False) + "\n")
    return kept
