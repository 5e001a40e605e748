"""Sizes of a training that follow from the catalog where the settings leave them open (0).

batch      the largest power of two that leaves an epoch three batches or more, 128 (AGCL), 64 (composed, vision) or 32
           (SFT, recommender) at most
epochs     3, or as many as make up the least number of steps with which a gain was measured: 30 (AGCL), 40 (SFT,
           composed, vision), 100 (recommender); of triplets, of which a listing has several, as many as make up 1,500
           steps at most, of interactions 2,000
RAR steps  every query comes three times, between 10 and 200 steps in all; more where that is not enough for once
validation six times in a run, 50 steps apart at most (RAR: 25)
learning rate by the model, unless it is set
RAR k      at first the median rank of the best right answer without attributes, 50 (the paper's k) at most: about half
           of the queries then have a hit, so that attributes can win one or lose one; then what was measured
           (rar/room.py)

So a shop of 60 products trains with the same command as one of 60,000. A number that the user sets is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..settings import Settings
from ..training_settings import TrainingSettings

BATCHES_AN_EPOCH, EPOCHS = 3, 3.0
AGCL_BATCH, AGCL_STEPS = 128, 30
SFT_BATCH, SFT_STEPS = 32, 40
RERANK_BATCH, RERANK_STEPS = 16, 60
COMPOSED_BATCH, COMPOSED_STEPS, COMPOSED_MOST_STEPS = 64, 40, 1500
VISION_BATCH, VISION_STEPS = 64, 40
RECOMMENDER_BATCH, RECOMMENDER_STEPS, RECOMMENDER_MOST_STEPS, GRPO_MOST_STEPS = 32, 100, 2000, 200
RAR_PASSES, RAR_STEPS, RAR_MOST_STEPS, RAR_K = 3, 10, 200, 50
VALIDATIONS, APART, RAR_APART = 6, 50, 25


def peak_rate(settings: Settings, section: str, *, built_in: bool) -> float:
    """Return the learning rate that is set for a training, else the one of the model that it trains."""
    own: TrainingSettings = getattr(settings, section)
    nano, other = own.rates
    return own.learning_rate or (nano if built_in else other)


def batch_size(products: int, most: int) -> int:
    """Return the batch for so many products, between 2 and `most`."""
    size = 2
    while 2 * size <= min(most, products // BATCHES_AN_EPOCH):
        size *= 2
    return size


def epoch_steps(epochs: float, steps_per_epoch: float, least: int) -> int:
    """Return the steps of `epochs` epochs; of 0: of three, and of `least` steps at least."""
    if epochs:
        return max(1, round(epochs * steps_per_epoch))
    return max(least, round(EPOCHS * steps_per_epoch))


def interval(steps: int, apart: int = APART) -> int:
    """Return the steps between two validations of a run of `steps`."""
    return max(1, min(apart, -(-steps // VALIDATIONS)))


def with_agcl_batch(settings: Settings, products: int, processes: int = 1) -> Settings:
    """Return the settings with a batch size for `products` products that have a pair, a multiple of `processes`."""
    if settings.agcl.batch_size:
        return settings
    size = batch_size(products, AGCL_BATCH)
    return _with(settings, "agcl", batch_size=max(processes, size // processes * processes))


def with_agcl_steps(settings: Settings, steps_per_epoch: int) -> Settings:
    """Return the settings with steps and the distance of validations."""
    agcl = settings.agcl
    steps = agcl.steps or epoch_steps(agcl.epochs, steps_per_epoch, AGCL_STEPS)
    return _with(settings, "agcl", steps=steps, validate_every=agcl.validate_every or interval(steps))


def with_sft_sizes(settings: Settings, products: int) -> Settings:
    """Return the settings with batch size, steps and the distance of validations for so many products to learn from."""
    sft = settings.sft
    size = sft.batch_size or batch_size(products, SFT_BATCH)
    steps = sft.steps or epoch_steps(sft.epochs, products / size, SFT_STEPS)
    every = sft.validate_every or interval(steps)
    return _with(settings, "sft", batch_size=size, steps=steps, validate_every=every)


def with_rerank_sizes(settings: Settings, queries: int) -> Settings:
    """Return the settings with batch size, steps and the distance of validations for so many queries to learn from."""
    rerank = settings.rerank
    size = rerank.batch_size or batch_size(queries, RERANK_BATCH)
    steps = rerank.steps or epoch_steps(rerank.epochs, queries / size, RERANK_STEPS)
    return _with(
        settings, "rerank", batch_size=size, steps=steps, validate_every=rerank.validate_every or interval(steps)
    )


def with_composed_sizes(settings: Settings, triplets: int) -> Settings:
    """Return the settings with batch size, steps and the distance of validations for so many triplets to learn from."""
    composed = settings.composed
    size = composed.batch_size or batch_size(triplets, COMPOSED_BATCH)
    steps = composed.steps or epoch_steps(composed.epochs, triplets / size, COMPOSED_STEPS)
    if not (composed.steps or composed.epochs):
        steps = min(steps, COMPOSED_MOST_STEPS)
    every = composed.validate_every or interval(steps)
    return _with(settings, "composed", batch_size=size, steps=steps, validate_every=every)


def with_recommender_sizes(settings: Settings, questions: int) -> Settings:
    """Return the settings with batch size, the steps of both stages and the distance of validations for so many
    interactions to learn from.
    """
    own = settings.recommender
    size = own.batch_size or batch_size(questions, RECOMMENDER_BATCH)
    steps = own.steps or epoch_steps(own.epochs, questions / size, RECOMMENDER_STEPS)
    if not (own.steps or own.epochs):
        steps = min(steps, RECOMMENDER_MOST_STEPS)
    grpo = own.grpo_steps or max(1, min(GRPO_MOST_STEPS, steps // 2))
    every = own.validate_every or interval(steps)
    return _with(settings, "recommender", batch_size=size, steps=steps, grpo_steps=grpo, validate_every=every)


def with_vision_sizes(settings: Settings, photos: int) -> Settings:
    """Return the settings with batch size, steps and the distance of validations for so many photos to learn from."""
    vision = settings.vision
    size = vision.batch_size or batch_size(photos, VISION_BATCH)
    steps = vision.steps or epoch_steps(vision.epochs, photos / size, VISION_STEPS)
    return _with(
        settings, "vision", batch_size=size, steps=steps, validate_every=vision.validate_every or interval(steps)
    )


def median_rank_k(ranks: Sequence[int]) -> int:
    """Return the k at which about half of the queries have a hit, RAR_K at most."""
    return min(RAR_K, max(1, round(float(np.median(list(ranks))))))


def with_rar_steps(settings: Settings, queries: int) -> Settings:
    """Return the settings with steps and the distance of validations for so many queries."""
    rar = settings.rar
    queries_per_step = min(rar.prompts, queries)
    once, wanted = -(-queries // queries_per_step), -(-RAR_PASSES * queries // queries_per_step)
    steps = rar.steps or max(once, min(RAR_MOST_STEPS, max(RAR_STEPS, wanted)))
    return _with(settings, "rar", steps=steps, validate_every=rar.validate_every or interval(steps, RAR_APART))


def _with(settings: Settings, section: str, **changes: int) -> Settings:
    part = getattr(settings, section).model_copy(update=changes)
    return settings.model_copy(update={section: part})
