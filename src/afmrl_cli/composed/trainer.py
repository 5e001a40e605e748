"""Either stage by transformers' Trainer: a step of the trainer is one whole batch, whose gradient the stage makes.

The order of the data follows from where the run stands (`Plan.from_step`), as do random numbers from the step. Adapters
are kept by the validation's MRR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import Trainer, TrainingArguments

from ..listener import Listener
from ..training.loop import RECENT, Resumable, common_arguments
from .plan import Drawn, Plan

Step = Callable[[Sequence[Drawn]], tuple[torch.Tensor, int]]
"""Adds the gradient of a batch to the adapter's parameters; returns (its loss, how many tokens it read)."""
Metrics = Callable[[], dict[str, float]]
"""Measures the validation; {} where there is none."""


@dataclass
class Progress:
    """What a state holds beside tensors: where the next batch stands, metrics of start and best step, last losses."""

    epoch: int = 0
    at: int = 0
    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """One of the two stages: `run` is its folder, `save` writes the adapter into one."""

    name: str
    run: Path
    step: Step
    validate: Metrics
    save: Callable[[Path], None]


class ComposedTrainer(Resumable, Trainer):  # type: ignore[misc]
    """One stage of `plan`."""

    def __init__(self, plan: Plan, stage: Stage, model: PeftModel, device: str, listener: Listener) -> None:
        self.plan, self.stage, self.listener = plan, stage, listener
        composed = plan.settings.composed
        self.progress = Progress()
        self.drawn: list[Drawn] = []
        self.metrics: dict[str, float] = {}
        self.step_metrics: dict[str, float] = {}
        args = TrainingArguments(
            eval_strategy="steps",
            eval_steps=composed.validate_every,
            ignore_data_skip=True,  # the state says where the next batch stands
            **common_arguments(composed, stage.run, steps=plan.steps, peak_rate=plan.peak_rate, device=device),
        )
        super().__init__(model, args=args, eval_dataset=plan.corpus.validation)

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches from where the run stands when they are asked for."""
        return _Batches(self)

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Leave the gradient of a whole batch in the adapter's parameters; returns its loss."""
        began = time.monotonic()
        epoch, at, numbers = inputs
        self.drawn = self.plan.draw(numbers, epoch)
        self.model.train()
        loss, tokens = self.stage.step(self.drawn)
        self.progress.epoch, self.progress.at = epoch, at
        seconds = time.monotonic() - began
        self.step_metrics = {"num_tokens": float(tokens), "samples_per_second": len(self.drawn) / seconds}
        return loss

    def products_of_step(self) -> list[str]:
        """Return the ids of the references of the step at hand."""
        return [self.plan.corpus.train[each.query.listing].id for each in self.drawn]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line a step: transformers' metrics, and what the batch was like."""
        if "loss" in logs:
            self.step_metrics["loss"] = logs["loss"]
            self.recent = self.progress.recent = [*self.progress.recent, logs["loss"]][-RECENT:]
            logs = logs | self.step_metrics
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Measure the validation; keep the adapter when it is the best, or the only, one."""
        step, name = self.state.global_step, self.plan.settings.composed.best_by
        self.model.eval()
        self.metrics = self.stage.validate()
        if self.metrics:
            self.log({f"eval_{key}": value for key, value in self.metrics.items()})
        if step == 0:
            self.progress.start = self.metrics
        elif (self.metrics and self.metrics[name] >= self.progress.best.get(name, -1.0)) or (
            step == self.plan.steps and not self.state.best_global_step
        ):
            self.progress.best = self.metrics
            self.keep_best(self.stage.save)
        self.control.should_evaluate, self.control.should_save = False, step > 0
        return {f"eval_{key}": value for key, value in self.metrics.items()}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        name, step, found = self.plan.settings.composed.best_by, self.step_metrics, ""
        if self.metrics:
            found, self.metrics = f", validation {name} {self.metrics[name]:.3f}", {}
        speed = f"{step['samples_per_second']:.1f} triplets a second"
        self.listener.note(f"{self.stage.name}, step {self.state.global_step}: loss {step['loss']:.4f}{found}, {speed}")

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress."""
        return {"progress": asdict(self.progress)}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        self.progress = Progress(**counters["progress"])
        self.recent = self.progress.recent


@dataclass(frozen=True)
class _Batches:
    """The batches from where `trainer` stands on, without end: (epoch, number of the next one in it, examples)."""

    trainer: ComposedTrainer

    def __iter__(self) -> Iterator[tuple[int, int, list[int]]]:
        return self.trainer.plan.from_step(self.trainer.progress.epoch, self.trainer.progress.at)
