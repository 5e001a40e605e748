"""Training by whole batches: a step of transformers' Trainer is one batch of a plan, whose gradient a subclass makes.

The order of the data follows from where the run stands (`FromStep`), so that a state holds the place alone.
Of the adapters that the validation measures the best one is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ..listener import Listener
from ..training_settings import AgclSettings, ComposedSettings
from ..vision_settings import VisionSettings
from .loop import RECENT, Resumable

FromStep = Callable[[int, int], Iterator[tuple[int, int, Any]]]
"""(epoch, at) -> without end (epoch, number of the next batch in it, batch), from batch `at` of `epoch` on."""


@dataclass
class Progress:
    """What a state holds beside tensors: where the next batch stands, metrics of start and best step, last losses."""

    epoch: int = 0
    at: int = 0
    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)


class BatchTrainer(Resumable, Trainer):  # type: ignore[misc]
    """One run, with the `arguments` of `common_arguments`. A subclass makes the gradient (`gradients`, which sets
    `step_metrics` and the place in `progress`), validates and saves; `title` begins its messages, `unit` is what a
    batch consists of.
    """

    listener: Listener
    title, unit = "", "pairs"

    def __init__(
        self,
        from_step: FromStep,
        own: AgclSettings | ComposedSettings | VisionSettings,
        arguments: Mapping[str, Any],
        model: torch.nn.Module,
    ) -> None:
        self.from_step, self.own = from_step, own
        self.progress = Progress()
        self.step_metrics: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        # The state says where the next batch stands, so that none is skipped.
        evaluation = {"eval_strategy": "steps", "eval_steps": own.validate_every, "ignore_data_skip": True}
        super().__init__(model, args=TrainingArguments(**evaluation, **arguments), eval_dataset=[])

    def validate(self) -> dict[str, float]:
        """Measure the adapter as it is now; {} where there is nothing to measure by."""
        raise NotImplementedError

    def save_best(self, folder: Path) -> None:
        """Write the adapter as it is now."""
        raise NotImplementedError

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches, the same in every process, from where the run stands when they are asked for."""
        return _FromHere(self)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line a step: transformers' metrics, and what the batch was like."""
        if "loss" in logs:
            self.step_metrics["loss"] = logs["loss"]
            self.recent = self.progress.recent = [*self.progress.recent, logs["loss"]][-RECENT:]
            logs = logs | self.step_metrics
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Validate; keep the adapter when it is the best, or the only, one."""
        step, name = self.state.global_step, self.own.best_by
        self.model.eval()
        self.metrics = self.validate()
        measured = {f"eval_{key}": value for key, value in self.metrics.items()}
        if measured:
            self.log(measured)
        if step == 0:
            self.progress.start = self.metrics
        elif (self.metrics and self.metrics[name] >= self.progress.best.get(name, -1.0)) or (
            step == self.args.max_steps and not self.state.best_global_step
        ):
            self.progress.best = self.metrics
            self.keep_best(self.save_best)
        self.control.should_evaluate, self.control.should_save = False, step > 0
        return measured

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        name, step, found = self.own.best_by, self.step_metrics, ""
        if self.metrics:
            found, self.metrics = f", validation {name} {self.metrics[name]:.3f}", {}
        speed = f"{step['samples_per_second']:.1f} {self.unit} a second"
        self.listener.note(f"{self.title}step {self.state.global_step}: loss {step['loss']:.4f}{found}, {speed}")

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress."""
        return {"progress": asdict(self.progress)}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        self.progress = Progress(**counters["progress"])
        self.recent = self.progress.recent


@dataclass(frozen=True)
class _FromHere:
    """The batches from where `trainer` stands on, without end."""

    trainer: BatchTrainer

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        return self.trainer.from_step(self.trainer.progress.epoch, self.trainer.progress.at)
