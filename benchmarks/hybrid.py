"""The tables of docs/lab/search.md: the hybrid search beside each of its parts.

    python -m benchmarks.hybrid DATA WORK [NAME ...] [--presets light,nano]

DATA holds a folder a catalog (its layout: docs/lab/evidence.md), each copied into WORK without its attr_* columns,
which are its ground truth; `drawn` is a shop that is drawn there, with attributes that nano has written, 300 typed
queries and 300 photo queries. A quarter of the products is the validation split, which chooses the weights, half is the
test split, which is scored once. Typed queries that are about products of both choose them half by half
(`evaluation.hybrid`).

Printed is Markdown: recall@1 and nDCG@10 with their intervals (Wilson's, over products), and nDCG@10 less that of the
best part by itself, with the interval of the paired difference over products, corrected for both metrics. Rows:

    hybrid                    with weights that other queries chose
    hybrid, defaults          with those of a catalog that can choose none
    hybrid, parts of others   the control: words, values and colours are those of other listings, in both steps
    vectors, words, ...       each part alone
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.compare import differences, table_of
from afmrl_cli.evaluation.entries import parse_entries
from afmrl_cli.evaluation.metrics import Run, evaluate
from afmrl_cli.evaluation.report import EvalRequest, Report, measure
from afmrl_cli.evaluation.task import groups_of
from afmrl_cli.intervals import interval
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.hybrid import Floats, Gallery, Scaled, scaled_scores
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN
from benchmarks.figures import record
from benchmarks.light import CATALOGS, JUDGED_ALONE, PHOTOS, Table, leave_judged

METRICS = ("recall@1", "ndcg@10")
DRAWN = "drawn"
TABLES: Mapping[str, Sequence[Table]] = {
    **CATALOGS,
    "grocery": (
        Table("Phone photo → packshot", eval=PHOTOS),
        Table("Phone photo → listing with text", eval={"eval.query_fields": "photos"}),
    ),
    DRAWN: (
        Table("Typed words → product", "queries.jsonl", (), "test", {"eval.query_fields": "text"}),
        Table("Photo → product", "queries.jsonl", (), "test", {"eval.query_fields": "photos"}),
        Table("Listing → the same product", gallery=()),
    ),
}
HYBRID = "**hybrid**"
SYSTEMS = ("embedder", "bm25", "bm25-attributes", "colors")
NAMES = {"embedder": "vectors", "bm25": "words", "bm25-attributes": "attributes", "colors": "coarse colours"}


def run(data: Path, work: Path, preset: str, names: Iterable[str], products: int) -> None:
    """Measure the catalogs and print their tables as they are done."""
    for name in names:
        place = work / preset / name
        if not place.exists():
            _copied(data, place, name, products)
        print(f"### {name}, {preset}\n", flush=True)
        settings = _workspace(place, preset, {})
        if name == DRAWN and preset == "nano":
            subprocess.run([sys.executable, "-m", "afmrl_cli", "attributes", "--quiet"], cwd=place, check=True)
        embed_catalog(settings)
        for table in TABLES[name]:
            try:
                print("\n".join([*_markdown(name, preset, table, place), ""]), flush=True)
            except DataError as error:
                print(f"{table.title}: {error}\n", flush=True)


def _copied(data: Path, place: Path, name: str, products: int) -> None:
    """Copy a catalog without its ground truth, or draw one."""
    if name == DRAWN:
        write_shop(place, ShopPlan(products=products, seed=77, text_queries=products // 2, photo_queries=products // 2))
    else:
        shutil.copytree(data / name, place, ignore=shutil.ignore_patterns(".afmrl"))
        if name == JUDGED_ALONE:
            leave_judged(place)
    for path in (place, place / "catalog.csv"):
        path.chmod(path.stat().st_mode | 0o200)
    with (place / "catalog.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kept = [i for i, column in enumerate(head) if not column.startswith("attr_")]
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[row[i] for i in kept] for row in (head, *rows)])


def _workspace(place: Path, preset: str, flags: Mapping[str, str]) -> Workspace:
    own = {"model.preset": preset, "split.test": "0.5", "split.validation": "0.25", **flags}
    return Workspace(CatalogFolder(place / "catalog.csv"), load_settings(None, own, BUILT_IN), Silent())


def _markdown(name: str, preset: str, table: Table, place: Path) -> list[str]:
    queries = place / table.queries if table.queries else None
    protocol = "queries" if queries else "identity"
    spec = TaskSpec(protocol, queries, gallery=table.gallery, split=table.split)
    work = _workspace(place, preset, table.eval)
    found = measure(work, EvalRequest(spec, tuple(parse_entries(["hybrid"], True))))
    runs = {HYBRID: found.runs["hybrid"]}
    with patch("afmrl_cli.evaluation.hybrid.LEAST_PRODUCTS", 10**9):
        runs["hybrid, defaults"] = _hybrid_alone(work, spec)
    with patch("afmrl_cli.evaluation.hybrid.scaled_scores", _scores_of_others):
        runs["hybrid, parts of others"] = _hybrid_alone(work, spec)
    parts = {NAMES.get(system, system): found.runs[system] for system in SYSTEMS if found.runs.get(system)}
    metrics = _Metrics(found, work)
    best = max(parts, key=lambda part: metrics.mean(parts[part]))
    content = found.content
    [own] = [system for system in content["systems"] if system["system"] == "hybrid"]
    asked = f"{content['queries']:,} queries about {content['groups']:,} products, gallery {content['gallery']:,}"
    chosen = "; ".join(_weights(each) for each in own["hybrid"] or ())
    ours, theirs = metrics.mean(runs[HYBRID]), metrics.mean(parts[best])
    record(f"{name}, {preset}: nDCG@10 of hybrid, {table.title}", ours, theirs)
    head = "| system | recall@1 | | nDCG@10 | | less the best part |"
    lines = [f"**{table.title}**, {asked}. {chosen}.", "", head, "| --- | ---: | --- | ---: | --- | --- |"]
    for shown, run in {**runs, **parts}.items():
        apart = "" if shown == best else metrics.apart(run, parts[best])
        lines.append("| " + " | ".join([shown, *metrics.cells(run), apart]) + " |")
    return lines


def _weights(chosen: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{part} {weight:g}" for part, weight in chosen["weights"].items())
    by = f"by {chosen['tuned_on']:,} queries of {chosen['source']}" if chosen["tuned_on"] else "defaults"
    return f"{chosen['kind']}: {shares} ({by})"


def _hybrid_alone(work: Workspace, spec: TaskSpec) -> Run:
    return measure(work, EvalRequest(spec, tuple(parse_entries(["hybrid"], False)))).runs["hybrid"]


@dataclass(frozen=True)
class _OfOthers:
    """A part of the gallery that says of each listing what is true of another one."""

    part: Any

    def scores(self, query: Any) -> Floats:
        scores: Floats = self.part.scores(query)
        return scores[np.random.default_rng(0).permutation(len(scores))]


def _scores_of_others(gallery: Gallery, *rest: Any) -> Scaled:
    """Score as `scaled_scores` does, by parts but vectors that are of other listings."""
    parts = {name: getattr(gallery, name) for name in ("words", "named", "colors")}
    others: Any = {name: _OfOthers(part) if part is not None else None for name, part in parts.items()}
    return scaled_scores(replace(gallery, **others), *rest)


@dataclass(frozen=True)
class _Metrics:
    """The metrics of rankings of one evaluation."""

    found: Report
    work: Workspace

    def cells(self, run: Run) -> list[str]:
        """Return each metric with its interval."""
        values, groups = self._table(run)
        ends, cells = interval(values, groups, self.work.settings.eval.confidence), list[str]()
        for mean, (low, high) in zip(values.mean(axis=0), ends.T.tolist(), strict=True):
            cells += [f"{mean:.3f}", f"{low:.3f} to {high:.3f}"]
        return cells

    def apart(self, run: Run, other: Run) -> str:
        """Return what nDCG@10 of one run is ahead of another's."""
        (ours, groups), (theirs, _), chosen = self._table(run), self._table(other), self.work.settings.eval
        found = differences(
            METRICS, ours, theirs, groups, draws=chosen.resamples, confidence=chosen.confidence, seed=chosen.seed
        )[1]
        return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"

    def mean(self, run: Run) -> float:
        """Return nDCG@10."""
        return float(self._table(run)[0][:, 1].mean())

    def _table(self, run: Run) -> tuple[NDArray[np.float64], list[str]]:
        """Return the metrics of each query [q, m], and which product it is about."""
        per_query = evaluate(run, self.found.task.qrels, METRICS, self.work.settings.eval.min_grade).per_query
        queries = list(next(iter(per_query.values())))
        return table_of(per_query, queries), groups_of(self.found.task, queries)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", choices=[*TABLES, []], help="all by default")
    parser.add_argument("--presets", default="light,nano")
    parser.add_argument("--products", type=int, default=600, help="of the drawn shop")
    given = parser.parse_args()
    for preset in given.presets.split(","):
        run(given.data, given.work, preset, given.names or list(TABLES), given.products)


if __name__ == "__main__":
    main()
