"""AGCL by transformers' Trainer: a step of the trainer is one whole batch, whose gradient is cached inside the step.

Every process reads the batch's pairs from the plan, encodes its share of them, and computes the whole loss; gradients
are summed over the processes, not averaged (`parallel`). So nothing here is wrapped for data parallelism, and no data
loader divides anything. Adapters are kept by the validation's recall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import Trainer, TrainingArguments

from ..errors import UsageError
from ..listener import Listener
from ..models.embedder import Embedder
from ..models.presets import Base
from .adapter import save_adapter, trainable
from .agcl import Loss, false_negatives
from .loop import RECENT, Resumable, common_arguments
from .margin import Margin
from .negatives import Negatives
from .pairs import Pair
from .parallel import gather_objects, sum_gradients
from .plan import Plan
from .step import Batch, Reader, accumulate, item_of, make_batch
from .validation import make_validation


@dataclass
class Progress:
    """What a state holds beside tensors: where the next batch stands, metrics of start and best step, last losses."""

    epoch: int = 0
    at: int = 0
    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)


class AgclTrainer(Resumable, Trainer):  # type: ignore[misc]
    """One run of `plan` in the folder `run`; everything a step depends on is in the plan, the state and its number."""

    def __init__(
        self,
        plan: Plan,
        embedder: Embedder,
        model: PeftModel,
        base: Base,
        run: Path,
        card: Callable[[Mapping[str, float] | None], str],
        listener: Listener,
    ) -> None:
        self.plan, self.settings, self.agcl = plan, plan.settings, plan.settings.agcl
        self.embedder, self.base, self.card, self.listener = embedder, base, card, listener
        self.reader = Reader(embedder, plan.settings)
        self.validation = make_validation(plan.corpus.validation, plan.settings)
        self.negatives = Negatives(masks=plan.loss.masked)
        self.margin = Margin()
        self.progress = Progress()
        self.pairs: list[Pair] = []
        self.step_metrics: dict[str, float] = {}
        self.recall: dict[str, float] = {}
        self.board: Any = None
        device = embedder.loaded.device.type
        arguments = common_arguments(self.agcl, run, steps=plan.steps, peak_rate=plan.peak_rate, device=device)
        args = TrainingArguments(
            eval_strategy="steps",
            eval_steps=self.agcl.validate_every,
            ignore_data_skip=True,  # the state says where the next batch stands
            **arguments,
        )
        super().__init__(model, args=args, eval_dataset=plan.corpus.validation)
        if self.agcl.tensorboard and self.world.first:
            _need_tensorboard()

    def get_train_dataloader(self) -> Any:
        """Return the plan's batches, the same in every process, from where the run stands when they are asked for."""
        return _Batches(self)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Return the model in a shell: left bare, accelerate would put it into DDP, which averages."""
        return torch.nn.ModuleList([model]) if model is self.model else model

    def entropy(self, step: int, part: int) -> tuple[int, ...]:
        """Return what dropout follows from; every process draws its own."""
        return self.args.seed, step + 1, self.args.process_index

    # Steps

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Leave the gradient of a whole batch, that of all processes, in the adapter's parameters; returns its loss."""
        began = time.monotonic()
        epoch, at, self.pairs = inputs
        batch = make_batch(self.pairs, self.plan.lexical, self.plan.corpus.train)
        self.model.train()
        loss, tokens = accumulate(self.reader, batch, self.plan.loss, self.agcl.chunk_tokens, self.world)
        sum_gradients(trainable(self.model).values(), self.world)
        self._count(batch, loss)
        self.progress.epoch, self.progress.at = epoch, at
        self.step_metrics = {
            "positive_cosine": float(loss.cosines.diagonal().mean()),
            "masked": float(loss.too_similar.sum()) / loss.cosines.numel(),
            "num_tokens": float(tokens * self.world.size),
            "samples_per_second": len(self.pairs) / (time.monotonic() - began),
        }
        return loss.value.detach()

    def _count(self, batch: Batch, loss: Loss) -> None:
        query = np.array([pair.query.listing for pair in batch.pairs])
        target = np.array([pair.target.listing for pair in batch.pairs])
        weights = None
        if self.plan.loss.weighted and loss.log_weight is not None:
            weights = batch.bm25, loss.log_weight.double().cpu().numpy()
        similar = false_negatives(loss.cosines, self.agcl.mask_margin) & ~loss.known
        cosines, above, known = (each.cpu().numpy() for each in (loss.cosines, similar, loss.known))
        self.negatives.add(query, target, weights, cosines, above & ~batch.rejected, known)
        if not self.plan.loss.plain:
            self.margin.add(loss, self.agcl.temperature)

    def products_of_step(self) -> list[str]:
        """Return the ids of the products that ask in the step at hand."""
        return [self.plan.corpus.train[pair.query.listing].id for pair in self.pairs]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line a step: transformers' metrics, and what the batch was like."""
        if "loss" in logs:
            self.step_metrics["loss"] = logs["loss"]
            self.recent = self.progress.recent = [*self.progress.recent, logs["loss"]][-RECENT:]
            logs = logs | self.step_metrics
        super().log(logs, start_time)

    def write_row(self, row: dict[str, Any]) -> None:
        """Write it into TensorBoard's files, too, when they are wanted; what a killed run wrote from there on is
        hidden.
        """
        super().write_row(row)
        if self.agcl.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = self.board or SummaryWriter(str(self.run / "tensorboard"), purge_step=row["step"])
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))

    # Validation

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Measure recall; keep the adapter when it is the best, or the only, one."""
        step, name = self.state.global_step, self.agcl.best_by
        self.recall = {}
        if self.validation is not None:
            self.recall = self.validation.recall(self._encode, self.settings)
            self.log({f"eval_{key}": value for key, value in self.recall.items()})
        if step == 0:
            self.progress.start = self.recall
        elif (self.recall and self.recall[name] >= self.progress.best.get(name, -1.0)) or (
            step == self.plan.steps and not self.state.best_global_step
        ):
            self.progress.best = self.recall
            self.keep_best(self._save_best)
        self.control.should_evaluate, self.control.should_save = False, step > 0
        return {f"eval_{key}": value for key, value in self.recall.items()}

    def _save_best(self, folder: Path) -> None:
        save_adapter(self.model, self.base, folder, self.card(self.margin.summary()))

    def _encode(self, sides: Any, instruction: str) -> Any:
        """Return the vectors of `sides`, each process encoding its part."""
        self.model.eval()
        rank, size = self.world.rank, self.world.size
        items = [item_of(side) for side in sides[rank::size]]
        parts = gather_objects(self.embedder.encode(items, instruction=instruction), self.world)
        vectors = np.zeros((len(sides), self.embedder.dimension), np.float32)
        for i, rows in enumerate(parts):
            vectors[i::size] = rows
        return vectors

    # Saving and telling

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        name, step, found = self.agcl.best_by, self.step_metrics, ""
        if self.recall:
            found, self.recall = f", validation {name} {self.recall[name]:.3f}", {}
        speed = f"{step['samples_per_second']:.1f} pairs a second"
        self.listener.note(f"step {self.state.global_step}: loss {step['loss']:.4f}{found}, {speed}")

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress, what is counted of negatives, and what is summed of the loss's gradient."""
        counted = {"negatives": self.negatives.as_json(), "margin": asdict(self.margin)}
        return {"progress": asdict(self.progress), **counted}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        self.progress = Progress(**counters["progress"])
        self.recent = self.progress.recent
        self.negatives = Negatives.from_json(counters["negatives"])
        self.margin = Margin(**counters.get("margin", {}))  # states of earlier versions have none

    def tell_gain(self) -> None:
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


@dataclass(frozen=True)
class _Batches:
    """The batches from where `trainer` stands on, without end: (epoch, number of the next one in it, pairs)."""

    trainer: AgclTrainer

    def __iter__(self) -> Iterator[tuple[int, int, list[Pair]]]:
        return self.trainer.plan.from_step(self.trainer.progress.epoch, self.trainer.progress.at)


def _need_tensorboard() -> None:
    """Check for it before the training starts."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        hint = "pip install 'afmrl-cli[tensorboard]'"
        raise UsageError("agcl.tensorboard needs the package tensorboard", hint) from error
