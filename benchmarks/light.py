"""The tables of docs/lab/light.md: the preset `light` beside what it is made of and BM25.

    python -m benchmarks.light DATA WORK [NAME ...]

DATA holds a folder a catalog (its layout: docs/lab/evidence.md); each is copied into WORK, where what has been computed
is taken up again. Half of the products are the test split (split.test = 0.5): their photos, titles and pairs teach
nothing, and the queries are about them (typed queries, which teach nothing, are asked all). Every system answers the
same queries:

    light          as it comes, fitted to the other half
    MiniLM         its texts alone; EfficientNet: its photos alone
    BM25, colours  as in `afmrl eval`

Printed is Markdown: recall@1 with its interval (Wilson's, over products) and recall@10; then whether light differs from
each of the others at both (one test, corrected, over products). nano stands in docs/lab/evidence.md.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.catalog.pictures import Picture
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.entries import parse_entries
from afmrl_cli.evaluation.metrics import Run
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.evaluation.systems import RetrievalSystem, vector_run
from afmrl_cli.evaluation.trec import write_run
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Cache
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.light import LightFeatures
from afmrl_cli.models.light_fit import read_fit
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN
from benchmarks.real_catalogs import read_arguments

METRICS = ("recall@1", "recall@10")
ALONE = {"MiniLM": "text", "EfficientNet": "photo"}
JUDGED_ALONE = "chorus_icecat"
"""Of 19,406 products the 2,500 that people have judged: what nobody judged counts as wrong."""
NAMES = {"embedder": "light", "bm25": "BM25", "colors": "colours"}


@dataclass(frozen=True)
class Table:
    """One table: its title, the queries' file ("": listings of the catalog ask), and settings of `eval`."""

    title: str
    queries: str = ""
    gallery: tuple[str, ...] = ("split=gallery",)
    split: Literal["test", "all"] = "test"
    eval: Mapping[str, str] = field(default_factory=dict)


PHOTOS = {"eval.query_fields": "photos", "eval.gallery_fields": "photos"}
CATALOGS: Mapping[str, Sequence[Table]] = {
    "luma": (
        Table("One photo → its variant", "queries_photo.jsonl"),
        Table("Listing → the same variant", "queries.jsonl"),
    ),
    "myntra": (Table("Title → photo", "queries.jsonl", (), "test", {"eval.gallery_fields": "photos"}),),
    "grocery": (Table("Phone photo → packshot", eval=PHOTOS),),
    "text_abtbuy": (Table("Listing → the other shop's", "queries.jsonl"),),
    "text_amazongoogle": (Table("Listing → the other shop's", "queries.jsonl"),),
    "text_wdc_computers": (Table("Offer → offers of other shops", "queries.jsonl", ()),),
    "chorus_icecat": (Table("Typed query → product, judged products alone", "queries.jsonl", (), "all"),),
}


def run(data: Path, work: Path, names: Iterable[str]) -> None:
    """Measure the catalogs and print their tables as they are done."""
    for name in names:
        place = work / name
        if not place.exists():
            shutil.copytree(data / name, place, ignore=shutil.ignore_patterns(".afmrl"))
            if name == JUDGED_ALONE:
                leave_judged(place)
        started = time.monotonic()
        light = _embedded(place, {})
        fit = read_fit(light.folder.light)
        print(
            f"### {name}\n\nFit: {fit.facts}; weights {fit.weights}; {time.monotonic() - started:.0f} s\n", flush=True
        )
        for table in CATALOGS[name]:
            try:
                print("\n".join([*_markdown(table, _measured(place, table)), ""]), flush=True)
            except DataError as error:
                print(f"{table.title}: {error}\n", flush=True)


def leave_judged(place: Path) -> None:
    """Leave the products in the copied catalog that the judgements are about."""
    judged = {line.split()[2] for line in (place / "qrels.trec").read_text("utf-8").splitlines()}
    file = place / "catalog.csv"
    with file.open(newline="", encoding="utf-8") as source:
        reader = csv.DictReader(source)
        rows, columns = [row for row in reader if row["id"] in judged], list(reader.fieldnames or [])
    file.chmod(0o644)
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, columns)
        writer.writeheader()
        writer.writerows(rows)


def _workspace(place: Path, flags: Mapping[str, str]) -> Workspace:
    own = {"model.preset": "light", "split.test": "0.5", "split.validation": "0.1", **flags}
    return Workspace(CatalogFolder(place / "catalog.csv"), load_settings(None, own, BUILT_IN), Silent())


def _embedded(place: Path, flags: Mapping[str, str]) -> Workspace:
    embed_catalog(_workspace(place, flags))
    return _workspace(place, flags)


def _measured(place: Path, table: Table) -> Mapping[str, Any]:
    """Return the report of light with all others beside it."""
    queries = place / table.queries if table.queries else None
    spec = TaskSpec("queries" if queries else "identity", queries, gallery=table.gallery, split=table.split)
    work = _embedded(place, table.eval)
    report, runs = measure(work, EvalRequest(spec)), dict[str, Run]()
    cache = Cache(work.folder.cache, work.settings.cache, work.listener)
    for name, block in ALONE.items():
        alone = Alone(LightFeatures(work.settings, cache), block)
        system = RetrievalSystem(name, alone.id, partial(_itself, alone), block == "text", block == "photo")
        runs[name] = vector_run(report.task, system, work, Problems()).run
    entries = ["bm25", "colors"]
    for name, ranking in runs.items():
        if ranking:
            write_run(report.folder / f"{name}.trec", ranking, name)
            entries.append(f"run:{report.folder / name}.trec")
    return measure(work, EvalRequest(spec, tuple(parse_entries(entries, False)))).content


def _itself(alone: Alone) -> Alone:
    return alone


class Alone:
    """One of the encoders of `light`, by the name of its features."""

    texts_cut = 0

    def __init__(self, features: LightFeatures, block: str) -> None:
        self.id, self._features, self._block = f"light-{block}-alone", features, block

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Open the photo at `path` as light does."""
        return self._features.load_image(path, catalog)

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] of the encoder."""
        made: NDArray[np.float32] = getattr(self._features.of(items), self._block)
        return made


def _markdown(table: Table, content: Mapping[str, Any]) -> list[str]:
    counted = f"{content['queries']:,} queries about {content['groups']:,} products, gallery of {content['gallery']:,}"
    lines = [f"{table.title}: {counted}; at most {content['possible']['recall@1']:.3f} at recall@1", ""]
    lines += ["| system | recall@1 | recall@10 | light against it |", "| --- | ---: | ---: | --- |"]
    against = {each["against"]: each for each in content["comparisons"]}
    for system in content["systems"]:
        name = str(system["system"])
        shown = NAMES.get(name, name.removeprefix("run-").removesuffix(".trec"))
        cells = ["-", "-"]
        if system["readable"]:
            cells = [_cell(system, metric) for metric in METRICS]
        lines.append("| " + " | ".join([shown, *cells, _verdict(against.get(name))]) + " |")
    return lines


def _cell(system: Mapping[str, Any], metric: str) -> str:
    low, high = system["intervals"][metric]
    return f"{system['metrics'][metric]:.3f} [{low:.3f}, {high:.3f}]"


def _verdict(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    said = {each["metric"]: each["verdict"] for each in comparison["differences"]}
    return ", ".join(f"{metric} {said[metric]}" for metric in METRICS if metric in said)


def main() -> None:
    """Read the command line and measure."""
    run(*read_arguments(__doc__, CATALOGS))


if __name__ == "__main__":
    main()
