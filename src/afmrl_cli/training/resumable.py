"""Transformers' trainers, made to go on after a kill at any moment to the very weights of an unbroken run.

    class SftTrainer(Resumable, Trainer): ...          class RarTrainer(Resumable, GRPOTrainer): ...
    args = TrainingArguments(**common_arguments(settings, run, steps=..., peak_rate=..., device=...))
    resumed_from = train_resumably(trainer, listener, steps_per_epoch=...)

A transformers trainer writes pickles, and writes them file by file into the folder that the next run would go on from.
Here a state is one folder `state-<step>`, the same as `train-agcl` writes: tensors as safetensors, the rest as JSON,
renamed into place when it is complete, the one before removed after that. It holds the trained parameters, the
optimiser's moments, the scheduler and the trainer's own counters. Random numbers need no state, since every forward
draws its own from (seed, step, part of the step, process). Neither does the order of the data, if it follows from the
position alone: give a dataset of one epoch in its final order (`common_arguments` reads it in sequence).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from ..listener import Listener
from ..models.base import quiet
from ..training_settings import TrainingSettings
from .adapter import trainable
from .loop import begin, break_down, drop_other_bests, find_fault, keep_best, step_of, write_metrics
from .state import load_state, read_counters, save_state
from .stop import Stop, stop_between_steps

TRAINER_STATE = "trainer_state.json"
"""The name under which transformers expects its counters in the folder that it goes on from."""

if TYPE_CHECKING:
    # What the mixin stands on: mypy sees no bases in untyped transformers.
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


def common_arguments(
    settings: TrainingSettings, run: Path, *, steps: int, peak_rate: float, device: str
) -> dict[str, Any]:
    """Return what every configuration of a trainer gets (TrainingArguments, GRPOConfig): steps, optimiser, states,
    silence.

    Weights keep their type: the base is loaded in what it computes in, and the adapter is fp32.
    """
    return {
        "output_dir": str(run),
        "max_steps": steps,
        "learning_rate": peak_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": round(settings.warmup * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "optim": "adamw_torch",
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "bf16": False,
        "seed": settings.seed,
    }


class Resumable(_Trainer):  # type: ignore[misc]
    """Mixin before a transformers trainer: saving, going on, and stopping before numbers spoil the weights.

    Only the parameters that require a gradient are saved. `run` is `args.output_dir`.
    """

    _part: tuple[int, int] = (-1, 0)
    """(step, how many forwards of it have begun)."""
    _loss = 0.0
    """Of the last forward."""

    def __init__(self, *positional: Any, args: Any, **named: Any) -> None:
        if args.n_gpu > 1:  # several GPUs are for several processes; transformers would copy the model at every step
            args._n_gpu = 1
        super().__init__(*positional, args=args, **named)

    @property
    def run(self) -> Path:
        """Return the run's folder."""
        return Path(self.args.output_dir)

    def extra_state(self) -> Mapping[str, Any]:
        """Return more counters to save, as JSON; a subclass that has some says so."""
        return {}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def is_over(self, counters: Mapping[str, Any]) -> bool:
        """Tell whether the run that saved these counters (`extra_state`) had ended before its last step."""
        return False

    def products_of_step(self) -> list[str]:
        """Return the ids of the products that the step at hand is about, for messages; a subclass that knows them
        says so.
        """
        return []

    # Saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.should_save:
            return
        counters = {
            "scheduler": self.lr_scheduler.state_dict(),
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "extra": dict(self.extra_state()),
        }
        state = dataclasses.replace(self.state, stateful_callbacks={}, log_history=[])
        files = {TRAINER_STATE: json.dumps(dataclasses.asdict(state))}
        save_state(self.run, self.state.global_step, trainable(self.model), self.optimizer, counters, files)
        drop_other_bests(self.run, self.state.best_global_step)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Refuse: transformers would write pickles; adapters are written by `save_adapter`."""
        raise NotImplementedError("use save_adapter")

    def keep_best(self, save: Callable[[Path], None]) -> None:
        """Note that the step at hand is the best so far, and write its adapter by `save(folder)`."""
        self.state.best_global_step = self.state.global_step
        if self.args.should_save:
            keep_best(self.run, self.state.global_step, save)

    # Going on

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load nothing yet: weights come with the optimiser's moments."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        counters = load_state(Path(checkpoint), trainable(self.model), self.optimizer)
        self.lr_scheduler.load_state_dict(counters["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, counters["rates"], strict=True):
            group["lr"] = rate
        self.load_extra_state(counters["extra"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load nothing: `training_step` draws afresh."""

    # Steps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one forward and backward, with random numbers of its own; ModelError when its loss is no number."""
        step, part = self.state.global_step, self._part[1] + 1 if self._part[0] == self.state.global_step else 0
        self._part = step, part
        entropy = (self.args.seed, step, part, self.args.process_index)
        set_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._loss = float(loss)
        self._check(self._loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        length = super()._clip_grad_norm(model)
        if length is not None:
            self._check(self._loss, float(length))
        return length

    def _check(self, loss: float, gradient: float = 0.0) -> None:
        if fault := find_fault(loss, gradient):
            step, products = self.state.global_step + 1, self.products_of_step()
            raise break_down(self.run, step, fault, products, first=self.args.should_save)


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Tells progress, writes metrics.jsonl, and stops the trainer after a saved state when the user interrupts."""

    def __init__(self, trainer: Any, steps_per_epoch: float, listener: Listener, stop: Stop) -> None:
        self.run = trainer.run
        self.steps_per_epoch, self.listener, self.stop = steps_per_epoch, listener, stop

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.listener.progress("training", state.global_step, state.max_steps)
        if self.stop.wanted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if not args.should_save or "train_runtime" in logs:
            return
        row = {"step": state.global_step, **logs, "epoch": state.global_step / self.steps_per_epoch}
        write_metrics(self.run, {name: value for name, value in row.items() if name != "total_flos"})


def train_resumably(
    trainer: Any, listener: Listener, *, steps_per_epoch: float, at_start: Callable[[], object] | None = None
) -> int:
    """Train to the last step, from the last state if there is one; returns the step that it went on from (0: none).

    `at_start` is called before the first step of a new run. Raises KeyboardInterrupt after the first Ctrl-C, when a
    state has been saved; the second one stops at once.
    """
    run, steps = trainer.run, trainer.args.max_steps
    state = begin(run, first=trainer.args.should_save)
    resumed = step_of(state)
    if state:
        listener.note(f"going on after step {resumed} of {steps}")
    listener.progress("training", resumed, steps)
    trainer.remove_callback(PrinterCallback)
    with stop_between_steps() as stop, quiet():
        trainer.add_callback(_Watch(trainer, steps_per_epoch, listener, stop))
        if state is None and at_start is not None:
            at_start()
        extra = read_counters(state)["extra"] if state else {}
        ended = state is not None and (resumed == steps or trainer.is_over(extra))
        if state is not None and ended:  # killed after the last step, before the run was finished
            trainer.state = type(trainer.state).load_from_json(str(state / TRAINER_STATE))
            trainer.load_extra_state(extra)
        else:
            trainer.train(resume_from_checkpoint=str(state) if state else None)
        if stop.wanted and not ended and trainer.state.global_step < steps:
            raise KeyboardInterrupt
    return resumed
