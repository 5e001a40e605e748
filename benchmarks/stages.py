"""What each stage brings, on rendered shops and on real catalogs, over seeds: the table that decides the defaults.

    python -m benchmarks.stages run WORK --rendered details-31,details-32 --seeds 0,1,2 [--part losses]
    python -m benchmarks.stages run WORK --catalog DATA/luma --keys color,garment,pattern --sft [--set KEY=VALUE ...]
    python -m benchmarks.stages table WORK [--among validation]     # to choose by, or test
    python -m benchmarks.stages margins WORK                        # of each training's loss

`run` trains and scores in WORK, one folder a shop; killed, the same command goes on. A rendered shop has each product
twice: the photos of the second listing were taken by phone, and either listing asks for the other (protocol identity).
Styles come as variants, which differ in a detail such as the closure, or in the colour.
Of a real catalog `sft_catalogs` makes a copy that shows photos alone, or photos and titles. Split and queries are the
same for all seeds; those of training differ. What is there is not done again.

losses: all products of the training split
    base                the embedder as it is, without attributes; and with them on both sides
    InfoNCE             trained, all negatives alike
    constant margin     all negatives weigh e^1.5 as much: AGCL without attributes
    AGCL                negatives weigh by shared attributes, as by default; `graded`: over three nats
    + attributes        AGCL's embedder, which has seen attributes on half of its queries: now all queries carry some
    both sides          an embedder that has seen them on the gallery too, without any and with both
    ceilings            the catalog's own columns in place of the generator's; all photos of a listing in place of one
    controls            attributes of another product; both with the first seed alone
given: the losses with the catalog's own columns as attributes; `masked`: what is more like the query than its
positive is left out
folds: AGCL, attributes (both sides), RAR and the second round, each on products that the others have not seen

With --sft a generator is taught first (and one on each half, for the folds), since it doesn't know the catalog's keys.

What `table` and `margins` print: `stages_table`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.views import AttributeSource, open_views
from afmrl_cli.catalog.folds import Part
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import open_catalog, read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.output import Output
from afmrl_cli.cycle import stages
from afmrl_cli.cycle.checks import check_stages, choose_protocol, choose_targets
from afmrl_cli.cycle.folds import HALVES, FoldPlan, plan_folds
from afmrl_cli.cycle.plan import of_round
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.report import EvalRequest, measure, task_views
from afmrl_cli.nano.shop import ShopPlan, plan_listings, write_shop
from afmrl_cli.rar.run import RAR
from afmrl_cli.sft.run import SFT
from afmrl_cli.sft.targets import Target, open_source, read_target
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.files import hash_json, write_json, writing
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.corpus import training_views
from afmrl_cli.training.run import AGCL
from afmrl_cli.training.shell import Method
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .sft_catalogs import copy_catalog
from .stages_table import CLASSES, METRICS, margins, table

SPLITS: tuple[stages.Scored, ...] = ("validation", "test")
TRUE, SHUFFLED = "the catalog's own columns", "another product's attributes"
SHOP: Mapping[str, object] = {
    "model.device": "cpu",
    "model.generator_images": 1,
    "model.embedder_images": 1,
    "split.validation": 0.1,
    "split.test": 0.3,
    "agcl.batch_size": 16,
    "agcl.steps": 30,
    "agcl.validate_every": 10,
    "rar.query": "listings",
    "rar.validation_queries": 60,
}
"""Settings of all catalogs that --set changes."""
DRAWN = ShopPlan(duplicates=1.0, phone=True, size=224, text_queries=0, photo_queries=0)
EMBEDDER, GENERATOR, ENRICH = "model.embedder_checkpoint", "model.generator_checkpoint", "embed.enrich"
Flags = Mapping[str, object]
FORMS: Mapping[str, Flags] = {
    "InfoNCE": {"agcl.loss": "infonce"},
    "constant margin": {"agcl.weights": "constant"},
    "AGCL": {},
    "AGCL graded": {"agcl.weights": "graded"},
}
PartName = Literal["losses", "given", "folds"]


@dataclass
class Described(Workspace):
    """A workspace whose attributes are those stored under a name that is no generator's."""

    described_by: str = field(default="", kw_only=True)

    @cached_property
    def source(self) -> AttributeSource:
        own = super().source
        return replace(own, generator=self.described_by) if self.described_by else own


class Bench:
    """One shop with one seed of the trainings: what is trained, and `scores` by row of the table."""

    def __init__(self, folder: CatalogFolder, seed: int, flags: Flags, out: Output) -> None:
        self.folder, self.out, self.place = folder, out, folder.runs / f"stages-{seed}-{hash_json(dict(flags))[:8]}"
        self.flags: dict[str, object] = {**SHOP, **{f"{section}.seed": seed for section in ("agcl", "rar")}, **flags}
        chosen = choose_protocol(self.work())
        self.flags["cycle.protocol"] = chosen.cycle.protocol or ""
        self.scores: dict[str, dict[str, Any]] = {}
        self.margins: dict[str, Any] = {}
        self.refusals: list[str] = []

    def work(self, flags: Flags = MappingProxyType({}), part: Part | None = None, by: str = "") -> Described:
        """Return a workspace with these settings on top; `by` are whose attributes, not the generator's own."""
        settings = load_settings(self.folder.root, {**self.flags, **flags}, BUILT_IN)
        return Described(self.folder, settings, self.out, part=part, described_by=by)

    def train(self, method: Method, work: Workspace) -> str:
        """Train, and return the checkpoint's name; "" where no step was worth keeping."""
        made = stages.train(method, work)
        if method is AGCL:
            self.margins[str(made["checkpoint"])] = made.get("nearest_margin")
        if "refused" in made:
            self.refusals.append(str(made["refused"]))
        return str(made["checkpoint"])

    def score(self, row: str, work: Workspace) -> None:
        """Score both splits: means, each query's metrics, and class metrics of the embedder."""
        found: dict[str, Any] = {}
        for split in SPLITS:
            name = "".join(each if each.isalnum() else "-" for each in row)
            place = self.place / f"{name}-{split}"
            shutil.rmtree(place, ignore_errors=True)
            try:
                made = stages.score(work, split, place, (None, None))
            except DataError as error:
                self.out.warn(f"{row}, {split}: {error}")
                continue
            rows = [json.loads(line) for line in (place / "per_query.jsonl").read_text("utf-8").splitlines()]
            queries = {each["qid"]: [each[name] for name in METRICS] for each in rows}
            found[split] = {"metrics": made["metrics"], "queries": queries, "protocol": made["protocol"]}
        if work.settings.embed.enrich == "none" and work.settings.model.embedder_images:
            found["classes"] = classes(work, self.place / "split.csv")
        self.scores[row] = found
        shown = {split: round(found[split]["metrics"]["recall@1"], 3) for split in SPLITS if split in found}
        self.out.text(f"{self.folder.root.name} {row}: {shown}")


def classes(work: Workspace, labels: Path) -> dict[str, float]:
    """Return class metrics of an embedder over the listings of the test split, category words hidden."""
    labels.parent.mkdir(parents=True, exist_ok=True)
    with writing(labels) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "side"])
        for product in read_products(work.folder, work.settings.catalog, Problems()):
            writer.writerow([product.id, split_of(product, work.settings.split)])
    chosen = work.settings.eval.model_copy(update={"labels": str(labels.resolve()), "compare": [], "max_drop": []})
    work = work.with_settings(work.settings.model_copy(update={"eval": chosen}))
    try:
        report = measure(work, EvalRequest(TaskSpec("coarse", gallery=("side=test",))))
    except (DataError, UsageError) as error:  # no listing has a category, or too few have
        work.listener.warn(f"no class metrics: {error}")
        return {}
    shutil.rmtree(report.folder)
    metrics = report.content["systems"][0]["classes"]["metrics"]
    return {name: metrics[name] for name in CLASSES if name in metrics}


def score_part(bench: Bench, part: PartName, sft: bool, ceilings: bool) -> None:
    """Train and score every row of a part; ceilings and controls only with `ceilings`."""
    if part == "given":
        _given_rows(bench)
        return
    plan = _plan(bench, sft)
    generator, halves = _teach(bench, plan) if sft else ("", ())
    _describe(bench, plan, generator, halves)
    if part == "folds":
        _fold_rows(bench, plan, generator, halves)
    else:
        _loss_rows(bench, generator, ceilings)


def _given_rows(bench: Bench) -> None:
    """Train and score by each loss with the catalog's own columns as attributes, which no generator can get wrong."""
    bench.score("base", bench.work({ENRICH: "none"}))
    for name, form in {**FORMS, "AGCL masked": {"agcl.mask": True}}.items():
        made = bench.train(AGCL, bench.work({ENRICH: "none", "agcl.attributes": "given", **form}))
        bench.score(f"given: {name}", bench.work({EMBEDDER: made, ENRICH: "none"}))


def _loss_rows(bench: Bench, generator: str, ceilings: bool) -> None:
    """Train and score by each loss on all products of the training split; then what attributes add."""
    named: Flags = {GENERATOR: generator}

    def score(row: str, embedder: str, enrich: str = "none", by: str = "", photos: int = 1) -> None:
        flags = {EMBEDDER: embedder, ENRICH: enrich, "model.embedder_images": photos}
        bench.score(row, bench.work({**named, **flags}, by=by))

    score("base", "")
    made: dict[str, str] = {}
    for name, form in FORMS.items():
        made[name] = bench.train(AGCL, bench.work({**named, "agcl.validation_enrich": "none", **form}))
        score(name, made[name])
    agcl = made["AGCL"]
    score("+ attributes (query)", agcl, "query")
    both = bench.train(AGCL, bench.work({**named, ENRICH: "both"}))
    score("both sides: plain", both)
    score("both sides: attributes", both, "both")
    if ceilings:
        score("base, attributes (both)", "", "both")
        score("ceiling: true (query)", agcl, "query", TRUE)
        score("control: another's (query)", agcl, "query", SHUFFLED)
        score("ceiling: all photos", agcl, photos=0)
        score("ceiling: true (both)", both, "both", TRUE)
        score("control: another's (both)", both, "both", SHUFFLED)


def _fold_rows(bench: Bench, plan: FoldPlan, generator: str, halves: tuple[str, ...]) -> None:
    """Train and score AGCL, RAR and the second round, each on products of its own; attributes on both sides."""
    if plan.folds is None:
        raise DataError(f"no folds: {' '.join(plan.notes)}", "take a larger catalog")
    generators = (generator, *halves) if halves else ()
    last: dict[str, object] = {GENERATOR: generator, ENRICH: "both"}
    last[EMBEDDER] = bench.train(AGCL, bench.work(last, plan.agcl(1, generators)))
    bench.score("folds: AGCL", bench.work({**last, ENRICH: "none"}))
    bench.score("folds: + attributes", bench.work(last))
    for number in range(1, plan.rounds + 1):
        settings = bench.work(last).settings
        if number > 1:
            changed = {f"agcl.{key}": each for key, each in of_round(settings, AGCL, number, divided=True).items()}
            last[EMBEDDER] = bench.train(AGCL, bench.work({**last, **changed}, plan.agcl(number, generators)))
            bench.score(f"folds: round {number} AGCL", bench.work(last))
        changed = {f"rar.{key}": each for key, each in of_round(settings, RAR, number, divided=True).items()}
        changed["rar.from_base"] = not last[GENERATOR]
        if rewarded := bench.train(RAR, bench.work({**last, **changed}, plan.rar())):
            last[GENERATOR] = rewarded
            stages.write_attributes(bench.work(last), SPLITS)
        bench.score("folds: RAR" if number == 1 else f"folds: round {number} RAR", bench.work(last))


def _plan(bench: Bench, sft: bool) -> FoldPlan:
    work = bench.work({"cycle.folds": "auto", "cycle.iterations": 2, "cycle.sft": "auto" if sft else "no"})
    targets = choose_targets(work)
    plan = plan_folds(work, lambda plan: check_stages(work, targets, plan))
    bench.out.note(plan.describe() or str(plan.notes))
    return plan


def _teach(bench: Bench, plan: FoldPlan) -> tuple[str, tuple[str, ...]]:
    """Teach a generator on what AGCL learns from, and one on each half of it."""
    source = {"sft.source": choose_targets(bench.work())}
    whole = bench.train(SFT, bench.work(source, plan.part(HALVES)))
    if plan.folds is None:
        return whole, ()
    return whole, tuple(bench.train(SFT, bench.work(source, plan.part((half,)))) for half in HALVES)


def _describe(bench: Bench, plan: FoldPlan, generator: str, halves: tuple[str, ...]) -> None:
    """Write the generator's attributes of all that asks and is searched, and beside them those of the ceilings."""
    work = bench.work({ENRICH: "both", GENERATOR: generator})
    stages.write_attributes(work, SPLITS)
    for half, other in zip(HALVES, reversed(halves), strict=True) if halves else ():
        stages.write_attributes(bench.work({ENRICH: "both", GENERATOR: other}, plan.part((half,))), SPLITS)
    views = [*read_products(work.folder, work.settings.catalog, Problems()), *training_views(work)]
    views += [view for split in SPLITS for view in task_views(work, stages.task_spec(work.settings, split))]
    true, rng = _true_attributes(bench), np.random.default_rng(0)
    with open_views(work, work.source) as stored:
        prints = stored.fingerprints(views)
        texts = stored.texts(prints)
        own = {each: view for view, each in zip(views, prints, strict=True) if each}
        rows: list[StoredAttributes] = []
        for each, view in own.items():
            others = [texts[other] for other in rng.permutation(sorted(texts))[:20] if own[other].id != view.id]
            for name, said in ((TRUE, true.get(view.id, "")), (SHUFFLED, others[0] if others else "")):
                if said:
                    rows.append(StoredAttributes(each, name, work.source.prompt, view.id, said, None, 0.0))
        stored.database.put_attributes(rows)
    bench.out.note(f"{len(own):,} views, {len(texts):,} with attributes, {len(true):,} listings with true ones")


def _true_attributes(bench: Bench) -> dict[str, str]:
    """Return the attribute text of the catalog's own columns by listing."""
    work = bench.work({"sft.source": "columns"})
    found: dict[str, str] = {}
    with work.database() as database, open_catalog(work.folder, work.settings.catalog, Problems()) as catalog:
        source = open_source(work, catalog, database, "")
        for product in catalog.products:
            text, _ = source.raw(product, None)
            target = read_target(text, product, work.task, source.keys)
            if isinstance(target, Target):
                found[product.id] = write_attributes(target.pairs)
    return found


# What is run


def run(
    work: Path,
    shop: CatalogFolder,
    seed: int,
    part: PartName,
    flags: Flags,
    *,
    sft: bool,
    ceilings: bool,
) -> None:
    """Do a part of the table for a shop and a seed, if it is not there."""
    file = work / "results" / f"{shop.root.name}-{seed}-{hash_json(dict(flags))[:8]}-{part}.json"
    out = Output()
    if file.is_file():
        out.note(f"{file}: is there")
        return
    with out:
        bench = Bench(shop, seed, flags, out)
        score_part(bench, part, sft, ceilings)
    products = read_products(shop, bench.work().settings.catalog, Problems())
    content = {
        "shop": shop.root.name,
        "seed": seed,
        "set": dict(flags),
        "margins": bench.margins,
        "refusals": bench.refusals,
    }
    content |= {"identities": {each.id: each.identity for each in products}, "phones": phones(shop)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**content, "rows": bench.scores})


def rendered(work: Path, name: str, products: int) -> CatalogFolder:
    """Draw the shop `name`, such as details-7: whose variants differ in a detail, with the seed 7."""
    place = work / name
    write_shop(place, shop_plan(name, products), processes=2)
    (place / "plan.json").write_text(json.dumps({"name": name, "products": products}), "utf-8")
    return CatalogFolder(place / "catalog.csv")


def shop_plan(name: str, products: int) -> ShopPlan:
    """Return the plan of a drawn shop: what its variants differ in, and its seed."""
    kind, _, seed = name.partition("-")
    if kind == "details":
        return replace(DRAWN, products=products, seed=int(seed), details=True, variants=1.0, leave_out=0.8)
    return replace(DRAWN, products=products, seed=int(seed), variants=0.6, leave_out=0.7)


def phones(shop: CatalogFolder) -> list[str]:
    """Return the listings whose photos were taken by phone; none of a shop that was not drawn."""
    file = shop.root / "plan.json"
    if not file.is_file():
        return []
    return [each.id for each in plan_listings(shop_plan(**json.loads(file.read_text("utf-8")))) if each.shots[0].phone]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("--rendered", default="", help="shops to draw: details-SEED or colours-SEED")
    start.add_argument("--products", type=int, default=300)
    start.add_argument("--catalog", type=Path, help="a real catalog: these are as of benchmarks.sft_catalogs")
    start.add_argument("--show", choices=("photo", "title"), default="photo")
    start.add_argument("--keys", default="")
    start.add_argument("--identity", default="product_id")
    start.add_argument("--seeds", default="0,1,2,3,4")
    start.add_argument("--part", choices=get_args(PartName))
    start.add_argument("--sft", action="store_true")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    show.add_argument("--among", choices=SPLITS, default="test")
    commands.add_parser("margins").add_argument("work", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.work, wanted.among)
    elif wanted.command == "margins":
        margins(wanted.work)
    else:
        flags = dict(each.split("=", 1) for each in wanted.set)
        shops = [rendered(wanted.work, name, wanted.products) for name in wanted.rendered.split(",") if name]
        if wanted.catalog:
            keys = [key for key in wanted.keys.split(",") if key]
            shops.append(copy_catalog(wanted.catalog, wanted.work, wanted.show, keys, wanted.identity))
            flags = {"catalog.allow_outside": True, "catalog.columns.product_id": "product_id", **flags}
        seeds = [int(seed) for seed in wanted.seeds.split(",")]
        for part in [wanted.part] if wanted.part else get_args(PartName):
            for seed in seeds:
                for shop in shops:
                    run(wanted.work, shop, seed, part, flags, sft=wanted.sft, ceilings=seed == seeds[0])


if __name__ == "__main__":
    main()
