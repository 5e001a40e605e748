"""AGCL by transformers' Trainer: a step of the trainer is one whole batch, whose gradient is cached inside the step.

Every process reads the batch's pairs from the plan, encodes its share of them, and computes the whole loss; gradients
are summed over the processes, not averaged (`parallel`). So nothing here is wrapped for data parallelism, and no data
loader divides anything. Adapters are kept by the validation's recall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from ..errors import UsageError
from ..listener import Listener
from ..models.embedder import Embedder
from ..models.presets import Base
from .adapter import save_adapter, trainable
from .agcl import Loss, false_negatives
from .batch_trainer import BatchTrainer
from .loop import common_arguments
from .margin import Margin
from .negatives import Negatives
from .pairs import Pair, Side
from .parallel import sum_gradients
from .plan import Plan
from .step import Batch, Reader, accumulate, encode_sides, make_batch
from .validation import make_validation


class AgclTrainer(BatchTrainer):
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
        self.pairs: list[Pair] = []
        self.board: Any = None
        device = embedder.loaded.device.type
        arguments = common_arguments(self.agcl, run, steps=plan.steps, peak_rate=plan.peak_rate, device=device)
        super().__init__(plan.from_step, self.agcl, arguments, model)
        if self.agcl.tensorboard and self.world.first:
            _need_tensorboard()

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

    def validate(self) -> dict[str, float]:
        """Measure recall."""
        return self.validation.recall(self._encode, self.settings) if self.validation else {}

    def save_best(self, folder: Path) -> None:
        """Write the adapter as it is now, and its card."""
        save_adapter(self.model, self.base, folder, self.card(self.margin.summary()))

    def _encode(self, sides: Sequence[Side], instruction: str) -> NDArray[np.float32]:
        return encode_sides(self.embedder, sides, instruction, self.world)

    # Saving and telling

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress, what is counted of negatives, and what is summed of the loss's gradient."""
        counted = {"negatives": self.negatives.as_json(), "margin": asdict(self.margin)}
        return {**super().extra_state(), **counted}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        super().load_extra_state(counters)
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


def _need_tensorboard() -> None:
    """Check for it before the training starts."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        hint = "pip install 'afmrl-cli[tensorboard]'"
        raise UsageError("agcl.tensorboard needs the package tensorboard", hint) from error
