"""The loop of `train-agcl`: steps, validation, saved states, and stopping in good order.

A run's folder (`.afmrl/runs/train-agcl-<key>/`) holds state-<step> (what a killed run goes on from), best-<step> (the
adapter with the best validation recall so far), metrics.jsonl, and at the end the reports. The key is a hash of
everything that decides the result, so the same command finds its run again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import get_scheduler

from ..errors import UsageError
from ..listener import Listener
from ..models.embedder import Embedder
from ..models.presets import Base
from .adapter import save_adapter, trainable
from .agcl import Loss, false_negatives
from .loop import RECENT, begin, break_down, drop_other_bests, find_fault, keep_best, write_metrics
from .negatives import Negatives
from .pairs import Pair
from .parallel import World, gather_objects, sum_gradients
from .plan import Plan
from .state import load_state, save_state
from .step import Batch, Reader, accumulate, item_of, make_batch
from .stop import stop_between_steps
from .validation import make_validation


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


class Trainer:
    """One run; `train` does it. Everything a step depends on is in the plan, the state and the step's number."""

    def __init__(
        self, plan: Plan, embedder: Embedder, model: PeftModel, base: Base, run: Path, world: World, listener: Listener
    ) -> None:
        self.plan, self.settings, self.agcl = plan, plan.settings, plan.settings.agcl
        self.embedder, self.model, self.base = embedder, model, base
        self.run, self.world, self.listener = run, world, listener
        self.parameters = trainable(model)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), weight_decay=self.agcl.weight_decay)
        warmup = round(self.agcl.warmup * plan.steps)
        # A factor of the peak rate that follows from the number of steps done: nothing of it is in a state.
        self.schedule = get_scheduler(self.agcl.schedule, self.optimizer, warmup, plan.steps).lr_lambdas[0]
        self.reader = Reader(embedder, plan.settings)
        self.validation = make_validation(plan.corpus.validation, plan.settings)
        self.negatives = Negatives(masks=plan.loss.masked)
        self.progress = Progress()
        self.board: Any = None
        if self.agcl.tensorboard and world.first:
            _need_tensorboard()

    def train(self, card: str) -> int:
        """Go on from the last state to the last step; returns the step that it went on from (0: none). `card` is the
        text of the adapter's model card, `progress` says afterwards what came of it.

        Raises ModelError when the loss is no number or explodes, KeyboardInterrupt after a state was saved.
        """
        resumed = self._resume()
        with self._tensorboard(resumed):
            self._train(card, resumed)
        return resumed

    def _train(self, card: str, resumed: int) -> None:
        if self.validation is None:
            self.listener.warn(
                "the validation split has too few pairs to measure recall: the last step's adapter is kept "
                "(split.validation is its share)"
            )
        if resumed == 0:
            self.progress.start = self._validate(card)
        began, before = time.monotonic(), self.progress.seconds
        steps = self.plan.from_step(self.progress.epoch, self.progress.at)
        self.listener.progress("training", self.progress.step, self.plan.steps)
        with stop_between_steps() as stop:
            while self.progress.step < self.plan.steps:
                epoch, at, pairs = next(steps)
                metrics = self._step(pairs, self.progress.step + 1)
                self.progress.step, self.progress.epoch, self.progress.at = self.progress.step + 1, epoch, at
                self.progress.seconds = before + time.monotonic() - began
                step, last = self.progress.step, self.progress.step == self.plan.steps
                self._log({"step": step, "epoch": self._epochs(), **metrics})
                validates = last or step % self.agcl.validate_every == 0
                recall = self._validate(card) if validates else {}
                # The flag is agreed on, lest one process waits for another that has left.
                stops = any(gather_objects(stop.wanted, self.world))
                if validates or stops or step % self.agcl.save_every == 0:
                    self._save()
                    self._tell(metrics, recall)
                self.listener.progress("training", step, self.plan.steps)
                if stops:
                    raise KeyboardInterrupt
        self._tell_gain()

    def _step(self, pairs: list[Pair], step: int) -> dict[str, float]:
        began = time.monotonic()
        batch = make_batch(pairs, self.plan.lexical, self.plan.corpus.train)
        # Every process draws its own dropout; the state of a resumed run needs no random numbers.
        seed = np.random.SeedSequence((self.agcl.seed, step, self.world.rank)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, tokens = accumulate(self.reader, batch, self.plan.loss, self.agcl.chunk_tokens, self.world)
        sum_gradients(self.parameters.values(), self.world)
        length = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.agcl.clip))
        value = float(loss.value.detach())
        self._check(step, value, length, pairs)
        rate = self.plan.peak_rate * self.schedule(step - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._count(batch, loss)
        seconds = time.monotonic() - began
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
        bm25 = batch.bm25 if self.plan.loss.weighted else None
        similar = false_negatives(loss.cosines, self.agcl.mask_margin) & ~loss.known
        cosines, above, known = (each.cpu().numpy() for each in (loss.cosines, similar, loss.known))
        self.negatives.add(query, target, bm25, cosines, above & ~batch.rejected, known)

    def _check(self, step: int, loss: float, length: float, pairs: list[Pair]) -> None:
        """Stop before the optimiser takes over numbers that would spoil the weights."""
        if fault := find_fault(loss, length, self.progress.recent):
            train = self.plan.corpus.train
            products = [train[pair.query.listing].id for pair in pairs]
            raise break_down(self.run, step, fault, products, first=self.world.first)
        self.progress.recent = [*self.progress.recent, loss][-RECENT:]

    def _validate(self, card: str) -> dict[str, float]:
        """Measure recall; keep the adapter when it is the best, or the only, one."""
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
        """Return the vectors of `sides`, each process encoding its part."""
        self.model.eval()
        part = range(self.world.rank, len(sides), self.world.size)
        items = [item_of(sides[i]) for i in part]
        parts = gather_objects(self.embedder.encode(items, instruction=instruction), self.world)
        vectors = np.zeros((len(sides), self.embedder.dimension), np.float32)
        for rank, rows in enumerate(parts):
            vectors[rank :: self.world.size] = rows
        return vectors

    def _keep(self, card: str) -> None:
        if self.world.first:
            keep_best(
                self.run, self.progress.best_step, lambda folder: save_adapter(self.model, self.base, folder, card)
            )

    def _save(self) -> None:
        if not self.world.first:
            return
        counters = {"progress": asdict(self.progress), "negatives": self.negatives.as_json()}
        save_state(self.run, self.progress.step, self.parameters, self.optimizer, counters)
        drop_other_bests(self.run, self.progress.best_step)

    def _resume(self) -> int:
        """Go on from the last state; the step after which it was saved, 0 for a new run."""
        if state := begin(self.run, first=self.world.first):
            counters = load_state(state, self.parameters, self.optimizer)
            self.progress = Progress(**counters["progress"])
            self.negatives = Negatives.from_json(counters["negatives"])
            self.listener.note(f"going on after step {self.progress.step} of {self.plan.steps}")
        return self.progress.step

    @contextlib.contextmanager
    def _tensorboard(self, resumed: int) -> Iterator[None]:
        """Write event files while it lasts, when they are wanted; what a killed run wrote after its last state is
        hidden.
        """
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
        write_metrics(self.run, row)
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))

    def _tell_gain(self) -> None:
        """Report whether training brought anything: the best step is kept even when it is worse than no training at
        all.
        """
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

    def _tell(self, metrics: dict[str, float], recall: dict[str, float]) -> None:
        name = self.agcl.best_by
        found = f", validation {name} {recall[name]:.3f}" if recall else ""
        speed = f"{metrics['samples_per_second']:.1f} pairs a second"
        self.listener.note(f"step {self.progress.step}: loss {metrics['loss']:.4f}{found}, {speed}")


def _need_tensorboard() -> None:
    """Check for it before the training starts."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        hint = "pip install 'afmrl-cli[tensorboard]'"
        raise UsageError("agcl.tensorboard needs the package tensorboard", hint) from error
