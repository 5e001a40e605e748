"""A step of the vision encoder's training against metric learning alone, of the same batch: by part, in processor time.

    python -m benchmarks.saga_step WORK [--photos 64] [--pairs 8] [--group 8] [--rounds 3]
    python -m benchmarks.saga_step WORK --shop SAGA/category+pattern-1 --model SAGA/base

The built-in model, or the base that `benchmarks.saga` left in SAGA; the sides run in turn, in processor time of this
process; printed are the medians, and what each takes of a step of metric learning alone. So many pairs are learnt from
as the settings say: where the generator can't judge, as the built-in model, half of a pair's answers, by chance, count
as right. WORK/shop is drawn where no --shop is named.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.saga import rollouts, step
from afmrl_cli.saga.model import Saga
from afmrl_cli.saga.plan import Plan
from afmrl_cli.saga.rollouts import JudgedPair
from afmrl_cli.saga.run import VISION, load_judge, make_saga
from afmrl_cli.saga.step import Batch
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .figures import record

Flags = Mapping[str, object]
SIDES: Mapping[str, Flags] = {
    "metric learning": {"vision.grpo": 0.0, "vision.anchoring": 0.0},
    "+ anchoring": {"vision.grpo": 0.0},
    "+ GRPO": {"vision.anchoring": 0.0},
    "all": {},
}


def opened(shop: Path, flags: Flags) -> tuple[Saga, Plan]:
    """Return the model in memory with the parts that are trained, and the plan of its run."""
    shared = {"model.preset": "nano", "model.device": "cpu", "catalog.allow_outside": True}
    settings = load_settings(shop, {**shared, **flags}, BUILT_IN)
    job = start_job(VISION, Workspace(CatalogFolder(shop / "catalog.csv"), settings, Silent()))
    plan = VISION.plan(job).content
    return make_saga(job, plan, load_judge(job, plan, Bases()))[0], plan


def shop_of(wanted: argparse.Namespace) -> Path:
    """Return the shop that is named, or a drawn one of garments in classes of several."""
    shop: Path = wanted.shop or wanted.work / "shop"
    if not (shop / "catalog.csv").is_file():
        write_shop(shop, ShopPlan(wanted.products, 3, 0.0, duplicates=0.0, text_queries=0, photo_queries=0, size=112))
    return shop


def by_chance(asked: JudgedPair, rng: np.random.Generator) -> JudgedPair:
    """Return answers of which half count as right, where their rewards do not differ."""
    size = len(asked.rewards)
    half = (rng.permutation(size) < size // 2).astype(float).tolist()
    return asked if asked.differs else replace(asked, rewards=half)


def batch_of(saga: Saga, plan: Plan) -> Batch:
    """Return the first batch of a run."""
    photos = [plan.photos.train.photos[i] for i in next(plan.from_step(0, 0))[2]]
    pictures = [saga.judge.load_image(photo.photo.path, plan.settings.catalog) for photo in photos]
    return Batch(pictures, [photo.label for photo in photos], [photo.listing for photo in photos])


def seconds(saga: Saga, batch: Batch, round_: int) -> tuple[float, int]:
    """Return the processor seconds of a step, and how many tokens it generated."""
    rng, read = np.random.default_rng(round_), rollouts.read_answers
    with mock.patch.object(rollouts, "read_answers", lambda *given: by_chance(read(*given), rng)):
        began = time.process_time()
        _, found = step.step(saga, batch, (0, round_), mined=True)
        taken = time.process_time() - began
    for part in (saga.trunk, saga.pooler, saga.metric):
        part.zero_grad()
    return taken, sum(len(answer) for each in found.asked for answer in each.group.answers)


def add_arguments(parser: argparse.ArgumentParser, pairs: int = 8) -> None:
    """Add what a step is made of."""
    parser.add_argument("work", type=Path)
    parser.add_argument("--shop", type=Path)
    parser.add_argument("--model", default="nano", help="folder of a base that judges pairs")
    parser.add_argument("--products", type=int, default=100, help="of the drawn shop")
    parser.add_argument("--classes", default="attr_category,pattern")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer at most")


def flags_of(wanted: argparse.Namespace) -> dict[str, object]:
    """Return the settings that the words mean."""
    return {
        "model.generator": wanted.model,
        "vision.chunk_photos": 64,
        "vision.chunk_answers": 64,
        "vision.rollout_answers": 1024,
        "vision.activation_checkpointing": False,
        "vision.classes": wanted.classes,
        "vision.batch_size": wanted.photos,
        "vision.pairs": wanted.pairs,
        "vision.group": wanted.group,
        "vision.max_new_tokens": wanted.tokens,
    }


def times(sides: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """Return in each round by how many times a side takes longer than metric learning alone."""
    return sorted(own / base for own, base in zip(sides[name], sides["metric learning"], strict=True))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    shop = shop_of(wanted)
    made = {name: opened(shop, {**flags_of(wanted), **flags}) for name, flags in SIDES.items()}
    batches = {name: batch_of(saga, plan) for name, (saga, plan) in made.items()}
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    for name, (saga, _) in made.items():
        seconds(saga, batches[name], 0)
    tokens = dict.fromkeys(SIDES, 0)
    for number in range(wanted.rounds):
        for name, (saga, _) in made.items():
            one, tokens[name] = seconds(saga, batches[name], number)
            taken[name].append(one)
    base = statistics.median(taken["metric learning"])
    for name, own in taken.items():
        ratios = times(taken, name)
        middle = statistics.median(ratios)
        print(f"{name}: {statistics.median(own):.2f} s a step, {middle:.1f} of it; {tokens[name]:,} tokens generated")
        if name != "metric learning":
            record(
                f"saga: a step of {name} against metric learning alone",
                statistics.median(own),
                base,
                1 / middle,
                spread=[1 / each for each in ratios],
                tokens=float(tokens[name]),
            )


if __name__ == "__main__":
    main()
