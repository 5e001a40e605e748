"""The loop of `train-agcl`: steps, validation, saved states, and stopping in good order.

A run's folder (`.afmrl/runs/train-agcl-<key>/`) holds state-<step> (what a killed run goes on from), best-<step> (the
adapter with the best validation recall so far), metrics.jsonl, and at the end the reports. The key is a hash of
everything that decides the result, so the same command finds its run again.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from ..errors import ModelError, UsageError
from ..listener import Listener
from ..models.embedder import Embedder
from ..models.presets import Base
from ..store.files import write_json, writing_folder
from .adapter import save_adapter, trainable
from .agcl import Loss, false_negatives
from .negatives import Negatives
from .pairs import Pair
from .parallel import World, gather_objects, sum_gradients
from .plan import Plan
from .state import cut_metrics, find_states, load_state, save_state
from .step import Batch, Reader, accumulate, item_of, learning_rate, make_batch, make_optimizer
from .stop import stop_between_steps
from .validation import make_validation

RECENT = 20
EXPLODED = 5.0
"""A loss above this many times the recent median, plus this, has exploded."""


@dataclass
class Progress:
    """What a state holds beside tensors: where the run is, and the best so far."""

    step: int = 0
    epoch: int = 0
    at: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    start: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The end of a run: `adapter` is the PEFT folder of the best step, `metrics` its figures."""

    adapter: Path
    metrics: dict[str, float]
    steps: int
    resumed_from: int
    seconds: float


class Trainer:
    """One run; `train` does it. Everything a step depends on is in the plan, the state and the step's number."""

    def __init__(
        self, plan: Plan, embedder: Embedder, model: PeftModel, base: Base, run: Path, world: World, listener: Listener
    ) -> None:
        self.plan, self.settings, self.agcl = plan, plan.settings, plan.settings.agcl
        self.embedder, self.model, self.base = embedder, model, base
        self.run, self.world, self.listener = run, world, listener
        self.parameters = trainable(model)
        self.optimizer = make_optimizer(self.parameters.values(), self.agcl)
        self.reader = Reader(embedder, plan.settings)
        self.validation = make_validation(plan.corpus.validation, plan.settings)
        self.negatives = Negatives(masks=self.agcl.mask and self.agcl.loss == "agcl")
        self.progress = Progress()
        self.board: Any = None
        if self.agcl.tensorboard and world.first:
            _need_tensorboard()

    def train(self, card: str) -> Trained:
        """Go on from the last state to the last step. `card` is the text of the adapter's model card.

        Raises ModelError when the loss is no number or explodes, KeyboardInterrupt after a state was saved.
        """
        resumed = self._resume()
        with self._tensorboard(resumed):
            return self._train(card, resumed)

    def _train(self, card: str, resumed: int) -> Trained:
        if self.validation is None:
            self.listener.warn(
                "the validation split has too few pairs to measure recall: the last step's adapter is kept "
                "(split.validation is its share)"
            )
        if resumed == 0:
            self.progress.start = self._validate(card)
        begin, before = time.monotonic(), self.progress.seconds
        steps = self.plan.from_step(self.progress.epoch, self.progress.at)
        self.listener.progress("training", self.progress.step, self.plan.steps)
        with stop_between_steps() as stop:
            while self.progress.step < self.plan.steps:
                epoch, at, pairs = next(steps)
                told = self._step(pairs, self.progress.step + 1)
                self.progress.step, self.progress.epoch, self.progress.at = self.progress.step + 1, epoch, at
                self.progress.seconds = before + time.monotonic() - begin
                step, last = self.progress.step, self.progress.step == self.plan.steps
                self._log({"step": step, "epoch": self._epochs(), **told})
                looked = last or step % self.agcl.validate_every == 0
                recall = self._validate(card) if looked else {}
                # The flag is agreed on, lest one process waits for another that has left.
                wanted = any(gather_objects(stop.wanted, self.world))
                if looked or wanted or step % self.agcl.save_every == 0:
                    self._save()
                    self._tell(told, recall)
                self.listener.progress("training", step, self.plan.steps)
                if wanted:
                    raise KeyboardInterrupt
        self._tell_gain()
        best = self.run / f"best-{self.progress.best_step}"
        return Trained(best, dict(self.progress.best), self.plan.steps, resumed, self.progress.seconds)

    def _step(self, pairs: list[Pair], step: int) -> dict[str, float]:
        begin = time.monotonic()
        batch = make_batch(pairs, self.plan.lexical, self.plan.corpus.train)
        # Every process draws its own dropout; the state of a resumed run needs no random numbers.
        seed = np.random.SeedSequence((self.agcl.seed, step, self.world.rank)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, tokens = accumulate(self.reader, batch, self.agcl, self.world)
        sum_gradients(self.parameters.values(), self.world)
        length = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.agcl.clip))
        value = float(loss.value.detach())
        self._check(step, value, length, pairs)
        rate = learning_rate(step, self.plan.steps, self.agcl, self.plan.peak_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._count(batch, loss)
        seconds = time.monotonic() - begin
        return {
            "loss": value,
            "grad_norm": length,
            "learning_rate": rate,
            "positive_cosine": float(loss.cosines.diagonal().mean()),
            "masked": float(loss.too_similar.sum()) / loss.cosines.numel(),
            "num_tokens": float(tokens * self.world.size),
            "samples_per_second": len(pairs) / seconds,
        }

    def _count(self, batch: Batch, loss: Loss) -> None:
        query = np.array([pair.query.listing for pair in batch.pairs])
        target = np.array([pair.target.listing for pair in batch.pairs])
        bm25 = batch.bm25 if self.agcl.loss == "agcl" else None
        similar = false_negatives(loss.cosines, self.agcl.mask_margin) & ~loss.known
        cosines, above, known = (each.cpu().numpy() for each in (loss.cosines, similar, loss.known))
        self.negatives.add(query, target, bm25, cosines, above & ~batch.rejected, known)

    def _check(self, step: int, loss: float, length: float, pairs: list[Pair]) -> None:
        """Stop before the optimiser takes over numbers that would spoil the weights."""
        recent = deque(self.progress.recent, maxlen=RECENT)
        usual = statistics.median(recent) if len(recent) == RECENT else math.inf
        if math.isfinite(loss) and math.isfinite(length) and loss <= EXPLODED * usual + EXPLODED:
            recent.append(loss)
            self.progress.recent = list(recent)
            return
        train = self.plan.corpus.train
        ids = [train[pair.query.listing].id for pair in pairs]
        states = find_states(self.run)
        good = f"the last good state is {states[-1]}" if states else "there is no state yet"
        if self.world.first:
            write_json(self.run / "failed-batch.json", {"step": step, "loss": str(loss), "products": ids})
        what = f"loss {loss:g}, gradient {length:g}"
        raise ModelError(
            f"step {step}: training broke down ({what}) on products {', '.join(ids[:8])}"
            + (f" and {len(ids) - 8} more (failed-batch.json)" if len(ids) > 8 else "")
            + f"; {good}",
            "lower agcl.learning_rate or raise agcl.temperature; look at these products; try model.precision=fp32",
        )

    def _validate(self, card: str) -> dict[str, float]:
        """Recall now; keeps the adapter when it is the best, or the only, one."""
        recall: dict[str, float] = {}
        if self.validation is not None:
            recall = self.validation.recall(self._encode, self.settings)
            step = self.progress.step
            self._log({"step": step, "epoch": self._epochs(), **{f"eval_{k}": v for k, v in recall.items()}})
        name = self.agcl.best_by
        last = self.progress.step == self.plan.steps
        better = bool(recall) and recall[name] >= self.progress.best.get(name, -1.0)
        if self.progress.step and (better or (last and not self.progress.best_step)):
            self.progress.best, self.progress.best_step = recall, self.progress.step
            self._keep(card)
        return recall

    def _encode(self, sides: Any, instruction: str) -> Any:
        """Vectors of `sides`, each process encoding its part."""
        self.model.eval()
        part = range(self.world.rank, len(sides), self.world.size)
        items = [item_of(sides[i]) for i in part]
        parts = gather_objects(self.embedder.encode(items, instruction=instruction), self.world)
        vectors = np.zeros((len(sides), self.embedder.dimension), np.float32)
        for rank, rows in enumerate(parts):
            vectors[rank :: self.world.size] = rows
        return vectors

    def _keep(self, card: str) -> None:
        if not self.world.first:
            return
        place = self.run / f"best-{self.progress.best_step}"
        if not place.exists():
            with writing_folder(place) as folder:
                save_adapter(self.model, self.base, folder, card)
        # The one before stays until a state names the new one: a kill in between goes on from the old state.

    def _save(self) -> None:
        if not self.world.first:
            return
        counters = {"progress": asdict(self.progress), "negatives": self.negatives.as_json()}
        save_state(self.run, self.progress.step, self.parameters, self.optimizer, counters)
        for other in self.run.glob("best-*"):
            if other.name != f"best-{self.progress.best_step}":
                shutil.rmtree(other)

    def _resume(self) -> int:
        """The step that the run goes on from, 0 for a new one."""
        states = find_states(self.run)
        if states:
            counters = load_state(states[-1], self.parameters, self.optimizer)
            self.progress = Progress(**counters["progress"])
            self.negatives = Negatives.from_json(counters["negatives"])
            self.listener.note(f"going on after step {self.progress.step} of {self.plan.steps}")
        if self.world.first:
            for folder in self.run.glob("best-*"):
                if int(folder.name.removeprefix("best-")) > self.progress.step:
                    shutil.rmtree(folder)
            cut_metrics(self.run / "metrics.jsonl", self.progress.step if states else -1)
        return self.progress.step

    @contextlib.contextmanager
    def _tensorboard(self, resumed: int) -> Iterator[None]:
        """Event files while it lasts, when they are wanted; what a killed run wrote after its last state is hidden."""
        if not (self.agcl.tensorboard and self.world.first):
            yield
            return
        from torch.utils.tensorboard import SummaryWriter

        begin = resumed + 1 if resumed else 0
        with SummaryWriter(str(self.run / "tensorboard"), purge_step=begin) as self.board:
            yield
        self.board = None

    def _epochs(self) -> float:
        return self.progress.step / self.plan.steps_per_epoch

    def _log(self, row: dict[str, float]) -> None:
        if not self.world.first:
            return
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))

    def _tell_gain(self) -> None:
        """Whether training brought anything: the best step is kept even when it is worse than no training at all."""
        name = self.agcl.best_by
        if name not in self.progress.start:
            return
        before, after = self.progress.start[name], self.progress.best[name]
        said = f"validation {name}: {before:.3f} before training, {after:.3f} at the best step"
        if after > before:
            self.listener.note(said)
        else:
            hint = "train longer, lower agcl.learning_rate, or stay with what you had"
            self.listener.warn(f"{said}: nothing was gained; {hint}")

    def _tell(self, told: dict[str, float], recall: dict[str, float]) -> None:
        name = self.agcl.best_by
        found = f", validation {name} {recall[name]:.3f}" if recall else ""
        speed = f"{told['samples_per_second']:.1f} pairs a second"
        self.listener.note(f"step {self.progress.step}: loss {told['loss']:.4f}{found}, {speed}")


def _need_tensorboard() -> None:
    """Said before the training starts."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        hint = "pip install 'afmrl-cli[tensorboard]'"
        raise UsageError("agcl.tensorboard needs the package tensorboard", hint) from error
