"""Does a reranker put the right product first? The nano model on rendered shops, one shop a seed.

    python -m benchmarks.rerank run WORK [--seeds 0,1,2,3,4] [--products 200] [--first 10] [--set KEY=VALUE ...]
    python -m benchmarks.rerank table WORK

`run` draws a shop (every product listed twice, the second time with other words and a phone's photos; two styles in
three have colour variants), computes its vectors with the built-in embedder, trains a reranker, and scores the test
split once: the embedder alone, and its first results reranked. The step and the weight of the fusion are chosen on the
validation split. The control is trained in the same way on groups whose right product is drawn at random. Killed, the
same command goes on; a finished seed is read, not run.

`table` reads what is there. ± is the standard deviation over seeds; the first interval of a difference is 95 % over
products (the randomisation test of `afmrl eval`, products of all shops together), the second 95 % over seeds (Student).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from afmrl_cli.by_model import with_values_by_model
from afmrl_cli.catalog.splits import with_shares
from afmrl_cli.cli.output import Output
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.compare import differences
from afmrl_cli.evaluation.entries import RERANKED, Entry
from afmrl_cli.evaluation.metrics import evaluate
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.evaluation.task import groups_of
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.rerank.groups import Group, Groups
from afmrl_cli.rerank.run import train_rerank
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

METRICS = ("recall@1", "recall@5")
SYSTEMS = ("embedder", "reranked", "control")
CONTROL = 1000
"""Is added to the seed of the control: another run."""


def run(place: Path, seeds: Sequence[int], products: int, first: int, flags: Mapping[str, object]) -> None:
    """Draw, train and score each seed, then the controls."""
    out = Output()
    for kind in ("seed", "control"):
        for seed in seeds:
            file = place / f"{kind}-{seed}.json"
            if file.is_file():
                out.note(f"{file}: is there")
                continue
            began = time.monotonic()
            root = place / f"shop-{seed}"
            plan = ShopPlan(products, seed, variants=0.7, duplicates=1.0, phone=True, text_queries=0, photo_queries=0)
            shop = write_shop(root, plan)
            own = {"rerank.seed": seed + (CONTROL if kind == "control" else 0), "rerank.candidates": first}
            settings = with_values_by_model(load_settings(root, {**own, "search.rerank": first, **flags}))
            settings = settings.model_copy(update={"split": with_shares(settings.split, len(shop.listings))})
            work = Workspace(CatalogFolder(root / "catalog.csv"), settings, out)
            with out, shuffled_labels() if kind == "control" else nullcontext():
                embed_catalog(work)
                trained = train_rerank(work)
                found = _scores(work, trained.checkpoint)
            told = {"seed": seed, "validation": trained.details["metrics"], "training_seconds": trained.seconds}
            write_json(file, {**told, **found, "seconds": time.monotonic() - began})


@contextmanager
def shuffled_labels() -> Iterator[None]:
    """Run the block with groups of which any listing is taken for the right one."""
    plain = Groups.__getitem__

    def shuffled(self: Groups, position: int) -> Group:
        group = plain(self, position)
        order = np.random.default_rng((CONTROL, position)).permutation(len(group.targets))
        return replace(group, targets=tuple(group.targets[i] for i in order))

    Groups.__getitem__ = shuffled  # type: ignore[method-assign]
    try:
        yield
    finally:
        Groups.__getitem__ = plain  # type: ignore[method-assign]


def _scores(work: Workspace, checkpoint: str) -> dict[str, Any]:
    """Values of each test query by system, with the product that it is about, and what reranking took."""
    settings = work.settings
    model = settings.model.model_copy(update={"reranker_checkpoint": checkpoint})
    chosen = work.with_settings(settings.model_copy(update={"model": model}))
    report = measure(chosen, EvalRequest(TaskSpec(split="test"), (Entry(RERANKED, "", RERANKED),)))
    queries = [query.id for query in report.task.queries]
    values = {}
    for system in SYSTEMS[:2]:
        found = evaluate(report.runs[system], report.task.qrels, METRICS, settings.eval.min_grade).per_query
        values[system] = [[found[metric][query] for metric in METRICS] for query in queries]
    cost = next(note for note in report.notes if note.startswith(RERANKED))
    protocol = report.content["protocol"]
    return {"values": values, "groups": groups_of(report.task, queries), "cost": cost, "protocol": protocol}


def table(place: Path) -> None:
    runs = [_read(file) for file in sorted(place.glob("seed-*.json"))]
    means = {name: np.array([np.mean(each["values"][name], axis=0) for each in runs]) for name in SYSTEMS}
    queries = sum(len(each["groups"]) for each in runs)
    minutes = sum(each["seconds"] for each in runs) / 60
    print(f"{len(runs)} shops, {queries} test queries ({runs[0]['protocol']}), {minutes:.0f} min in all\n")
    heads = ["system", *METRICS, "change of R@1, points", "95 % over products", "95 % over seeds"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in SYSTEMS:
        cells = [name, *(_spread(100 * means[name][:, i]) for i in range(len(METRICS)))]
        print(f"| {' | '.join([*cells, *(_change(runs, name) if name != SYSTEMS[0] else ['', '', ''])])} |")
    print()
    for each in runs:
        found = each["validation"]
        print(
            f"seed {each['seed']}: validation hit@1 {found['hit@1_embedder']:.3f} -> {found['hit@1']:.3f} (alone "
            f"{found['hit@1_reranker']:.3f}), weight {found['weight']:g}, auc {found['auc']:.3f}, position bias "
            f"{found['position_bias']:.2f}, flipped {found['flipped']:.3f}; control's auc "
            f"{each['control']['auc']:.3f}, weight {each['control']['weight']:g}; training "
            f"{each['training_seconds']:.0f} s; {each['cost']}"
        )


def _read(file: Path) -> dict[str, Any]:
    """Return what was found of a seed, with its control's."""
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    control = json.loads(file.with_name(file.name.replace("seed", "control")).read_text("utf-8"))
    found["values"]["control"], found["control"] = control["values"]["reranked"], control["validation"]
    return found | {"seconds": found["seconds"] + control["seconds"]}


def _change(runs: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Change of R@1 to the embedder alone in points, and its intervals."""
    ours, theirs = (np.concatenate([each["values"][key] for each in runs])[:, :1] for key in (name, SYSTEMS[0]))
    groups = [f"{each['seed']} {group}" for each in runs for group in each["groups"]]
    [found] = differences(["recall@1"], ours, theirs, groups, draws=2000, confidence=0.95, seed=0)
    apart = [100 * float(np.mean(np.subtract(each["values"][name], each["values"][SYSTEMS[0]])[:, 0])) for each in runs]
    over_products = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    if len(apart) < 2:
        return [f"{np.mean(apart):+.2f}", over_products, ""]
    half = float(stats.t.ppf(0.975, len(apart) - 1) * np.std(apart, ddof=1) / len(apart) ** 0.5)
    return [f"{np.mean(apart):+.2f}", over_products, f"{np.mean(apart) - half:+.2f} to {np.mean(apart) + half:+.2f}"]


def _spread(values: Any) -> str:
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("--seeds", default="0,1,2,3,4")
    start.add_argument("--products", type=int, default=200)
    start.add_argument("--first", type=int, default=10)
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.work)
        return
    flags = dict(each.split("=", 1) for each in wanted.set)
    run(wanted.work, [int(seed) for seed in wanted.seeds.split(",")], wanted.products, wanted.first, flags)


if __name__ == "__main__":
    main()
