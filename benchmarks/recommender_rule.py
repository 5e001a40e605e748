"""Does the recommender learn what the retrieval can't know? A shop whose customers follow a rule that stands in words.

    python -m benchmarks.recommender_rule WORK [--customers 400] [--steps 240] [--grpo-steps 40]

Listings are a kind and a colour. A customer goes on from a colour to the next one of a fixed order, and sometimes to
another kind. Co-occurrence knows that neighbours of that order are taken together, but not in which direction; likeness
and popularity know less. Whoever reads the history as text can know: the colour after the last one. So this is the
positive control of `benchmarks.recommender`: it says that the path from interactions to a ranking works and gains
where there is something to gain.

    sft, grpo    as there
    leaking      GRPO from `sft` with reasoning that names what came next, in half of the questions: what the released
                 refinement prompt of MLLMRec-R1 leads to. The reward can rise by reading it off; held-out questions
                 have no reasoning

Printed are the ranks of the test part and what reward and held-out ranking did.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from random import Random
from statistics import mean

from afmrl_cli.models.base import Bases
from afmrl_cli.nano.garment import CATEGORIES
from afmrl_cli.next_item.histories import questions_of
from afmrl_cli.next_item.retrieval import open_retrieval
from afmrl_cli.recommend.split import TEST
from afmrl_cli.recommender.load import load_recommender
from afmrl_cli.recommender.plan import GRPO, Plan
from afmrl_cli.recommender.run import RECOMMENDER, Run, train_recommender
from afmrl_cli.recommender.shortlist import TrainedRecommender
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .recommender import METRICS, Told, ranks_of, row_of

COLOURS = ("red", "blue", "green", "navy", "white", "black", "grey", "pink")
KINDS = tuple(CATEGORIES)[:6]
LENGTH, CHANGE = 8, 0.2
SIZES: dict[str, object] = {
    "recommender.text": "title",
    "recommender.item_tokens": 6,
    "recommender.answers": 1,
    "recommender.history": 3,
    "recommender.candidates": 5,
    "recommender.shortlist": 10,
    "recommender.batch_size": 16,
    "recommender.validation_questions": 100,
}


def write_rule_shop(folder: Path, customers: int) -> CatalogFolder:
    """Write the catalog and what its customers did, on days that follow each other."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [(f"{kind[:3].upper()}{i}{j}", f"{COLOURS[j]} {kind}") for i, kind in enumerate(KINDS) for j in range(8)]
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "title"), *names])
    rng, rows = Random(1), []
    for number in range(customers):
        kind, colour, day = rng.randrange(len(KINDS)), rng.randrange(len(COLOURS)), rng.randrange(300)
        for _ in range(LENGTH):
            id = names[kind * len(COLOURS) + colour][0]
            rows.append((f"C{number}", id, 1_700_000_000 + 86_400 * day + rng.randrange(80_000)))
            colour, day = (colour + 1) % len(COLOURS), day + 1 + rng.randrange(20)
            if rng.random() < CHANGE:
                kind = rng.randrange(len(KINDS))
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("customer", "item", "time"), *rows])
    return CatalogFolder(folder / "catalog.csv")


def trained(folder: CatalogFolder, settings: Settings, name: str) -> None:
    """Train an arm as the command does, and print the ranks of the test part."""
    summary = train_recommender(Workspace(folder, settings, Told()))
    model = settings.model.model_copy(update={"recommender_checkpoint": summary.checkpoint or "sft"})
    work = Workspace(folder, settings.model_copy(update={"model": model}), Told())
    retrieval = open_retrieval(work)
    recommender: TrainedRecommender = load_recommender(work, retrieval.fused)
    asked = questions_of(retrieval.histories, TEST)
    ranks = ranks_of(recommender, asked, control=name == "sft")
    customers = [str(each.customer) for each in asked]
    for way, found in ranks.items():
        print(row_of(f"{name}, {way}", found, ranks["retrieval"], customers), flush=True)
    print(f"weight {recommender.weight:.2f}")
    print_watched(name, summary.run)


def print_watched(name: str, run: Path) -> None:
    """Print the mean reward in the first and last third of GRPO's steps, and the held-out ranking by step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    if rewards := [row["reward"] for row in rows if "reward" in row]:
        third = max(1, len(rewards) // 3)
        held_out = ", ".join(f"{row['eval_ndcg@10']:.3f}" for row in rows if "eval_ndcg@10" in row)
        print(f"{name}: reward {mean(rewards[:third]):.2f}, then {mean(rewards[-third:]):.2f}; held out {held_out}")


def leaking(folder: CatalogFolder, settings: Settings) -> None:
    """Do GRPO with reasoning that names the target."""
    job = start_job(RECOMMENDER, Workspace(folder, settings, Told()))
    plan: Plan = RECOMMENDER.plan(job).content
    told = {
        key: f"This customer will take: {plan.texts.lines[question.target]}"
        for number, (key, question) in enumerate(zip(plan.keys, plan.train, strict=True))
        if number % 2
    }
    place = folder.runs / "leaking"
    place.mkdir(parents=True, exist_ok=True)
    done = Run(job, plan.with_reasonings(told), place, Bases()).stage(GRPO, None)
    print(done.said or "not stopped")
    print_watched("leaking", place / GRPO)


def main() -> None:
    """Write the shop, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--customers", type=int, default=400)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--grpo-steps", type=int, default=40)
    wanted = parser.parse_args()
    folder = write_rule_shop(wanted.work / "rule", wanted.customers)
    sizes = SIZES | {"recommender.steps": wanted.steps, "recommender.grpo_steps": wanted.grpo_steps}

    def settings(stages: str, **more: object) -> Settings:
        return load_settings(None, sizes | {"recommender.stages": stages} | more, BUILT_IN)

    print(f"| ranking | {' | '.join(METRICS)} | more hr@1 | more ndcg@10 |\n| --- | --- | --- | --- | --- | --- |")
    trained(folder, settings("sft", **{"recommender.name": "sft"}), "sft")
    start = {"model.recommender_checkpoint": "sft"}
    trained(folder, settings("grpo", **start), "grpo")
    leaking(folder, settings("grpo", **start))


if __name__ == "__main__":
    main()
