"""Either stage by transformers' Trainer: a step of the trainer is one whole batch, whose gradient the stage makes.

Random numbers follow from the number of the step. Adapters are kept by the validation's MRR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ..listener import Listener
from ..training.adapter import trainable
from ..training.batch_trainer import BatchTrainer
from ..training.loop import common_arguments
from ..training.parallel import sum_gradients
from .plan import Drawn, Plan

Step = Callable[[Sequence[Drawn]], tuple[torch.Tensor, int]]
"""Adds the gradient of this process's part of a batch to the adapter's parameters; returns (the batch's loss, how many
tokens it has).
"""
Metrics = Callable[[], dict[str, float]]
"""Measures the validation; {} where there is none."""


@dataclass(frozen=True)
class Stage:
    """One of the two stages: `run` is its folder, `save` writes the adapter into one."""

    name: str
    run: Path
    step: Step
    validate: Metrics
    save: Callable[[Path], None]


class ComposedTrainer(BatchTrainer):
    """One stage of `plan`."""

    unit = "triplets"

    def __init__(self, plan: Plan, stage: Stage, model: PeftModel, device: str, listener: Listener) -> None:
        self.plan, self.stage, self.listener, self.title = plan, stage, listener, f"{stage.name}, "
        self.drawn: list[Drawn] = []
        composed = plan.settings.composed
        arguments = common_arguments(composed, stage.run, steps=plan.steps, peak_rate=plan.peak_rate, device=device)
        super().__init__(plan.from_step, composed, arguments, model)

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Leave the gradient of a whole batch in the adapter's parameters; returns its loss."""
        began = time.monotonic()
        epoch, at, numbers = inputs
        self.drawn = self.plan.draw(numbers, epoch)
        self.model.train()
        loss, tokens = self.stage.step(self.drawn)
        sum_gradients(trainable(self.model).values(), self.world)
        self.progress.epoch, self.progress.at = epoch, at
        seconds = time.monotonic() - began
        self.step_metrics = {"num_tokens": float(tokens), "samples_per_second": len(self.drawn) / seconds}
        return loss

    def products_of_step(self) -> list[str]:
        """Return the ids of the references of the step at hand."""
        return [self.plan.corpus.train[each.query.listing].id for each in self.drawn]

    def validate(self) -> dict[str, float]:
        """Measure the stage's validation."""
        return self.stage.validate()

    def save_best(self, folder: Path) -> None:
        """Write the adapter as it is now."""
        self.stage.save(folder)
