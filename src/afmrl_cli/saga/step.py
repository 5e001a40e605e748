"""One step of SAGA: the losses of a batch of photos, and their gradients in tower, pooler and proxies.

    L = L_DML(z, y)  +  lambda_lm L_GRPO  +  lambda_kl L_KL

    X   = tower(photos)                                  the trained one, LoRA on its blocks and its merger
    z   = pooler(X),  beta = its attention               all photos of the batch
    y^g ~ p(. | X_a, X_b, question), g = 1..G            without gradient, by the frozen language model
    r^g = 1 where the verdict that y^g ends with is [class a = class b], else 0
    L_GRPO = - (1 / sum T) sum_g sum_t A_g log p(y^g_t | y^g_<t, X_a, X_b)       A_g: `grpo`
    L_KL   = KL(alpha_a || beta_a) + KL(alpha_b || beta_b)                       mean over rewarded answers

alpha is how a layer in the middle attends from the attribute values of a photo to the photo (`watch`, `anchoring`). A
pair whose answers all got one reward has no part in the last two: pairs are asked about until `vision.pairs` of them
differ, `VisionSettings.tries` times as many at most. The gradient of L_GRPO reaches X through all that the language
model sees of a photo, DeepStack's levels included; the pooler reads the last level alone and X is detached for L_KL.

The tower runs over the batch once without gradient, a chunk at a time, the losses leave their gradient in X, and each
chunk runs again to take it on (`training.gradcache`): the language model is never in memory beside the tower's graph.
Several processes gather X after the first run, share the pairs, and sum what they leave in X before the second.

Departures: log-probabilities are those of the distribution that was sampled from, temperature included, as TRL has it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalog.pictures import Picture
from ..training.gradcache import cached_gradients
from ..training.parallel import World, divided, gather_objects, gather_rows, sum_gradients
from .batch_pairs import pairs_in_turn
from .learn import learn
from .model import Saga
from .replay import Photos
from .rollouts import JudgedPair, Seed, sample_pairs


@dataclass(frozen=True)
class Batch:
    """Photos of a step, with the numbers of their classes and the listings that show them; `pictures` are opened, of
    several processes this one's part.
    """

    pictures: Sequence[Picture]
    labels: Sequence[int]
    listings: Sequence[str]


@dataclass
class StepResult:
    """What a step came to: its losses, what was asked, and seconds by part."""

    losses: dict[str, float] = field(default_factory=dict)
    asked: list[JudgedPair] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    """How long the gradient of each loss is in the photos' tokens: which of them moves the tower."""


def step(saga: Saga, batch: Batch, seed: Seed, *, mined: bool, world: World | None = None) -> tuple[Tensor, StepResult]:
    """Leave this process's part of the gradient of L in all that is trained; returns (L, what it came to).

    Which pairs are asked about, and their answers, follow from `seed`. `mined`: wrong pairs are the nearest by the
    vectors at hand, else any.
    """
    world = world or World()
    vision, found, size = saga.judge.vision, StepResult(), saga.settings.chunk_photos
    own = [vision.image_tokens(picture) for picture in batch.pictures]
    starts = np.cumsum([0, *own]).tolist()
    parts = [range(i, min(i + size, len(own))) for i in range(0, len(own), size)]
    part_at = {starts[part[0]]: part for part in parts}
    number = len(batch.labels)
    tokens = divided(number, lambda _: own, world)
    shapes = divided(number, lambda _: [(1, *picture.grid) for picture in batch.pictures], world)
    grids = torch.tensor(shapes, device=saga.device)

    def prepare(rows: Sequence[int]) -> dict[str, Any]:
        return vision.show([batch.pictures[i] for i in part_at[rows[0]]])

    def forward(shown: dict[str, Any]) -> Tensor:
        return torch.cat(saga.features(shown))

    def losses(flat: Tensor) -> tuple[Tensor, Tensor]:
        rows = [row.clone().requires_grad_() for row in gather_photos(flat, tokens, world)]
        with torch.enable_grad():
            loss = _Losses(saga, batch, found, world).of(Photos(rows, grids), seed, mined=mined)
        return loss, torch.cat(list(world.part(_gradients(rows))))

    chunks = [range(starts[part[0]], starts[part[-1] + 1]) for part in parts]
    began = time.monotonic()
    loss = cached_gradients(chunks, prepare, forward, losses)
    found.seconds["tower"] = time.monotonic() - began - sum(found.seconds.values())
    return loss, found


def gather_photos(flat: Tensor, tokens: Sequence[int], world: World) -> list[Tensor]:
    """Gather what each process's tower made of its part of the photos, its rows one after another in `flat` -> the rows
    [tokens, width] of every photo; no gradient.
    """
    if world.size == 1:
        return list(torch.split(flat, list(tokens)))
    parts = [list(tokens[rank :: world.size]) for rank in range(world.size)]
    most = max(map(sum, parts))
    filled = flat.new_zeros(most, flat.shape[1])
    filled[: len(flat)] = flat
    whole = torch.split(gather_rows(filled, world), most)
    rows = [torch.split(each[: sum(part)], part) for each, part in zip(whole, parts, strict=True)]
    return [rows[i % world.size][i // world.size] for i in range(len(tokens))]


@dataclass(frozen=True)
class _Losses:
    """The three losses of a batch whose photos all processes have gathered. Each does its part: the metric's loss,
    which is the same everywhere, divided by their number; of the pairs some.
    """

    saga: Saga
    batch: Batch
    found: StepResult
    world: World

    def of(self, photos: Photos, seed: Seed, *, mined: bool) -> Tensor:
        """Leave the gradient of L in the leaves `photos.rows`, and this process's part of it in pooler and proxies."""
        saga, own, found, size = self.saga, self.saga.settings, self.found, self.world.size
        began = time.monotonic()
        pooled = saga.pooler(saga.last_level(photos.rows))
        metric = saga.metric(pooled.vectors, torch.tensor(self.batch.labels, device=saga.device))
        torch.autograd.backward(metric / size)
        total: Tensor = metric.detach()
        found.losses["metric"] = float(total)
        before = [size * row for row in _gradients(photos.rows)]
        found.gradients["metric"] = _length(before)
        found.seconds["metric"] = time.monotonic() - began
        if own.grpo or own.anchoring:
            vectors = gather_objects(pooled.vectors.detach().cpu().numpy(), self.world)[0] if mined else None
            total = total + self._of_pairs(photos, vectors, seed)
        sum_gradients(photos.rows, self.world)
        if own.grpo or own.anchoring:
            after = _gradients(photos.rows)
            found.gradients["grpo"] = _length([now - was for now, was in zip(after, before, strict=True)])
        return total

    def _of_pairs(self, photos: Photos, vectors: NDArray[np.float32] | None, seed: Seed) -> Tensor:
        saga, batch, found = self.saga, self.batch, self.found
        pairs = pairs_in_turn(batch.labels, batch.listings, vectors, np.random.default_rng(seed))
        still = Photos([row.detach() for row in photos.rows], photos.grids)
        began = time.monotonic()
        found.asked = sample_pairs(saga, still, pairs, seed, self.world)
        found.seconds["rollouts"] = time.monotonic() - began
        began = time.monotonic()
        chosen = [each for each in found.asked if each.differs][: saga.settings.pairs]
        added, losses = learn(saga, photos, still, chosen, self.world)
        found.losses |= losses
        found.seconds["replay"] = time.monotonic() - began
        return added


def _gradients(rows: Sequence[Tensor]) -> list[Tensor]:
    """Return what the losses have left in the photos' tokens so far."""
    return [torch.zeros_like(row) if row.grad is None else row.grad.clone() for row in rows]


def _length(gradients: Sequence[Tensor]) -> float:
    """Return the length of all numbers together."""
    return float(torch.stack([each.pow(2).sum() for each in gradients]).sum().sqrt())
