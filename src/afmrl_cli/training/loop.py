"""The one loop under all trainings: transformers' trainers, made to go on after any kill to the very weights of an
unbroken run.

    class BatchTrainer(Resumable, Trainer): ...        class RarTrainer(Resumable, GRPOTrainer): ...
    args = TrainingArguments(**common_arguments(settings, run, steps=..., peak_rate=..., device=...))
    resumed_from = train_resumably(trainer, listener, steps_per_epoch=...)

A transformers trainer writes pickles, and writes them file by file into the folder that the next run would go on from.
Here a state is one folder `state-<step>`: tensors as safetensors, the rest as JSON, renamed into place when it is
complete, the one before removed after that. It holds the trained parameters, the optimiser's moments, the scheduler and
the trainer's own counters. Random numbers need no state, since every forward draws its own from (seed, step, part of
the step, process). Neither does the order of the data, if it follows from the position alone: give a dataset of one
epoch in its final order (`common_arguments` reads it in sequence), or batches that go on from a counter of the state.

A run's folder (`.afmrl/runs/train-<method>-<key>/`) holds state-<step>, best-<step> (the adapter with the best
validation so far) and metrics.jsonl.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from ..errors import ModelError
from ..listener import Listener
from ..models.base import quiet
from ..store.files import write_json, writing_folder
from ..training_settings import TrainingSettings
from .adapter import trainable
from .parallel import World, gather_objects
from .state import cut_metrics, find_states, load_state, read_counters, save_state
from .stop import Stop, stop_between_steps

RECENT = 20
EXPLODED = 5.0
"""A loss above this many times the median of the RECENT last ones, plus this, has exploded."""
TRAINER_STATE = "trainer_state.json"
"""The name under which transformers expects its counters in the folder that it goes on from."""

if TYPE_CHECKING:
    # What the mixin stands on: mypy sees no bases in untyped transformers.
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


def begin(run: Path, *, first: bool) -> Path | None:
    """Return the state that `run` goes on from, None for a new run, and drop what was written after that state.

    Only the `first` of several processes drops anything. ModelError for a state of a version with another loop.
    """
    state = next(reversed(find_states(run)), None)
    step = step_of(state)
    if state and not (state / TRAINER_STATE).is_file():
        raise ModelError(f"{state}: can't go on from here: an earlier version saved it", "start afresh with --force")
    if first:
        for folder in run.glob("best-*"):
            number = folder.name.removeprefix("best-")
            if not number.isdecimal() or int(number) > step:
                shutil.rmtree(folder)
        cut_metrics(run / "metrics.jsonl", step if state else -1)
    return state


def step_of(state: Path | None) -> int:
    """Return the step after which a state was saved, 0 for none."""
    return int(state.name.removeprefix("state-")) if state else 0


def write_metrics(run: Path, row: dict[str, Any]) -> None:
    """Append a row, with its step, to metrics.jsonl."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def keep_best(run: Path, step: int, save: Callable[[Path], None]) -> None:
    """Write `best-<step>` by `save(folder)`; the one before stays until a state names the new one, so that a kill in
    between goes on from the old state.
    """
    place = run / f"best-{step}"
    if not place.exists():
        with writing_folder(place) as folder:
            save(folder)


def drop_other_bests(run: Path, step: int | None) -> None:
    """Remove every best adapter but that of `step`, which the state just saved names."""
    for other in run.glob("best-*"):
        if other.name != f"best-{step}":
            shutil.rmtree(other)


def find_fault(loss: float, gradient: float = 0.0, recent: Sequence[float] = ()) -> str:
    """Say what is wrong with a step, "" for nothing: loss or gradient is no number, or the loss is far above `recent`.

    `recent` are the losses of the last steps; before there are RECENT of them no loss is too high.
    """
    usual = statistics.median(recent) if len(recent) >= RECENT else math.inf
    if math.isfinite(loss) and math.isfinite(gradient) and loss <= EXPLODED * usual + EXPLODED:
        return ""
    return f"loss {loss:g}" + (f", gradient {gradient:g}" if gradient else "")


def break_down(run: Path, step: int, fault: str, products: Sequence[str], *, first: bool) -> ModelError:
    """Return the error that ends a run before the optimiser takes over what would spoil the weights; the batch's
    products are listed in failed-batch.json.
    """
    if first:
        write_json(run / "failed-batch.json", {"step": step, "what": fault, "products": list(products)})
    states = find_states(run)
    named = f" on products {', '.join(products[:8])}" if products else ""
    more = f" and {len(products) - 8} more (failed-batch.json)" if len(products) > 8 else ""
    good = f"the last good state is {states[-1]}" if states else "there is no state yet"
    return ModelError(
        f"step {step}: training broke down ({fault}){named}{more}; {good}",
        "lower learning_rate; look at these products; try model.precision=fp32",
    )


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
    _seconds_before = 0.0
    recent: Sequence[float] = ()
    """Losses of the last steps; a subclass that keeps them stops when its loss is far above them."""

    def __init__(self, *positional: Any, args: Any, **named: Any) -> None:
        if args.n_gpu > 1:  # several GPUs are for several processes; transformers would copy the model at every step
            args._n_gpu = 1
        super().__init__(*positional, args=args, **named)
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds of the run, those before it was stopped included."""
        return self._seconds_before + time.monotonic() - self._begin

    @property
    def world(self) -> World:
        """Return which of how many processes this is."""
        return World(self.args.process_index, self.args.world_size)

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

    def entropy(self, step: int, part: int) -> tuple[int, ...]:
        """Return what the random numbers of a part of a step follow from."""
        return self.args.seed, step, part, self.args.process_index

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Return the model, of several processes in a shell: left bare, accelerate would put it into DDP, which
        averages.
        """
        return torch.nn.ModuleList([model]) if self.world.size > 1 and model is self.model else model

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Run one forward and backward; returns the loss. A subclass whose gradient is not that of `compute_loss` says
        so.
        """
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    # Saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.should_save:
            return
        counters = {
            "scheduler": self.lr_scheduler.state_dict(),
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "extra": {"seconds": self.seconds, **self.extra_state()},
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
        self._take_back(counters["extra"])

    def _take_back(self, extra: Mapping[str, Any]) -> None:
        self._seconds_before, self._begin = extra.get("seconds", 0.0), time.monotonic()
        self.load_extra_state(extra)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load nothing: `training_step` draws afresh."""

    # Steps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one forward and backward, with random numbers of its own; ModelError when its loss is no number: the mean
        of all processes' losses, lest one raises alone and the others wait.
        """
        step, part = self.state.global_step, self._part[1] + 1 if self._part[0] == self.state.global_step else 0
        self._part = step, part
        set_seed(int(np.random.SeedSequence(self.entropy(step, part)).generate_state(1)[0]))
        loss: torch.Tensor = self.accelerator.reduce(self.gradients(model, inputs, num_items_in_batch), "mean")
        self._loss = float(loss)
        self._check(self._loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        length = super()._clip_grad_norm(model)
        if length is not None:
            self._check(self._loss, float(length))
        return length

    def write_row(self, row: dict[str, Any]) -> None:
        """Append a row, with its step, to metrics.jsonl."""
        write_metrics(self.run, row)

    def _check(self, loss: float, gradient: float = 0.0) -> None:
        if fault := find_fault(loss, gradient, self.recent):
            step, products = self.state.global_step + 1, self.products_of_step()
            raise break_down(self.run, step, fault, products, first=self.args.should_save)


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Tells progress, writes metrics.jsonl, and stops the trainer after a saved state when the user interrupts."""

    def __init__(self, trainer: Any, steps_per_epoch: float, listener: Listener, stop: Stop) -> None:
        self.trainer = trainer
        self.steps_per_epoch, self.listener, self.stop = steps_per_epoch, listener, stop

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.listener.progress("training", state.global_step, state.max_steps)
        # The flag is agreed on, lest one process waits for another that has left.
        self.stop.wanted = any(gather_objects(self.stop.wanted, self.trainer.world))
        if self.stop.wanted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if not args.should_save or "train_runtime" in logs:
            return
        row = {"step": state.global_step, **logs, "epoch": state.global_step / self.steps_per_epoch}
        self.trainer.write_row({name: value for name, value in row.items() if name != "total_flos"})


def train_resumably(
    trainer: Any, listener: Listener, *, steps_per_epoch: float, at_start: Callable[[], object] | None = None
) -> int:
    """Train to the last step, from the last state if there is one; returns the step that it went on from (0: none).

    `at_start` is called before the first step of a new run. No process returns before the first one has written all
    there is. Raises KeyboardInterrupt after the first Ctrl-C, when a state has been saved; the second one stops at
    once.
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
            trainer._take_back(extra)
        else:
            trainer.train(resume_from_checkpoint=str(state) if state else None)
        if stop.wanted and not ended and trainer.state.global_step < steps:
            raise KeyboardInterrupt
    gather_objects(None, trainer.world)
    return resumed
