"""How noisy is the gradient that photos get through a language model in 4 bits? Against fp32, on small models.

    python -m benchmarks.saga_gradients WORK [--models nano,qwen3_vl] [--pairs 8] [--photos 64]
    python -m benchmarks.saga_gradients WORK --shop SAGA/category+pattern-1 --models SAGA/base

The gradient of L_GRPO in the visual tokens of a batch's photos, of the same answers with the same rewards, where the
frozen language model is in NF4 and in bf16, against fp32; vision tower and photos' tokens are those of fp32 in all.
Answers are sampled once, by the model in fp32. Printed are cosine, angle and ratio of lengths, of all tokens together
and the median and lowest cosine of a photo; and, to compare with, the same of two gradients in fp32 of other answers
about the same pairs: the noise that GRPO has anyway.

The base that `benchmarks.saga` left in SAGA judges pairs. Of what can't (nano, and small models with random weights:
`tests.tiny`) half of a pair's answers, by chance, count as right. WORK/shop is drawn where no --shop is named.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.tiny import ARCHITECTURES, make_tiny
from torch import Tensor

from afmrl_cli.saga.batch_pairs import pairs_in_turn
from afmrl_cli.saga.learn import learn
from afmrl_cli.saga.model import Saga
from afmrl_cli.saga.replay import Photos
from afmrl_cli.saga.rollouts import JudgedPair, sample_answers

from .figures import record
from .saga_step import add_arguments, batch_of, by_chance, flags_of, opened, shop_of

EXACT, NARROW = "fp32", ("nf4", "bf16")


def gradient(saga: Saga, rows: Sequence[Tensor], grids: Tensor, asked: Sequence[JudgedPair]) -> list[Tensor]:
    """Return the gradient of L_GRPO in the tokens of each photo that a pair shows."""
    leaves = [row.clone().requires_grad_() for row in rows]
    learn(saga, Photos(leaves, grids), Photos(rows, grids), asked)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def with_spread(asked: Sequence[JudgedPair], seed: int) -> list[JudgedPair]:
    """Return the pairs whose rewards differ; where none do, all, half of whose answers count as right by chance."""
    rng = np.random.default_rng(seed)
    return [each for each in asked if each.differs] or [by_chance(each, rng) for each in asked]


@dataclass(frozen=True)
class Compared:
    """Two gradients: their cosine, the ratio of their lengths, the median and the lowest cosine of a photo's."""

    cosine: float
    length: float
    median: float
    lowest: float

    @property
    def angle(self) -> float:
        """Return the angle between them in degrees."""
        return math.degrees(math.acos(max(-1.0, min(1.0, self.cosine))))

    def __str__(self) -> str:
        photos = f"of a photo median {self.median:.3f}, lowest {self.lowest:.3f}"
        return f"cosine {self.cosine:.3f} ({self.angle:.0f} degrees), length {self.length:.2f}; {photos}"


def compared(exact: Sequence[Tensor], other: Sequence[Tensor]) -> Compared:
    """Compare the gradients [tokens, width] of the same photos."""
    cosine = torch.nn.functional.cosine_similarity
    one, two = (torch.cat([each.flatten() for each in side]) for side in (exact, other))
    photos = [float(cosine(a.flatten(), b.flatten(), dim=0)) for a, b in zip(exact, other, strict=True)]
    length = float(two.norm() / one.norm())
    return Compared(float(cosine(one, two, dim=0)), length, statistics.median(photos), min(photos))


def measure(shop: Path, name: str, wanted: argparse.Namespace) -> None:
    """Print and record the figures of a model."""
    model = str(make_tiny(name, wanted.work / name)) if name in ARCHITECTURES else name
    flags = flags_of(wanted) | {"model.generator": model, "vision.anchoring": 0.0}
    saga, plan = opened(shop, flags | {"model.precision": EXACT})
    batch = batch_of(saga, plan)
    grids = torch.tensor([(1, *picture.grid) for picture in batch.pictures])
    with torch.no_grad():
        rows = saga.features(saga.judge.vision.show(batch.pictures))
    order = pairs_in_turn(batch.labels, batch.listings, None, np.random.default_rng(0))
    pairs = [pair for _, pair in zip(range(wanted.pairs), order, strict=False)]
    seeds = [(0, i) for i in range(2 * len(pairs))]
    asked = with_spread(sample_answers(saga, Photos(rows, grids), pairs, seeds[: len(pairs)]), 0)
    exact = gradient(saga, rows, grids, asked)
    print(f"{name}: {len(asked)} pairs, {sum(len(each.rewards) for each in asked)} answers, e.g. {asked[0].texts[0]!r}")
    once_more = [each.pair for each in asked]
    again = with_spread(sample_answers(saga, Photos(rows, grids), once_more, seeds[-len(asked) :]), 1)
    same = {each.pair for each in again}
    both = [each for each in asked if each.pair in same]
    noise = compared(gradient(saga, rows, grids, both), gradient(saga, rows, grids, again))
    print(f"  other answers, {EXACT}: {noise}")
    for precision in NARROW:
        narrow = opened(shop, flags | {"model.precision": precision})[0]
        found = compared(exact, gradient(narrow, rows, grids, asked))
        print(f"  {precision}: {found}")
        record(
            f"saga: degrees between the gradients in photos of {precision} and {EXACT}, and of other answers, {name}",
            found.angle,
            noise.angle,
            noise.angle / max(found.angle, 1e-3),
            cosine=found.cosine,
            length=found.length,
            lowest=found.lowest,
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--models", default="nano,qwen3_vl", help=f"nano, a base's folder, {', '.join(ARCHITECTURES)}")
    wanted = parser.parse_args()
    shop = shop_of(wanted)
    for name in wanted.models.split(","):
        measure(shop, name, wanted)


if __name__ == "__main__":
    main()
