"""The tables of docs/lab/search.md: the hybrid search beside each of its parts.

    python -m benchmarks.hybrid DATA WORK [--presets light,nano] [NAME ...]

DATA holds a folder a catalog (its layout: docs/lab/evidence.md), each copied into WORK without its attr_* columns,
which are its ground truth; `drawn` is a shop that is drawn there, with attributes that nano has written, 300 typed
queries and 300 photo queries. A quarter of the products is the validation split, which chooses the weights, half is the
test split, which is scored once. Typed queries that are about products of both choose them half by half
(`evaluation.hybrid`).

Printed is Markdown: recall@1 and nDCG@10 with their intervals (Wilson's, over products), and nDCG@10 of the hybrid
search less that of each part with the interval of the paired difference over products, corrected for both metrics; the
weights that were chosen; and what the same search reaches with the weights of a catalog that can choose none.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.compare import differences, table_of
from afmrl_cli.evaluation.entries import parse_entries
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.report import EvalRequest, Report, measure
from afmrl_cli.evaluation.task import groups_of
from afmrl_cli.intervals import interval
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.retrieval.embed import embed_catalog
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
SYSTEMS = ("bm25", "bm25-attributes", "colors")
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
    rows = [_row("hybrid", found, work)]
    rows += [_row(system, found, work) for system in ("embedder", *SYSTEMS) if found.runs.get(system)]
    untuned = _with_defaults(work, spec)
    content = found.content
    [own] = [system for system in content["systems"] if system["system"] == "hybrid"]
    asked = f"{content['queries']:,} queries about {content['groups']:,} products, gallery {content['gallery']:,}"
    chosen = "; ".join(_weights(each) for each in own["hybrid"] or ())
    best = max((row for row in rows[1:]), key=lambda row: float(row[3]))
    record(f"{name}, {preset}: nDCG@10 of hybrid, {table.title}", float(rows[0][3]), float(best[3]))
    head = "| system | recall@1 | | nDCG@10 | | hybrid less it |"
    lines = [f"**{table.title}**, {asked}. {chosen}.", "", head, "| --- | ---: | --- | ---: | --- | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return [*lines, f"| hybrid, defaults | {untuned[0]:.3f} | | {untuned[1]:.3f} | | |"]


def _weights(chosen: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{part} {weight:g}" for part, weight in chosen["weights"].items())
    by = f"by {chosen['tuned_on']:,} queries of {chosen['source']}" if chosen["tuned_on"] else "defaults"
    return f"{chosen['kind']}: {shares} ({by})"


def _row(system: str, found: Report, work: Workspace) -> list[str]:
    """Return the cells of a system: its metrics with intervals, and what the hybrid search is ahead of it."""
    task, level = found.task, work.settings.eval.min_grade
    own, hybrid_ = (evaluate(found.runs[name], task.qrels, METRICS, level) for name in (system, "hybrid"))
    names = list(next(iter(own.per_query.values())))
    groups, theirs = groups_of(task, names), table_of(own.per_query, names)
    ends = interval(theirs, groups, work.settings.eval.confidence)
    cells = [NAMES.get(system, system)]
    for (low, high), metric in zip(ends.T.tolist(), METRICS, strict=True):
        cells += [f"{own.means[metric]:.3f}", f"{low:.3f} to {high:.3f}"]
    if system == "hybrid":
        return [*cells, ""]
    ours, chosen = table_of(hybrid_.per_query, names), work.settings.eval
    apart = differences(
        METRICS, ours, theirs, groups, draws=chosen.resamples, confidence=chosen.confidence, seed=chosen.seed
    )[1]
    return [*cells, f"{apart.difference:+.3f} ({apart.low:+.3f} to {apart.high:+.3f})"]


def _with_defaults(work: Workspace, spec: TaskSpec) -> list[float]:
    """Return the metrics of the same search where nothing can be chosen."""
    with patch("afmrl_cli.evaluation.hybrid.LEAST_PRODUCTS", 10**9):
        found = measure(work, EvalRequest(spec, tuple(parse_entries(["hybrid"], False))))
    means = evaluate(found.runs["hybrid"], found.task.qrels, METRICS, work.settings.eval.min_grade).means
    return [means[metric] for metric in METRICS]


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
