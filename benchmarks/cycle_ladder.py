"""The stages of `afmrl cycle` on several shops with several seeds, beside the paper's gains.

    python -m benchmarks.cycle_ladder run WORK SHOP [SHOP ...] --seeds 0,1,2,3,4 [--set KEY=VALUE ...]
    python -m benchmarks.cycle_ladder table WORK [--among validation]    # to choose by, or test

`run` copies each shop's folder into WORK (what is there is taken up) and lets a cycle of two rounds with the InfoNCE
baseline run in it, once a seed: that of AGCL, SFT and RAR. Split and queries are the same for all seeds. A stage whose
score falls is accepted (`cycle.keep_worse`): seeds are compared stage by stage, so each must have all of them; --set
cycle.keep_worse=false accepts as a shop would. Killed, the same command goes on; a finished cycle is read, not run.

Accuracy (kNN and linear probe), NMI, ARI and purity are those of the test split's listings by category (protocol
coarse, category words hidden), percent. They are a matter of the embedder: attributes on queries do not touch them.

`table` reads what is there. ± is the standard deviation over seeds; the first interval of a change is 95 % over
products (paired bootstrap, figures of a query averaged over seeds), the second 95 % over seeds (Student's t). A change
is to the stage before; that of AGCL is to InfoNCE, as the paper's is to its fine-tuned baseline.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.output import Output
from afmrl_cli.cycle.run import run_cycle
from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.compare import differences
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import hash_json, write_json, writing
from afmrl_cli.store.folder import CatalogFolder, find_folder
from afmrl_cli.workspace import Workspace

RECALLS = ("recall@1", "recall@5", "recall@10")
CLASSES = ("knn_accuracy", "probe_accuracy", "nmi", "ari", "purity")
PAPER: Mapping[str, Mapping[str, float]] = {
    "AGCL": {"recall@1": 3.01, "knn_accuracy": 0.13, "nmi": 0.07, "ari": 0.05, "purity": 0.08},
    "SFT attributes": {"recall@1": 1.36, "knn_accuracy": 0.18, "nmi": 0.52, "ari": 1.80, "purity": 0.97},
    "RAR": {"recall@1": 1.86, "knn_accuracy": 0.02, "nmi": 0.05, "ari": 0.37, "purity": 0.31},
    "round 2: RAR": {"knn_accuracy": 1.13, "nmi": 1.29, "ari": 0.79, "purity": 1.46},
}
"""Gains over the row before, in points; the paper has no recall of its second round (CIT) and one accuracy."""


def run(work: Path, shops: Sequence[Path], seeds: Sequence[int], flags: Mapping[str, object]) -> None:
    out = Output()
    for shop in shops:
        place = work / shop.resolve().name
        if not place.exists():
            part = place.with_name(place.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(shop, part, ignore=shutil.ignore_patterns(".afmrl"))
            part.replace(place)
        folder = find_folder(place, lambda root: load_settings(root, dict(flags)).catalog.path)
        for seed in seeds:
            settings = _settings(folder, seed, flags)
            file = work / "results" / f"{place.name}-{seed}-{hash_json(dict(flags))[:8]}.json"
            if file.is_file():
                out.note(f"{file}: is there")
                continue
            out.note(f"{place.name}, seed {seed}")
            with out:
                summary = run_cycle(Workspace(folder, settings, out))
                made: dict[str, dict[str, float]] = {}
                for stage in summary.content["leaderboard"]:
                    if stage["embedder"] not in made:
                        made[stage["embedder"]] = _classes(folder, settings, stage, work / "results" / "split.csv", out)
            stages = [
                {
                    **{key: stage[key] for key in ("name", "against", "accepted", "note")},
                    **_scores(summary.run, stage["test"]),
                    "classes": made[stage["embedder"]],
                    "validation": _scores(summary.run, stage["validation"]),
                }
                for stage in summary.content["leaderboard"]
            ]
            identities = {
                product.id: product.identity for product in read_products(folder, settings.catalog, Problems())
            }
            told = {"shop": place.name, "seed": seed, "set": dict(flags), "seconds": summary.content["stage_seconds"]}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**told, "ladder": stages, "identities": identities})


def _settings(folder: CatalogFolder, seed: int, flags: Mapping[str, object]) -> Settings:
    own: dict[str, object] = {
        "cycle.iterations": 2,
        "cycle.folds": "no",  # as when the tables were made
        "cycle.infonce": True,
        "cycle.keep_worse": True,
        **{f"{section}.seed": seed for section in ("agcl", "sft", "rar")},
    }
    return load_settings(folder.root, own | dict(flags))


def _scores(run: Path, scored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metrics, and those of each query, of a stage on one split."""
    if not scored:
        return {"metrics": {}, "queries": {}}
    return {"metrics": scored["metrics"], "queries": _queries(run / "scores" / scored["score"])}


def _queries(place: Path) -> dict[str, list[float]]:
    rows = map(json.loads, (place / "per_query.jsonl").read_text("utf-8").splitlines())
    return {row["qid"]: [row[name] for name in RECALLS] for row in rows}


def _classes(
    folder: CatalogFolder, settings: Settings, stage: Mapping[str, Any], labels: Path, out: Output
) -> dict[str, float]:
    """Class metrics of a stage's embedder over the listings of the test split; none when there are too few."""
    labels.parent.mkdir(parents=True, exist_ok=True)
    with writing(labels) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "side"])
        for product in read_products(folder, settings.catalog, Problems()):
            writer.writerow([product.id, split_of(product, settings.split)])
    names = {"embedder_checkpoint": stage["embedder"], "generator_checkpoint": stage["generator"]}
    settings = settings.model_copy(
        update={
            "model": settings.model.model_copy(update=names),
            "eval": settings.eval.model_copy(update={"labels": str(labels.resolve()), "compare": [], "max_drop": []}),
            "embed": settings.embed.model_copy(update={} if stage["attributes"] else {"enrich": "none"}),
        }
    )
    try:
        report = measure(Workspace(folder, settings, out), EvalRequest(TaskSpec("coarse", gallery=("side=test",))))
    except DataError as error:
        out.warn(f"no class figures: {error}")
        return {}
    shutil.rmtree(report.folder)
    return {name: 100 * value for name, value in report.content["systems"][0]["classes"]["metrics"].items()}


def table(work: Path, among: str) -> None:
    results = [json.loads(path.read_text("utf-8")) for path in sorted((work / "results").glob("*.json"))]
    if among == "validation":
        for each in results:
            each["ladder"] = [stage | stage["validation"] for stage in each["ladder"]]
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in results:
        groups.setdefault(f"{each['shop']} {json.dumps(each['set'])}", []).append(each)
    for title, runs in groups.items():
        _show(title, runs)
    for told in dict.fromkeys(json.dumps(each["set"]) for each in results):
        runs = [each for each in results if json.dumps(each["set"]) == told]
        if len({each["shop"] for each in runs}) > 1:
            _show(f"all shops {told}", runs)
    _compare_settings(results)


def _compare_settings(results: list[dict[str, Any]]) -> None:
    """Print the last stage under one set of settings against that under each other one, paired by shop, seed and query;
    95 % over products.
    """
    last = {
        (json.dumps(each["set"]), each["shop"], each["seed"]): (each["ladder"][-1]["queries"], each["identities"])
        for each in results
    }
    for one, other in itertools.combinations(sorted({told for told, _, _ in last}), 2):
        rows, groups = [], []
        for told, shop, seed in last:
            if told == one and (other, shop, seed) in last:
                (ours, identities), (theirs, _) = last[one, shop, seed], last[other, shop, seed]
                for query in sorted(ours.keys() & theirs.keys()):
                    rows.append((ours[query], theirs[query]))
                    groups.append(f"{shop} {identities.get(query, query)}")
        if rows:
            ours_all, theirs_all = np.array(rows).transpose(1, 0, 2)
            found = differences(list(RECALLS), ours_all, theirs_all, groups, draws=2000, confidence=0.95, seed=0)
            print(f"\nlast stage, {one} against {other}, {len(rows)} queries:")
            for each in found:
                ends = f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
                print(f"- {each.metric} {100 * each.difference:+.2f} ({ends}), {each.verdict}")


def _show(title: str, runs: list[dict[str, Any]]) -> None:
    print(f"\n### {title}: {len(runs)} runs, {sum(each['seconds'] for each in runs) / len(runs) / 60:.0f} min each\n")
    heads = ["stage", "runs", "R@1", "R@5", "R@10", "change of R@1", "95 % over products", "95 % over runs", "paper"]
    heads += ["kNN", "probe", "NMI", "ARI", "purity", "change of kNN (95 % over runs)", "paper"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in dict.fromkeys(stage["name"] for each in runs for stage in each["ladder"]):
        chosen = [
            (each, stage) for each in runs for stage in each["ladder"] if stage["name"] == name and stage["queries"]
        ]
        if not chosen:
            print(f"| {name} | 0 |{' |' * (len(heads) - 2)}")
            continue
        cells = [name, str(len(chosen))]
        cells += [_spread([100 * stage["metrics"][recall] for _, stage in chosen]) for recall in RECALLS]
        pairs = [(each, stage, other) for each, stage in chosen if (other := _before(each["ladder"], stage))]
        cells += _change(pairs) if pairs else ["", "", ""]
        cells.append(_points(PAPER.get(name, {}).get("recall@1")))
        cells += [_spread([stage["classes"][key] for _, stage in chosen if stage["classes"]]) for key in CLASSES]
        apart = [
            a["classes"]["knn_accuracy"] - b["classes"]["knn_accuracy"]
            for _, a, b in pairs
            if a["classes"] and b["classes"]
        ]
        cells.append(f"{np.mean(apart):+.2f} {_student(apart)}" if apart else "")
        cells.append(_points(PAPER.get(name, {}).get("knn_accuracy")))
        print(f"| {' | '.join(cells)} |")


def _before(stages: Sequence[Mapping[str, Any]], stage: Mapping[str, Any]) -> Mapping[str, Any] | None:
    by_name = {each["name"]: each for each in stages}
    if stage["name"] == "AGCL" and "InfoNCE" in by_name:
        return by_name["InfoNCE"]
    return by_name.get(stage["against"])


def _change(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """Mean change of R@1 in points; its interval over products (of one shop), and over runs."""
    apart = [100 * (stage["metrics"]["recall@1"] - other["metrics"]["recall@1"]) for _, stage, other in pairs]
    over_products = ""
    if len({each["shop"] for each, _, _ in pairs}) == 1:
        queries = sorted(pairs[0][1]["queries"])
        identities = pairs[0][0]["identities"]
        ours, theirs = (
            np.mean([[stage["queries"][q][0] for q in queries] for stage in stages], axis=0)[:, None]
            for stages in ([pair[1] for pair in pairs], [pair[2] for pair in pairs])
        )
        groups = [identities.get(query, query) for query in queries]
        [found] = differences(["recall@1"], ours, theirs, groups, draws=2000, confidence=0.95, seed=0)
        over_products = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    return [f"{np.mean(apart):+.2f}", over_products, _student(apart)]


def _student(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{np.mean(values) - half:+.2f} to {np.mean(values) + half:+.2f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("shops", type=Path, nargs="+")
    start.add_argument("--seeds", default="0,1,2,3,4")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    show.add_argument("--among", choices=["validation", "test"], default="test")
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.work, wanted.among)
        return
    flags = dict(each.split("=", 1) for each in wanted.set)
    run(wanted.work, wanted.shops, [int(seed) for seed in wanted.seeds.split(",")], flags)


if __name__ == "__main__":
    main()
