"""What training for composed queries brings, and each part of it: on drawn shops over seeds, and on a real catalog.

    python -m benchmarks.composed run WORK --rendered 41,42,43,44,45 [--products 400]
    python -m benchmarks.composed run WORK --catalog DATA/luma --group style_id --label color --seeds 0,1,2
    python -m benchmarks.composed table WORK [--among validation]      # to choose by, or test

A query is the first photo of a variant and "colour: red", of which the variant in red is the answer, among all listings
(`eval --protocol composed`). Whole styles are train, validation or test, so that no query's answer was ever a target or
a negative. Attributes are the catalog's own columns. Queries come in two forms: with the reference's known attributes,
the change made in them, or as photo and change alone.

    zero-shot           the embedder as it is
    batch               the first stage alone
      without captions; of variants alone (no generated triplets), or with far ones; longer (half as many steps more,
      about what the second stage takes)
    control             the first stage with the change of another triplet: must lose
    bank                both stages; with perturbed captions
    ... alone           of zero-shot and of both stages: the change, the photo, or the edited attributes and no photo

The checkpoint of each run was chosen by the validation split's triplets; the test split is scored once, at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.splits import Split, split_of
from afmrl_cli.cli.output import Output
from afmrl_cli.composed.run import train_composed
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.composed import ALONE
from afmrl_cli.evaluation.entries import Entry
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.settings import SplitSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import hash_json, write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from afmrl_cli.triplets.run import make_triplets
from afmrl_cli.triplets.store import read_triplets, stored_manifest, write_triplets
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .stages_table import METRICS, Scores, change

Flags = Mapping[str, object]
SPLITS: tuple[Split, ...] = ("validation", "test")
SHOP: Flags = {
    "model.device": "cpu",
    "model.preset": "nano",
    "model.embedder_images": 1,
    "catalog.allow_outside": True,
    "split.validation": 0.15,
    "split.test": 0.4,
    "composed.batch_size": 32,
    "composed.steps": 40,
    "eval.resamples": 100,
}
"""Settings of all shops, that --set changes: half of the batch that so many triplets have by default."""
FORMS: Mapping[str, Flags] = {"known attributes": {}, "photo and change": {"search.known_attributes": False}}
EMBEDDER = "model.embedder_checkpoint"
BATCH: Mapping[str, Flags] = {
    "batch": {},
    "batch without captions": {"composed.caption_weight": 0.0},
    "batch, variants alone": {"composed.windows": ["variants"]},
    "batch, with far": {"composed.windows": ["variants", "near", "far"]},
    "longer batch": {"composed.steps": 60},
}
BANK: Mapping[str, Flags] = {"bank": {}, "bank, perturbed": {"composed.perturbed": 0.5}}
CONTROL = "control: another's change"
ROWS: Mapping[str, str] = {
    "zero-shot": "",
    "batch": "zero-shot",
    "batch without captions": "batch",
    "batch, variants alone": "batch",
    "batch, with far": "batch",
    "longer batch": "batch",
    CONTROL: "batch",
    "bank": "batch",
    "bank over longer batch": "longer batch",
    "bank over zero-shot": "zero-shot",
    "bank, perturbed": "bank",
    **{f"zero-shot, {name}": "zero-shot" for name in ALONE},
    **{f"bank, {name}": "bank" for name in ALONE},
}
"""What each row is compared with."""
SAME_SCORES = {"bank over longer batch": "bank", "bank over zero-shot": "bank"}


class Bench:
    """One shop with one seed of the training: `rows` by name, form and split: metrics of each query."""

    def __init__(self, folder: CatalogFolder, seed: int, flags: Flags, out: Output) -> None:
        self.folder, self.out = folder, out
        self.flags: dict[str, object] = {**SHOP, "composed.seed": seed, **flags}
        self.place = folder.runs / f"composed-{seed}"
        self.rows: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, str] = {}
        self.stages: dict[str, Any] = {}

    def work(self, **changes: object) -> Workspace:
        """Return a workspace with these settings on top."""
        return Workspace(self.folder, load_settings(self.folder.root, {**self.flags, **changes}, BUILT_IN), self.out)

    def train(self, row: str, **changes: object) -> str:
        """Train, and return the checkpoint; "" where the query side gained nothing on the validation split."""
        summary = train_composed(self.work(**changes))
        assert summary is not None
        self.stages[row] = summary.details["stages"]
        return summary.checkpoint

    def score(self, row: str, checkpoint: str, *, parts: bool = False) -> None:
        """Score both splits in both forms; with `parts` the parts of a query alone, too."""
        embed_catalog(self.work(**{EMBEDDER: checkpoint}))
        for form, changes in FORMS.items():
            halves = [name for name in ALONE if parts and not (changes and name == "attributes-alone")]
            entries = tuple(Entry(name, "", name) for name in halves)
            for split in SPLITS:
                place = self.place / f"{hash_json([row, form, split])[:12]}"
                shutil.rmtree(place, ignore_errors=True)
                spec = TaskSpec("composed", split=split)
                report = measure(self.work(**{EMBEDDER: checkpoint, **changes}), EvalRequest(spec, entries), place)
                for system, run in report.runs.items():
                    name = row if system == "embedder" else f"{row}, {system}"
                    found = evaluate(run, report.task.qrels, METRICS).per_query
                    queries = {
                        query.id: [found[metric][query.id] for metric in METRICS] for query in report.task.queries
                    }
                    self.rows.setdefault(name, {}).setdefault(form, {})[split] = queries
                self.groups |= {query.id: query.group for query in report.task.queries}
                mean = sum(each[0] for each in self.rows[row][form][split].values()) / len(report.task.queries)
                self.out.text(f"{self.folder.root.name} {row}, {form}, {split}: R@1 {mean:.3f}")

    def all_rows(self, wanted: Sequence[str]) -> None:
        """Train and score the rows that are wanted, all for none; `batch` is always one."""
        self.score("zero-shot", "", parts=True)
        first = ""
        for row, changes in BATCH.items():
            if first and wanted and row not in wanted:
                continue
            made = self.train(row, **{"composed.stages": "batch", **changes})
            first = first or made
            self.score(row, made)
        if not wanted or CONTROL in wanted:
            with exchanged(self.work()):
                made = self.train(CONTROL, **{"composed.stages": "batch"})
            self.score(CONTROL, made)
        for row, changes in BANK.items():
            if wanted and row not in wanted:
                continue
            made = self.train(row, **{"composed.stages": "bank", EMBEDDER: first, **changes})
            self.score(row, made or first, parts=row == "bank")


@contextlib.contextmanager
def exchanged(work: Workspace) -> Iterator[None]:
    """Let each stored training triplet have the change of another one."""
    with writer_lock(work.folder.store, "benchmark"):
        make_triplets(work, "train")
    manifest, own = stored_manifest(work.folder, "train"), list(read_triplets(work.folder, "train"))
    assert manifest is not None
    others = [own[i] for i in np.random.default_rng(0).permutation(len(own))]
    mixed = [
        replace(each, text=other.text, sentence=other.sentence, changed=other.changed)
        for each, other in zip(own, others, strict=True)
    ]
    write_triplets(work.folder, "train", mixed, manifest)
    try:
        yield
    finally:
        write_triplets(work.folder, "train", own, manifest)


def run(work: Path, shop: CatalogFolder, seed: int, flags: Flags, rows: Sequence[str]) -> None:
    """Do `rows` of a shop and a seed, if it is not there."""
    file = work / "results" / f"{shop.root.name}-{seed}-{hash_json(dict(flags))[:8]}.json"
    out = Output()
    if file.is_file():
        out.note(f"{file}: is there")
        return
    with out:
        bench = Bench(shop, seed, flags, out)
        bench.all_rows(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"shop": shop.root.name, "seed": seed, "set": dict(flags), "groups": bench.groups, "stages": bench.stages}
    write_json(file, {**content, "rows": bench.rows})


def drawn(work: Path, seed: int, products: int) -> CatalogFolder:
    """Draw a shop whose styles come in two or three colours, and divide it by style."""
    place = work / f"drawn-{seed}"
    if not (place / "catalog.csv").is_file():
        plan = ShopPlan(products, seed, 1.0, duplicates=0.0, leave_out=0.8, text_queries=0, photo_queries=0, size=224)
        write_shop(work / f"drawn-{seed}-whole", plan, processes=2)
        divide(work / f"drawn-{seed}-whole", place, "group_id")
    return CatalogFolder(place / "catalog.csv")


def divide(data: Path, place: Path, group: str) -> None:
    """Copy a catalog with ids of products by which whole styles (the column `group`) are of one split."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "images").exists():
        (place / "images").symlink_to((data / "images").resolve())
    split = SplitSettings(validation=float(str(SHOP["split.validation"])), test=float(str(SHOP["split.test"])))
    with (data / "catalog.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        style = row[group] or row["id"]
        wanted = split_of(Product(style, product_id=style), split)
        row["product_id"] = next(id for id in _ids(row["id"]) if split_of(Product(id, product_id=id), split) == wanted)
        row["group_id"] = style
    kept = [name for name in rows[0] if name not in ("split", "source_images", "style_id")]
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _ids(id: str) -> Iterator[str]:
    number = 0
    while True:
        yield f"{id}.{number}"
        number += 1


def table(work: Path, among: str) -> None:
    """Print the rows of each shop, and of all drawn ones together."""
    runs = [json.loads(path.read_text("utf-8")) for path in sorted((work / "results").glob("*.json"))]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for each in runs:
        kind = "drawn shops" if each["shop"].startswith("drawn-") else each["shop"]
        kinds.setdefault(f"{kind} {json.dumps(each['set'])}", []).append(each)
    for kind, own in kinds.items():
        for form in FORMS:
            number = len({(each["shop"], each["seed"]) for each in own})
            print(f"\n### {kind}, {form}: {number} runs, {among} split\n")
            heads = ["row", "R@1", "R@5", "R@10", "MRR", "over", "R@1 change", "95 % over styles", "95 % over runs"]
            print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
            for row, other in ROWS.items():
                mine = _scores(own, SAME_SCORES.get(row, row), form, among)
                theirs = _scores(own, other, form, among) if other else {}
                if not mine or (other and not theirs.keys() & mine.keys()):
                    continue
                means = [sum(values[:, i].mean() for values, _ in mine.values()) / len(mine) for i in range(4)]
                cells = [row, *(f"{100 * mean:.1f}" for mean in means), other]
                compared = sum(bool(each) for each in ROWS.values())
                cells += change(mine, theirs, compared) if other else ["", "", ""]
                print(f"| {' | '.join(cells)} |")


def _scores(runs: list[dict[str, Any]], row: str, form: str, among: str) -> Scores:
    """Return (metrics [queries, 4], each query with its style) by shop and seed."""
    found: Scores = {}
    for each in runs:
        queries = each["rows"].get(row, {}).get(form, {}).get(among, {})
        if queries:
            styles = [(query, f"{each['shop']} {each['groups'][query]}") for query in sorted(queries)]
            found[each["shop"], each["seed"]] = np.array([queries[query] for query in sorted(queries)]), styles
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("--rendered", default="", help="seeds of shops to draw, each with its own seed of the training")
    start.add_argument("--products", type=int, default=400)
    start.add_argument("--catalog", type=Path)
    start.add_argument("--group", default="group_id", help="column of the catalog that holds the style")
    start.add_argument("--label", default="")
    start.add_argument("--seeds", default="0,1,2")
    start.add_argument(
        "--rows", default="", help="trainings to do beside batch, such as 'bank; longer batch'; empty: all"
    )
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    show.add_argument("--among", choices=SPLITS, default="test")
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.work, wanted.among)
        return
    rows = [row.strip() for row in wanted.rows.split(";") if row.strip()]
    flags: dict[str, object] = dict(each.split("=", 1) for each in wanted.set)
    for seed in (int(each) for each in wanted.rendered.split(",") if each):
        run(wanted.work, drawn(wanted.work, seed, wanted.products), seed, {"eval.label": "colour", **flags}, rows)
    if wanted.catalog:
        place = wanted.work / wanted.catalog.name
        divide(wanted.catalog, place, wanted.group)
        flags |= {"eval.label": wanted.label} if wanted.label else {}
        for seed in wanted.seeds.split(","):
            run(wanted.work, CatalogFolder(place / "catalog.csv"), int(seed), flags, rows)


if __name__ == "__main__":
    main()
