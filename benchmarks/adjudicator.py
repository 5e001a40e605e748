"""How soon does a generator learn to judge pairs of photos? The nano model on a rendered shop.

    python -m benchmarks.adjudicator run WORK [--classes A,B] [--seed 0] [--products 300] [--set KEY=VALUE ...]
    python -m benchmarks.adjudicator table WORK

`run` draws a shop, teaches the built-in model by `train-sft` with `sft.source = pairs`, and asks the checkpoint that
validation chose about the validation pairs again: as they are, with the photos of another pair in the place of each
pair's own (the control, which should be at chance), and as a reranker about products, photos alone. Killed, the same
command goes on. `table` reads what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afmrl_cli.by_model import with_values_by_model
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.cli.output import Output
from afmrl_cli.intervals import interval_of_share
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.generator import load_generator
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.saga.adjudicator import Question, adjudicate, judging
from afmrl_cli.saga.pairs import PhotoPair, fixed_pairs
from afmrl_cli.saga.photos import load_photos, regrouped
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

KEYS = ("colour", "pattern", "length")
"""What is described beside the classes: few keys, short answers."""


def run(place: Path, classes: str, seed: int, products: int, flags: Mapping[str, object]) -> None:
    """Draw, teach, ask."""
    named = [name.strip() for name in classes.split(",")]
    root, out = place / f"shop-{seed}-{products}", Output()
    write_shop(root, ShopPlan(products, seed, size=224, text_queries=0, photo_queries=0))
    own = {
        "model.preset": "nano",
        "sft.source": "pairs",
        "sft.seed": seed,
        "sft.columns": ",".join(f"attr_{key}" for key in dict.fromkeys([*KEYS, *named]) if key != "category"),
        "sft.lora_dropout": 0.0,
        "vision.classes": ",".join(f"attr_{name}" for name in named),
        "vision.max_new_tokens": 96,
    }
    settings = with_values_by_model(load_settings(root, {**own, **flags}))
    work = Workspace(CatalogFolder(root / "catalog.csv"), settings, out)
    with out:
        began = time.monotonic()
        trained = train_sft(work)
        assert trained is not None
        lines = (trained.run / "metrics.jsonl").read_text("utf-8").splitlines()
        curve = [(row["step"], row["eval_accuracy"]) for row in map(json.loads, lines) if "eval_accuracy" in row]
        found = {
            "classes": classes,
            "seed": seed,
            "plan": trained.plan,
            "best": trained.details["best"],
            "curve": curve,
            "training_seconds": trained.seconds,
            **_asked(work, trained.checkpoint, Question(str(trained.plan["question"]))),
            "seconds": time.monotonic() - began,
        }
    write_json(place / f"{trained.run.name}.json", found)


def _asked(work: Workspace, checkpoint: str, question: Question) -> dict[str, Any]:
    """Ask the trained generator about the validation pairs, about pairs of other photos, and as a reranker."""
    settings, number = work.settings, work.settings.vision.validation_pairs
    roles = dict.fromkeys(("generator_checkpoint", "reranker_checkpoint"), checkpoint)
    chosen = work.with_settings(settings.model_copy(update={"model": settings.model.model_copy(update=roles)}))
    photos = load_photos(chosen, Problems()).validation
    pairs = fixed_pairs(photos, number)
    order = np.random.default_rng(0).permutation(len(pairs))
    others = [replace(pairs[i], same=pair.same) for i, pair in zip(order, pairs, strict=True)]
    judge = load_generator(chosen.settings.model, judging(settings), chosen.checkpoints, bases=chosen.bases)
    reranker = chosen.reranker()

    def right(some: list[PhotoPair]) -> float:
        shown = [(pair.first.photo.path, pair.second.photo.path) for pair in some]
        found = adjudicate(judge, question, reranker.words, shown, settings.catalog)
        return float(np.mean([each.same is pair.same for each, pair in zip(found, some, strict=True)]))

    products = fixed_pairs(regrouped(photos.photos, lambda photo: photo.identity), number)
    items = [(Item("", (p.first.photo.path,)), Item("", (p.second.photo.path,))) for p in products]
    scores, same = reranker.score(items).mean(axis=1), np.array([pair.same for pair in products])
    return {
        "pairs": len(pairs),
        "right": right(pairs),
        "control": right(others),
        "reranker_right": float(((scores > 0) == same).mean()),
        "reranker_auc": float((scores[same][:, None] > scores[~same][None, :]).mean()),
    }


def table(place: Path) -> None:
    heads = ["classes", "keys", "photos", "steps", "right verdicts by step", "best, of pairs (95 %)", "attributes"]
    heads += ["another pair's photos", "as a reranker: right, AUC", "seconds"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for file in sorted(place.glob("train-sft-*.json")):
        found = json.loads(file.read_text("utf-8"))
        plan, low_high = found["plan"], interval_of_share(found["right"], found["pairs"])
        cells = [
            found["classes"],
            len(plan["keys"]),
            plan["train_photos"],
            f"{plan['steps']} x {plan['batch_size']}",
            ", ".join(f"{step}: {share:.2f}" for step, share in found["curve"][1:]),
            f"{found['right']:.2f} of {found['pairs']} ({low_high[0]:.2f} to {low_high[1]:.2f})",
            f"{found['best']['attributes']:.3f}",
            f"{found['control']:.2f}",
            f"{found['reranker_right']:.2f}, {found['reranker_auc']:.2f}",
            f"{found['training_seconds']:.0f}",
        ]
        print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("run")
    start.add_argument("work", type=Path)
    start.add_argument("--classes", default="category,pattern")
    start.add_argument("--seed", type=int, default=0)
    start.add_argument("--products", type=int, default=300)
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    show = commands.add_parser("table")
    show.add_argument("work", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.work)
        return
    flags = dict(each.split("=", 1) for each in wanted.set)
    run(wanted.work, wanted.classes, wanted.seed, wanted.products, flags)


if __name__ == "__main__":
    main()
