"""Transformers' Trainer on groups: the verdict on each pair, and which pair of a group is the right one.

    L = mean over groups of  (softplus(-s_0) + mean_i softplus(s_i)) / 2       s_0: the positive's, s_i: a negative's

s is logit(yes) - logit(no) (`models.reranker`), so that this is the cross entropy of the two words, in which a group's
positive weighs as much as all of its negatives. A pair is read in one order, which is sampled; validation reads both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import softplus
from transformers import Trainer, TrainingArguments

from ..listener import Listener
from ..models.presets import Base
from ..models.reranker import Reranker, Scores
from ..training.adapter import save_adapter
from ..training.loop import Resumable, common_arguments
from ..training.step import item_of
from .groups import Group, Groups
from .validation import Ranking, metrics_of

PICTURES, SIZES = "pictures", "sizes"
"""Where a batch holds its photos, and how many pairs each group has, beside the tensors."""


class Collator:
    """Groups -> what `loss_of` takes: their pairs as rows, the positive of each group first."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def __call__(self, groups: Sequence[Group]) -> dict[str, Any]:
        """Collate groups. Raises ImageProblem for a photo that can't be opened any more."""
        pairs = []
        for group in groups:
            query = item_of(group.query)
            for target, swapped in zip(map(item_of, group.targets), group.swapped, strict=True):
                pairs.append(self.reranker.read((target, query) if swapped else (query, target)))
        pictures = [[photo for side in pair for photo in side.photos] for pair in pairs]
        batch = self.reranker.vision.tokens([self.reranker.text(pair) for pair in pairs], pictures)
        shown = [picture for row in pictures for picture in row]
        return {**batch, PICTURES: shown, SIZES: [len(group.targets) for group in groups]}


def loss_of(model: Any, batch: Mapping[str, Any], reranker: Reranker) -> torch.Tensor:
    """Return L of a batch of `Collator`."""
    rows = {name: value for name, value in batch.items() if name not in (PICTURES, SIZES)}
    inputs = reranker.vision.inputs({**rows, **reranker.vision.show(batch[PICTURES])}, reranker.loaded.device)
    losses = []
    for scores in torch.split(reranker.differences(model, inputs), batch[SIZES]):
        wrong = softplus(scores[1:]).mean() if len(scores) > 1 else scores.new_zeros(())
        losses.append((softplus(-scores[0]) + wrong) / 2)
    return torch.stack(losses).mean()


class RerankTrainer(Resumable, Trainer):  # type: ignore[misc]
    """Trains the adapter that hangs on `reranker`."""

    def __init__(
        self,
        groups: Groups,
        ranking: Ranking | None,
        reranker: Reranker,
        model: PeftModel,
        run: Path,
        save: Callable[[Path], None],
        listener: Listener,
    ) -> None:
        plan, rerank = groups.plan, groups.plan.settings.rerank
        device = reranker.loaded.device.type
        args = TrainingArguments(
            per_device_train_batch_size=plan.chunk,
            gradient_accumulation_steps=rerank.batch_size // plan.chunk,
            eval_strategy="steps" if ranking is not None else "no",
            eval_steps=rerank.validate_every,
            **common_arguments(rerank, run, steps=plan.steps, peak_rate=plan.peak_rate, device=device),
        )
        super().__init__(
            model,
            args=args,
            data_collator=Collator(reranker),
            train_dataset=groups,
            eval_dataset=None if ranking is None else ranking.queries,
        )
        self.plan, self.ranking, self.reranker, self.save, self.listener = plan, ranking, reranker, save, listener
        self.best: dict[str, float] = {}

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Rerank the validation queries; keep the adapter when its mrr is the best so far, of equals by auc."""
        assert self.ranking is not None
        self.model.eval()
        began = time.monotonic()
        scores = rerank_validation(self.ranking, self.reranker, self.listener)
        pairs = sum(map(len, scores))
        found = metrics_of(self.ranking, scores)
        found["seconds_per_pair"] = (time.monotonic() - began) / max(1, pairs)
        self.log({f"eval_{key}": value for key, value in found.items()})
        step = self.state.global_step
        self.listener.note(
            f"step {step}: validation hit@1 {found['hit@1']:.3f}, mrr {found['mrr']:.3f} (embedder alone "
            f"{found['hit@1_embedder']:.3f}, {found['mrr_embedder']:.3f}; weight {found['weight']:.1f}), "
            f"auc {found['auc']:.3f}, flipped {found['flipped']:.3f}"
        )
        if not self.best or (found["mrr"], found["auc"]) > (self.best["mrr"], self.best["auc"]):
            self.best = {"step": step, **found}
            self.keep_best(self.save)
        self.control.should_evaluate, self.control.should_save = False, True
        return {f"eval_{key}": value for key, value in found.items()}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        """Compute L."""
        return loss_of(model, inputs, self.reranker)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.reranker.vision.flush()
        # Without a validation split the last adapter is the one to keep.
        if self.ranking is None and self.state.global_step == self.plan.steps:
            self.keep_best(self.save)
        super()._save_checkpoint(model, trial)

    def products_of_step(self) -> list[str]:
        """Return the ids of the listings that ask in the step at hand."""
        size, train = self.plan.settings.rerank.batch_size, self.plan.corpus.train
        begin = self.state.global_step * size
        return [train[self.plan.pair(i).query.listing].id for i in range(begin, begin + size)]

    def extra_state(self) -> Mapping[str, Any]:
        """Return what the end of the run tells."""
        return {"best": self.best}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Take it back."""
        self.best = counters["best"]


def rerank_validation(ranking: Ranking, reranker: Reranker, listener: Listener) -> list[Scores]:
    """Return the scores [k, 2] of the candidates of each query in `ranking.asked`."""
    scores: list[Scores] = []
    for i in ranking.asked:
        query = item_of(ranking.queries[i])
        scores.append(reranker.score([(query, item_of(side)) for side in ranking.candidates[i]]))
        listener.progress("validation", len(scores), len(ranking.asked))
    return scores


def save_as(model: PeftModel, base: Base, card: str) -> Callable[[Path], None]:
    """Return what writes the adapter's folder."""
    return lambda folder: save_adapter(model, base, folder, card)
