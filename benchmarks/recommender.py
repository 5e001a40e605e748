"""What the trained recommender brings on rendered shops: each part against the ones before it, and its controls.

    python -m benchmarks.recommender WORK [--seeds 1,2,3] [--arms sft,grpo,...] [--steps 300] [--grpo-steps 60]
    python -m benchmarks.recommender WORK --table

Shops are those of `benchmarks.recommend` (200 products, 600 shoppers), whose vectors are made where they are missing.
Arms, each a run of `train-recommender` on the nano model as a user starts it:

    sft          what came next, without reasoning
    filtered     with reasoning about all training questions, of which the filters keep some (`benchmarks.reasoner`)
    unfiltered   with reasoning about so many as the filters kept, nothing filtered
    grpo         GRPO from `sft`;  grpo-filtered, grpo-unfiltered: from these

The test part is ranked once for each: the retrieval (`fused`), the recommender fused with it by the weight that
validation chose, the recommender alone on the shortlist, and for `sft` the control, in which it reads the history of
another question. Results stay in WORK/recommender; --table prints them: the questions of all shops together, with
intervals over customers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.evaluation.compare import differences
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.next_item.histories import Question, questions_of
from afmrl_cli.next_item.metrics import rank_targets
from afmrl_cli.next_item.retrieval import open_retrieval
from afmrl_cli.recommend.split import TEST
from afmrl_cli.recommender.load import load_recommender
from afmrl_cli.recommender.run import train_recommender
from afmrl_cli.recommender.shortlist import TrainedRecommender, fuse, put_first, shortlists_of
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.files import write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .reasoner import Faults, reasoner
from .recommend import afmrl

ARMS = ("sft", "filtered", "unfiltered", "grpo", "grpo-filtered", "grpo-unfiltered")
FROM = {"grpo": "sft", "grpo-filtered": "filtered", "grpo-unfiltered": "unfiltered"}
SIZES: dict[str, object] = {
    "recommender.text": "attributes",
    "recommender.item_tokens": 10,
    "recommender.answers": 1,
    "recommender.history": 5,
    "recommender.candidates": 6,
    "recommender.shortlist": 15,
    "recommender.batch_size": 16,
    "recommender.validation_questions": 150,
}
"""Small, for two cores: nano reads some 5,000 tokens a second."""
WATCHED = ("step", "reward", "kl", "valid_share", "answer_hr@1", "eval_ndcg@10", "eval_ndcg@10_fused", "eval_changed")
DESCRIBED = "described"
METRICS = ("hr@1", "hr@10", "ndcg@10")


class Told(Silent):
    """Prints notes and warnings, no progress."""

    def note(self, message: str) -> None:
        print(f"  {message}", flush=True)

    def warn(self, message: str) -> None:
        print(f"  warning: {message}", flush=True)


def shop_of(work: Path, seed: int) -> CatalogFolder:
    """Return the shop of a seed, drawn and embedded where it is not there."""
    shop = work / f"200-600-{seed}"
    if not (shop / "catalog.csv").is_file():
        write_shop(shop, ShopPlan(200, seed, shoppers=600))
    if not (shop / ".afmrl" / "embeddings").is_dir():
        afmrl("embed", str(shop))
    if not (shop / DESCRIBED).is_file():
        afmrl("attributes", str(shop))
        (shop / DESCRIBED).touch()
    return CatalogFolder(shop / "catalog.csv")


def settings_of(arm: str, wanted: argparse.Namespace, kept: float) -> dict[str, object]:
    """Return the settings of an arm; `kept` reasonings are in the filtered one."""
    found: dict[str, object] = {
        **SIZES,
        "recommender.steps": wanted.steps,
        "recommender.grpo_steps": wanted.grpo_steps,
        "recommender.validate_every": max(1, wanted.steps // 2),
        "recommender.name": arm,
        "recommender.stages": "grpo" if arm in FROM else "sft",
    }
    if arm in FROM:
        found["model.recommender_checkpoint"] = FROM[arm]
    if arm.endswith("unfiltered"):
        found |= {"reasoning.share": kept, "reasoning.filter": False}
    elif arm.endswith("filtered"):
        found["reasoning.share"] = 1.0
    return found


def ranks_of(
    recommender: TrainedRecommender, questions: Sequence[Question], *, control: bool
) -> dict[str, list[float]]:
    """Return the target's rank for each question: by the retrieval, fused with it, alone, and in the control."""
    found: dict[str, list[float]] = {"retrieval": [], "fused": [], "alone": []}
    lists = shortlists_of(recommender.fused, questions, recommender.number)
    own = recommender.reader.read(questions, lists.listings)
    other = own
    if control:
        found["control"] = []
        turned = [replace(each, history=questions[i - 1].history) for i, each in enumerate(questions)]
        other = recommender.reader.read(turned, lists.listings)
    for i, question in enumerate(questions):
        values = recommender.fused.scores([question])
        target = np.array([question.target], dtype=np.int32)
        for name in found:
            row = values.copy()
            if name != "retrieval":
                said = other[i] if name == "control" else own[i]
                own_order = said.mean(axis=0) if name == "alone" else fuse(lists.values[i], said, recommender.weight)
                put_first(row[0], lists.listings[i], own_order)
            found[name].append(float(rank_targets(row, target, name).mean[0]))
    return found


def run_arm(arm: str, folder: CatalogFolder, wanted: argparse.Namespace, kept: float) -> dict[str, Any]:
    """Train an arm and rank the test part by it."""
    changes = settings_of(arm, wanted, kept)
    with contextlib.ExitStack() as stack:
        if arm.endswith("filtered"):
            changes |= {
                "reasoning.endpoint": stack.enter_context(reasoner(Faults())),
                "reasoning.endpoint_model": "rule",
            }
        settings = load_settings(None, changes, BUILT_IN)
        summary = train_recommender(Workspace(folder, settings, Told()))
    # GRPO that made nothing better leaves no checkpoint: what it started from is ranked by.
    named = settings.model.model_copy(update={"recommender_checkpoint": summary.checkpoint or FROM[arm]})
    work = Workspace(folder, with_model(settings, named), Told())
    retrieval = open_retrieval(work)
    recommender = load_recommender(work, retrieval.fused)
    asked = questions_of(retrieval.histories, TEST)
    ranks = ranks_of(recommender, asked, control=arm == "sft")
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "details": summary.details,
        "seconds": summary.seconds,
        "weight": recommender.weight,
        "customers": [each.customer for each in asked],
        "ranks": ranks,
        "rows": [{name: row[name] for name in WATCHED if name in row} for row in rows],
    }


def with_model(settings: Settings, model: Any) -> Settings:
    """Return the settings with another model section."""
    return settings.model_copy(update={"model": model})


def result(arm: str, work: Path, seed: int, wanted: argparse.Namespace) -> dict[str, Any]:
    """Return the result of an arm, measured where it is missing; what it starts from is measured first."""
    file = work / "recommender" / f"{seed}-{arm}.json"
    if not file.is_file():
        kept = 0.0
        if arm in FROM:
            result(FROM[arm], work, seed, wanted)
        if arm.endswith("unfiltered"):
            found = result("filtered", work, seed, wanted)["details"]["reasoning"]
            kept = found["kept"] / found["asked"]
        print(f"seed {seed}, {arm}", flush=True)
        write_json(file, run_arm(arm, shop_of(work, seed), wanted, kept))
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def values_of(ranks: Sequence[float]) -> NDArray[np.float64]:
    """Return HR@1, HR@10 and nDCG@10 [questions, 3]."""
    found = np.array(ranks)
    return np.stack([found <= 1, found <= 10, np.where(found <= 10, 1 / np.log2(1 + found), 0)], axis=1).astype(float)


def row_of(name: str, ranks: Sequence[float], retrieval: Sequence[float], customers: Sequence[str]) -> str:
    """Return a ranking as a row: metrics, and what it has more than the retrieval, interval over customers."""
    own, plain = values_of(ranks), values_of(retrieval)
    cells = " | ".join(f"{value:.3f}" for value in own.mean(axis=0))
    if ranks == retrieval:
        return f"| {name} | {cells} | | |"
    gains = differences(METRICS, own, plain, customers, draws=2000, confidence=0.95, seed=0)
    shown = " | ".join(f"{gain.difference:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" for gain in gains[::2])
    return f"| {name} | {cells} | {shown} |"


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the questions of all shops together with what is gained over the retrieval, then each run."""
    print(f"\n| ranking | {' | '.join(METRICS)} | more hr@1 | more ndcg@10 |\n| --- | --- | --- | --- | --- | --- |")
    for arm, results in found.items():
        customers = [f"{shop} {customer}" for shop, each in enumerate(results) for customer in each["customers"]]
        joined = {way: [rank for each in results for rank in each["ranks"][way]] for way in results[0]["ranks"]}
        for way, ranks in joined.items():
            sizes = f", {len(results)} shops, {len(ranks):,} questions" if way == "retrieval" else ""
            print(row_of(f"{arm}, {way}{sizes}", ranks, joined["retrieval"], customers))
    print("\n| arm | weight | reasoning | reward, first, last | validation nDCG@10, before, best | stopped |")
    print("| --- | --- | --- | --- | --- | --- |")
    for arm, results in found.items():
        for number, each in enumerate(results, 1):
            rewards = [row["reward"] for row in each["rows"] if "reward" in row]
            tenth = max(1, len(rewards) // 10)
            reward = f"{mean(rewards[:tenth]):.3f}, {mean(rewards[-tenth:]):.3f}" if rewards else "-"
            stage = each["details"]["stages"]["grpo" if rewards else "sft"]
            kept = each["details"].get("reasoning", {}).get("kept", "-")
            spans = f"{stage['before']['ndcg@10']:.3f}, {stage['best']['ndcg@10']:.3f}"
            stopped = "inflation" if each["details"]["stopped"] else "-"
            print(f"| {arm}, shop {number} | {each['weight']:.2f} | {kept} | {reward} | {spans} | {stopped} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--grpo-steps", type=int, default=60)
    parser.add_argument("--table", action="store_true", help="Print what is there, measure nothing.")
    wanted = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in wanted.arms.split(","):
        for seed in map(int, wanted.seeds.split(",")):
            if wanted.table and not (wanted.work / "recommender" / f"{seed}-{arm}.json").is_file():
                continue
            found.setdefault(arm, []).append(result(arm, wanted.work, seed, wanted))
    print_table(found)


if __name__ == "__main__":
    main()
