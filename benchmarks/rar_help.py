"""Does RAR help? The nano model on a rendered shop: no attributes, its own, and those of several RAR runs.

    python -m benchmarks.rar_help shop SHOP                 # render it: 3,000 products, colour variants, 10 % twice
    python -m benchmarks.rar_help cold-start SHOP           # SFT, for the runs "RAR from SFT, ..."
    python -m benchmarks.rar_help train SHOP "k 10, seed 0" # the named runs, or all, one after the other; resumable
    python -m benchmarks.rar_help judge OUT.json SHOP...    # the finished runs of these shops, on the test split
    python -m benchmarks.rar_help table OUT.json            # recall with intervals, attribute accuracy, length

A listing's text asks for its photos (`rar.query = text-to-photos`): the query the nano model leaves most room in, for
without a picture it makes things up. Training starts from the bare model, which is its own cold start, or from SFT.
Validation chooses the step; judged is the test split, in a gallery of the whole shop. Runs at once need shops of their
own: copy the folder (`cp -al`), galleries included.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.attributes.parse import parse_attributes, write_attributes
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.evaluation.compare import differences, spread
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.generator import load_generator
from afmrl_cli.nano.garment import KEYS
from afmrl_cli.nano.shop import ShopPlan, plan_listings, write_shop
from afmrl_cli.rar.environment import Environment, make_environments
from afmrl_cli.rar.policy import Policy
from afmrl_cli.rar.reward import recall_at_k
from afmrl_cli.rar.run import GALLERY, RAR
from afmrl_cli.settings import Settings
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import run_alone
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

KS = (1, 10, 50)
COMMON: dict[str, object] = {
    "model.device": "cpu",
    "rar.query": "text-to-photos",
    "rar.from_base": True,
    "rar.gallery": 0,
    "rar.k": 50,
    "rar.reward": "recall",
    "rar.prompts": 6,
    "rar.chunk_answers": 48,
    "rar.steps": 50,
    "rar.learning_rate": 5e-4,
    "rar.validate_every": 25,
    "rar.validation_queries": 100,
}
MAIN_SEEDS = 5
SFT = {"SFT": "taught", "SFT of what is stated": "taught-stated"}
SHOP: dict[str, Any] = {"products": 3000, "seed": 11, "variants": 0.5, "duplicates": 0.1}


def variants() -> dict[str, dict[str, object]]:
    """Name -> what is changed."""
    found: dict[str, dict[str, object]] = {f"RAR, seed {seed}": {"rar.seed": seed} for seed in range(MAIN_SEEDS)}
    found |= {f"loss grpo, seed {seed}": {"rar.loss": "grpo", "rar.seed": seed} for seed in range(MAIN_SEEDS)}
    found |= {f"k {k}, seed 0": {"rar.k": k} for k in (1, 10, 100)}
    found |= {f"beta {beta}, seed 0": {"rar.beta": beta} for beta in (0.0, 0.04)}
    found["rank-shaped reward, seed 0"] = {"rar.reward": "rank"}
    found |= {f"RAR, 200 steps, seed {seed}": {"rar.steps": 200, "rar.seed": seed} for seed in range(MAIN_SEEDS)}
    for given in SFT:
        found |= {
            f"RAR from {given}, seed {seed}": {
                "rar.seed": seed,
                "rar.from_base": False,
                "model.generator_checkpoint": SFT[given],
            }
            for seed in range(MAIN_SEEDS)
        }
    found["RAR from SFT, 200 steps, seed 0"] = found["RAR from SFT, seed 0"] | {"rar.steps": 200}
    return found


def settings_of(changes: Mapping[str, object]) -> Settings:
    return load_settings(None, {**COMMON, **changes}, BUILT_IN)


class Told(Silent):
    def note(self, message: str) -> None:
        print(message, flush=True)


def train(shop: Path, names: Sequence[str]) -> None:
    for name in names:
        summary = run_alone(RAR, Workspace(CatalogFolder(shop / "catalog.csv"), settings_of(variants()[name]), Told()))
        print(
            name,
            summary.run.name,
            summary.checkpoint,
            summary.details["start"],
            summary.details["metrics"],
            summary.details["collapsed"],
            flush=True,
        )


def cold_start(shop: Path) -> None:
    """SFT from the texts alone, for RAR asks so too: of all true attributes, and of those that a text states."""
    rows = list(csv.DictReader((shop / "catalog.csv").open(newline="", encoding="utf-8")))
    stated = {listing.id: write_attributes(listing.stated) for listing in plan_listings(ShopPlan(**SHOP))}
    place = shop.parent / f"{shop.name}-texts"
    place.mkdir(exist_ok=True)
    kept = [name for name in rows[0] if name != "image"]
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with (place / "stated.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "attributes"), *((name, text) for name, text in stated.items() if text)])
    sources = {
        "SFT": {"sft.source": "columns"},
        "SFT of what is stated": {"sft.source": "file", "sft.file": "stated.csv"},
    }
    for given, source in sources.items():
        settings = load_settings(
            None, {"model.device": "cpu", "sft.steps": 120, "sft.name": SFT[given], **source}, BUILT_IN
        )
        made = train_sft(Workspace(CatalogFolder(place / "catalog.csv"), settings, Told()))
        assert made is not None
        print(given, made.checkpoint, made.details["before"], made.details["best"], f"{made.seconds:.0f} s", flush=True)
        found = Checkpoints(place / ".afmrl" / "checkpoints")
        Checkpoints(shop / ".afmrl" / "checkpoints").add(found.path(made.checkpoint), found.get(made.checkpoint))


def finished(shops: Sequence[Path]) -> Iterator[tuple[str, Path, Path, dict[str, Any]]]:
    """(variant, shop, run, what done.json says) of every finished run."""
    known = {settings_of(changes).model_dump_json(): name for name, changes in variants().items()}
    for shop in shops:
        for file in sorted(shop.glob(".afmrl/runs/train-rar-*/done.json")):
            settings = Settings.model_validate_json((file.parent / "settings.json").read_text())
            if (name := known.get(settings.model_dump_json())) is not None:
                yield name, shop, file.parent, json.loads(file.read_text())


def test_queries(shop: Path) -> tuple[Environment, list[dict[str, str]]]:
    """The test split's queries against the whole shop, and what is true of each of them."""
    # With no test split the same identities are the validation split: what nobody has trained on or chosen by.
    changes = {"split.validation": 0.1, "split.test": 0.0, "rar.validation_queries": 1000}
    settings = settings_of(changes)
    folder, checkpoints = CatalogFolder(shop / "catalog.csv"), Checkpoints(shop / "none")
    embedder = load_embedder(settings.model, settings.embed, checkpoints, catalog=settings.catalog)
    work = Workspace(folder, settings, Silent())
    held_out = make_environments(work, embedder, folder.runs / GALLERY, Problems()).heldout
    with (shop / "catalog.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    given = {row["id"]: {key: row[f"attr_{key}"] for key in KEYS if row[f"attr_{key}"]} for row in rows}
    return held_out, [given[query.id] for query in held_out.queries]


def measured(environment: Environment, texts: Sequence[str | None], truth: Sequence[Mapping[str, str]]) -> Any:
    """Per query: the figures of these texts."""
    ranks = environment.ranks(range(len(texts)), texts)
    figures: dict[str, list[float]] = {f"R@{k}": [recall_at_k(row, k) for row in ranks] for k in KS}
    figures |= {"right of stated": [], "stated of true": [], "pairs": [], "valid": []}
    for text, true in zip(texts, truth, strict=True):
        said = parse_attributes(text) if text else {}
        right = sum(true.get(key) == value for key, value in said.items())
        figures["right of stated"].append(right / len(said) if said else float("nan"))
        figures["stated of true"].append(right / len(true))
        figures["pairs"].append(len(said))
        figures["valid"].append(float(text is not None))
    return {name: [float(value) for value in values] for name, values in figures.items()}


def judge(out: Path, shops: Sequence[Path]) -> None:
    found = json.loads(out.read_text()) if out.exists() else {"systems": {}, "lengths": {}}
    environment, truth = test_queries(shops[0])
    found["products"] = [query.id for query in environment.queries]
    settings = environment.settings
    queries = environment.queries

    def judged(name: str, texts: Sequence[str | None]) -> None:
        found["systems"][name] = measured(environment, texts, truth)
        found["systems"][name]["texts"] = list(texts)
        out.write_text(json.dumps(found))
        means = {f"R@{k}": round(float(np.mean(found["systems"][name][f"R@{k}"])), 3) for k in KS}
        print(name, means, flush=True)

    def answers(shop: Path, checkpoint: str) -> list[str | None]:
        model = settings.model.model_copy(update={"generator_checkpoint": checkpoint})
        checkpoints = Checkpoints(shop / ".afmrl" / "checkpoints")
        generator = load_generator(model, settings.attributes, checkpoints, bases=Bases())
        made = Policy(generator).answers(environment)
        return [environment.read(number, answer) for number, answer in enumerate(made)]

    if "no attributes" not in found["systems"]:
        judged("no attributes", [None] * len(queries))
        judged("at the start", answers(shops[0], ""))
        judged("true attributes", [write_attributes(true) for true in truth])
    for given, name in SFT.items():
        holder = next((shop for shop in shops if (shop / ".afmrl" / "checkpoints" / name).exists()), None)
        if holder is not None and given not in found["systems"]:
            judged(given, answers(holder, name))
    for name, shop, run, done in finished(shops):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found["lengths"][name] = [row["completions/mean_length"] for row in rows if "loss" in row]
        if name not in found["systems"]:
            judged(name, answers(shop, done["checkpoint"]))
        found["systems"][name] |= {"step": done["step"], "collapsed": done["collapsed"]}
    out.write_text(json.dumps(found))


def mean_of(systems: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """Per query, the mean over runs."""
    found: NDArray[np.float64] = np.array([system[name] for system in systems], dtype=np.float64).mean(axis=0)
    return found


def share(systems: Sequence[Mapping[str, Any]], name: str) -> str:
    """In percent, over the runs and those queries for which there is such a share."""
    figures = np.array([system[name] for system in systems], dtype=np.float64)
    return f"{100 * figures[np.isfinite(figures)].mean():.1f}" if np.isfinite(figures).any() else ""


def table(out: Path) -> None:
    found = json.loads(out.read_text())
    systems, products = found["systems"], found["products"]
    groups: dict[str, list[str]] = {}
    for name in systems:
        groups.setdefault(name.rsplit(", seed", 1)[0], []).append(name)
    names = [f"R@{k}" for k in KS]
    start = np.stack([np.array(systems["at the start"][name]) for name in names], axis=1)
    print(f"{len(products)} test queries\n")
    print(
        "| system | runs | R@1 | R@10 | R@50 | R@10 against the start (95 %) | R@50 against the start (95 %) ", end=""
    )
    print("| right of stated | stated of true | pairs | steps kept |")
    print("| --- " * 11 + "|")
    for group, members in groups.items():
        each = [systems[name] for name in members]
        mine = np.stack([mean_of(each, name) for name in names], axis=1)
        apart = spread([np.stack([np.array(one[name]) for name in names], axis=1) for one in each])
        told = differences(names, mine, start, products, draws=2000, confidence=0.95, seed=0)
        cells = [f"{100 * mine[:, i].mean():.1f}" + f" ± {100 * apart[i]:.1f}" * (len(each) > 1) for i in range(3)]
        gains = [f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})" for d in told[1:]]
        gains = ["", ""] if group == "at the start" else gains
        shares = [share(each, name) for name in ("right of stated", "stated of true")]
        kept = ", ".join(str(one.get("step", "")) + "!" * bool(one.get("collapsed")) for one in each)
        row = [group, str(len(each)), *cells, *gains, *shares, f"{mean_of(each, 'pairs').mean():.1f}", kept]
        print("| " + " | ".join(row) + " |")
    print("\nTokens of the sampled answers, mean of five steps:\n")
    for group, members in groups.items():
        lengths = [found["lengths"][name] for name in members if name in found["lengths"]]
        if lengths:
            shortest = min(len(each) for each in lengths)
            mean = np.mean([each[:shortest] for each in lengths], axis=0)
            points = [f"{mean[i : i + 5].mean():.1f}" for i in range(0, shortest - 4, 10)]
            print(f"- {group} ({len(lengths)} runs): {' -> '.join([*points, f'{mean[-5:].mean():.1f}'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("shop").add_argument("shop", type=Path)
    commands.add_parser("cold-start").add_argument("shop", type=Path)
    training = commands.add_parser("train")
    training.add_argument("shop", type=Path)
    training.add_argument("names", nargs="*", default=list(variants()))
    judging = commands.add_parser("judge")
    judging.add_argument("out", type=Path)
    judging.add_argument("shops", type=Path, nargs="+")
    commands.add_parser("table").add_argument("out", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "shop":
        write_shop(chosen.shop, ShopPlan(size=224, **SHOP))
    elif chosen.command == "cold-start":
        cold_start(chosen.shop)
    elif chosen.command == "train":
        train(chosen.shop, chosen.names)
    elif chosen.command == "judge":
        judge(chosen.out, chosen.shops)
    else:
        table(chosen.out)


if __name__ == "__main__":
    main()
