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

Departures: log-probabilities are those of the distribution that was sampled from, temperature included, as TRL has it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..catalog.pictures import Picture
from ..training.gradcache import cached_gradients
from .batch_pairs import pairs_in_turn
from .learn import learn
from .model import Saga
from .replay import Photos
from .rollouts import JudgedPair, sample_pairs


@dataclass(frozen=True)
class Batch:
    """Photos of a step, opened, with the numbers of their classes and the listings that show them."""

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


def step(saga: Saga, batch: Batch, rng: np.random.Generator, *, mined: bool) -> tuple[Tensor, StepResult]:
    """Leave the gradient of L in all that is trained; returns (L, what it came to).

    `mined`: wrong pairs are the nearest by the vectors at hand, else any.
    """
    vision, found, size = saga.judge.vision, StepResult(), saga.settings.chunk_photos
    tokens = [vision.image_tokens(picture) for picture in batch.pictures]
    starts = np.cumsum([0, *tokens]).tolist()
    parts = [range(i, min(i + size, len(tokens))) for i in range(0, len(tokens), size)]
    part_at = {starts[part[0]]: part for part in parts}
    grids = torch.tensor([(1, *picture.grid) for picture in batch.pictures], device=saga.device)

    def prepare(rows: Sequence[int]) -> dict[str, Any]:
        return vision.show([batch.pictures[i] for i in part_at[rows[0]]])

    def forward(shown: dict[str, Any]) -> Tensor:
        return torch.cat(saga.features(shown))

    def losses(flat: Tensor) -> tuple[Tensor, Tensor]:
        rows = [row.clone().requires_grad_() for row in torch.split(flat, tokens)]
        with torch.enable_grad():
            loss = _losses(saga, Photos(rows, grids), batch, rng, found, mined=mined)
        return loss, torch.cat(_gradients(Photos(rows, grids)))

    chunks = [range(starts[part[0]], starts[part[-1] + 1]) for part in parts]
    began = time.monotonic()
    loss = cached_gradients(chunks, prepare, forward, losses)
    found.seconds["tower"] = time.monotonic() - began - sum(found.seconds.values())
    return loss, found


def _losses(
    saga: Saga, photos: Photos, batch: Batch, rng: np.random.Generator, found: StepResult, *, mined: bool
) -> Tensor:
    """Leave the gradient of the three losses in the leaves `photos.rows`, the pooler and the proxies."""
    own, began = saga.settings, time.monotonic()
    pooled = saga.pooler(saga.last_level(photos.rows))
    metric = saga.metric(pooled.vectors, torch.tensor(batch.labels, device=saga.device))
    torch.autograd.backward(metric)
    total: Tensor = metric.detach()
    found.losses["metric"] = float(total)
    found.gradients["metric"] = _length(_gradients(photos))
    found.seconds["metric"] = time.monotonic() - began
    if not (own.grpo or own.anchoring):
        return total
    still = Photos([row.detach() for row in photos.rows], photos.grids)
    vectors = pooled.vectors.detach().cpu().numpy() if mined else None
    began = time.monotonic()
    found.asked = sample_pairs(saga, still, pairs_in_turn(batch.labels, batch.listings, vectors, rng))
    found.seconds["rollouts"] = time.monotonic() - began
    began, before = time.monotonic(), _gradients(photos)
    chosen = [each for each in found.asked if each.differs][: own.pairs]
    added, losses = learn(saga, photos, still, chosen)
    found.losses |= losses
    found.gradients["grpo"] = _length([now - was for now, was in zip(_gradients(photos), before, strict=True)])
    found.seconds["replay"] = time.monotonic() - began
    return total + added


def _gradients(photos: Photos) -> list[Tensor]:
    """Return what the losses have left in the photos' tokens so far."""
    return [torch.zeros_like(row) if row.grad is None else row.grad.clone() for row in photos.rows]


def _length(gradients: Sequence[Tensor]) -> float:
    """Return the length of all numbers together."""
    return float(torch.stack([each.pow(2).sum() for each in gradients]).sum().sqrt())
