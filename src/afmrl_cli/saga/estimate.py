"""What a step takes, for --dry-run: a part of each kind of its work is done, the longest answers assumed.

The large part is the replay: `vision.chunk_answers` answers of `vision.max_new_tokens` through the language model, with
all that its backward needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..training.estimate import Estimate, measure, peak_bytes
from .adjudicator import Adjudication
from .batch_pairs import pairs_in_turn
from .learn import learn
from .model import Saga
from .plan import Plan
from .replay import Group, Photos
from .rollouts import JudgedPair, sample_answers

Work = Callable[[], Tensor]


def measure_parts(saga: Saga, plan: Plan, processes: int) -> tuple[Estimate, dict[str, Any]]:
    """Do a part of a step; returns the estimate, and of each kind of work the seconds a step and the peak so far."""
    own, train = plan.settings.vision, plan.photos.train.photos
    chosen = [train[i] for i in next(plan.from_step(0, 0))[2]][: own.chunk_photos]
    pictures = [saga.judge.load_image(photo.photo.path, plan.settings.catalog) for photo in chosen]
    shown, labels = saga.judge.vision.show(pictures), [photo.label for photo in chosen]
    pairs = [pair for _, pair in zip(range(1), _pairs(labels, [photo.listing for photo in chosen]), strict=False)]

    def tower() -> Tensor:
        pooled = saga.pooler(saga.last_level(saga.features(shown)))
        loss: Tensor = saga.metric(pooled.vectors, torch.tensor(labels, device=saga.device))
        torch.autograd.backward(loss)
        return loss.detach()

    # The tower runs twice over all but the last chunk, the second time with its backward.
    work: dict[str, tuple[Work, float]] = {"tower": (tower, 1.5 * own.batch_size / len(chosen))}
    if plan.asks and pairs:
        grids = torch.tensor([(1, *picture.grid) for picture in pictures], device=saga.device)
        with torch.no_grad():
            rows = saga.features(shown)

        def rollouts() -> Tensor:
            sample_answers(saga, Photos(rows, grids), pairs, [(0,)] * len(pairs))
            return torch.zeros(())

        def replay() -> Tensor:
            leaves = Photos([row.detach().requires_grad_() for row in rows], grids)
            return learn(saga, leaves, Photos(rows, grids), [_longest(saga, leaves, pairs[0])])[0]

        work |= {"rollouts": (rollouts, 2.0 * own.pairs), "replay": (replay, float(own.pairs))}
    parts: dict[str, dict[str, float]] = {}
    for name, (part, times) in work.items():
        found = measure(part, saga.device, times / processes, plan.steps)
        parts[name] = {"seconds": found.step_seconds, "peak_bytes": float(found.peak_bytes)}
    seconds = sum(each["seconds"] for each in parts.values())
    return Estimate(peak_bytes(saga.device), seconds, seconds * plan.steps), {"parts": parts}


def _pairs(labels: list[int], listings: list[str]) -> Any:
    return pairs_in_turn(labels, listings, None, np.random.default_rng(0))


def _longest(saga: Saga, photos: Photos, pair: tuple[int, int, bool]) -> JudgedPair:
    """Return a pair with answers as long as they may be, half of them right."""
    own = saga.settings
    word = saga.judge.processor.tokenizer.get_vocab()[saga.words[0]]
    answers = [[word] * own.max_new_tokens] * own.group
    ids = saga.prompts(photos, [pair[:2]])["input_ids"][0].tolist()
    rewards = [float(i % 2) for i in range(own.group)]
    return JudgedPair(pair, Group(pair[:2], ids, answers), [""] * own.group, [Adjudication(True)] * own.group, rewards)
