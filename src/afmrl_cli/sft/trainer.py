"""Transformers' Trainer on answers: the tensors of a batch, the loss on the answer alone, and validation by generating.

    loss = - sum over the tokens of the answers of log p(token | prompt, photos, tokens before) / number of those tokens

(of pairs another one: `pairs`). A row is what generation would read (`LocalGenerator.text`, the same photos) with the
answer and the end of the turn after it. Rows are padded on the left, so that all answers end in the last column, and
scores over the vocabulary are computed for the last columns only: with a real vocabulary they would take most of the
memory. The vision tower sees a photo once in all epochs (vision.py), and only when it is its chunk's turn: the trainer
makes the batches of a step beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from ..attributes.task import AttributeTask
from ..errors import ModelError
from ..listener import Listener
from ..models.generator import LocalGenerator
from ..models.processor import Processor
from ..settings import Settings
from ..training.adapter import save_adapter, trainable
from ..training.loop import Resumable, common_arguments
from ..training.parallel import gather_objects, mean_gradients
from ..training.shell import Job
from .corpus import Example
from .pair_score import PairScore
from .pairs import PairExample, PairPlan
from .plan import Plan
from .score import Score, joined

IGNORED = -100
"""The label of a token that has no part in the loss."""
PICTURES = "pictures"
"""Where a batch holds its photos beside the tensors; `with_pictures` puts them in."""
TARGETS, WEIGHTS = "targets", "weights"
"""Where it holds labels of which not all weigh the same, and what they weigh."""


class Collator:
    """Examples -> what `with_pictures` takes, with labels."""

    def __init__(self, generator: LocalGenerator, task: AttributeTask, settings: Settings) -> None:
        self.generator, self.task, self.settings = generator, task, settings
        self.end = end_of_turn(generator.processor)

    def __call__(self, examples: Sequence[Example | PairExample]) -> dict[str, Any]:
        """Collate examples; `labels` [n, t] are those of the last t columns (`logits_to_keep`), at least one of
        them before the answer.

        Raises ModelError when the tokenizer joins prompt and answer, or a row is longer than the model's positions.
        """
        rows = [example.row(self.generator, self.task, self.settings) for example in examples]
        answers, pictures = [row.answer + self.end for row in rows], [row.photos for row in rows]
        texts = [row.prompt + answer for row, answer in zip(rows, answers, strict=True)]
        batch = self.generator.vision.tokens(texts, pictures)
        labels = label_answers(self.generator.processor, batch["input_ids"], answers)
        shown = [picture for row in pictures for picture in row]
        made = {**batch, PICTURES: shown, "logits_to_keep": labels.shape[1], "use_cache": False}
        if not any(row.by_line for row in rows):
            return {**made, "labels": labels}
        # Under another name: of labels transformers counts all tokens of a step, and divides the loss by that.
        return {**made, TARGETS: labels, WEIGHTS: self._by_line(answers, labels.shape[1])}

    def _by_line(self, answers: Sequence[str], width: int) -> torch.Tensor:
        """Return weights [n, width] of the tokens that end there: each answer's add up to 1, and so does each line's
        share.
        """
        weights = torch.zeros(len(answers), width)
        found = self.generator.processor.tokenizer(list(answers), return_offsets_mapping=True)["offset_mapping"]
        for row, answer, places in zip(weights, answers, found, strict=True):
            lines = torch.tensor([answer.count("\n", 0, begin) for begin, _ in places])
            sizes = torch.bincount(lines)
            row[width - len(lines) :] = 1 / (sizes[lines] * (sizes > 0).sum())
        return weights


def loss_of(model: Any, batch: Mapping[str, Any], generator: LocalGenerator) -> torch.Tensor:
    """Return the loss of a batch of `Collator`."""
    inputs = with_pictures(batch, generator)
    if TARGETS not in inputs:
        whole: torch.Tensor = model(**inputs).loss
        return whole
    targets, weights = inputs.pop(TARGETS)[:, 1:], inputs.pop(WEIGHTS)[:, 1:]
    scores = model(**inputs).logits[:, :-1].float().transpose(1, 2)
    losses: torch.Tensor = cross_entropy(scores, targets, ignore_index=IGNORED, reduction="none")
    weighed: torch.Tensor = (weights * losses).sum() / len(targets)
    return weighed


def end_of_turn(processor: Processor) -> str:
    """Return the token that an answer ends with."""
    tokenizer = processor.tokenizer
    known = tokenizer.get_vocab()
    return str(next((token for token in processor.family.end_tokens if token in known), tokenizer.eos_token))


def label_answers(processor: Processor, ids: torch.Tensor, answers: Sequence[str]) -> torch.Tensor:
    """Return the labels [n, t] of the last t columns of `ids` [n, length], rows that end in `answers`; at least one
    column is before the answer. ModelError when the tokenizer joins what stands before an answer with its beginning.
    """
    tokens = processor.tokenizer(list(answers))["input_ids"]
    kept = max(map(len, tokens)) + 1
    labels = torch.full((len(tokens), kept), IGNORED)
    for i, answer in enumerate(tokens):
        labels[i, kept - len(answer) :] = ids[i, -len(answer) :]
        if ids[i, -len(answer) :].tolist() != answer:
            raise ModelError(
                "the tokenizer joins the prompt's end with the answer's beginning",
                "use a model whose chat template ends in a line break, as Qwen's do",
            )
    return labels


def with_pictures(batch: Mapping[str, Any], generator: LocalGenerator) -> dict[str, Any]:
    """Return what the model's forward takes of a batch of `Collator`, on the model's device."""
    rest = {name: value for name, value in batch.items() if name != PICTURES}
    shown = generator.vision.show(batch[PICTURES])
    return {**rest, **generator.vision.inputs({**rest, **shown}, generator.loaded.device)}


def better(found: Mapping[str, Any], best: Mapping[str, Any], by: str) -> bool:
    """Tell whether a validation's metrics are better by `by`; of equals, those with more valid answers are."""
    return (found[by], found["valid"]) > (best[by], best["valid"])


class SftTrainer(Resumable, Trainer):  # type: ignore[misc]
    """Trains the adapter that hangs on `generator`; `save` writes an adapter's folder."""

    def __init__(
        self,
        plan: Plan | PairPlan,
        generator: LocalGenerator,
        model: PeftModel,
        run: Path,
        job: Job,
        card: str,
        listener: Listener,
    ) -> None:
        sft, world = plan.settings.sft, job.world
        device, chunk = generator.loaded.device.type, plan.chunk(world)
        arguments = common_arguments(sft, run, steps=plan.steps, peak_rate=plan.peak_rate, device=device)
        args = TrainingArguments(
            per_device_train_batch_size=chunk,
            gradient_accumulation_steps=sft.batch_size // (chunk * world.size),
            eval_strategy="steps" if plan.validation else "no",
            eval_steps=sft.validate_every,
            **arguments,
        )
        super().__init__(
            model,
            args=args,
            data_collator=Collator(generator, plan.task, plan.settings),
            train_dataset=plan,
            eval_dataset=plan.validation or None,
        )
        self.plan, self.generator, self.listener = plan, generator, listener
        self.save: Callable[[Path], None] = lambda folder: save_adapter(model, job.base, folder, card)
        self.before: dict[str, Any] = {}
        self.best: dict[str, Any] = {}

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Answer about the validation products; keep the adapter when it is the best so far, of equals that with more
        valid answers.
        """
        self.model.eval()
        plan = self.plan
        score = joined(gather_objects(plan.score(self.generator, self.world, self.listener), self.world))
        found, name = score.metrics(), plan.settings.sft.best_by
        self.log({f"eval_{key}": value for key, value in found.items()})
        step = self.state.global_step
        self.listener.note(
            f"step {step}: validation accuracy {found['accuracy']:.3f}, valid {found['valid']:.3f}, "
            f"{found['length']:.1f} tokens an answer" + _losses(score)
        )
        details = {"step": step, **found, "keys": score.by_key(), "failures": score.failures}
        if step == 0:
            self.before = details
        elif not self.best or better(found, self.best, name):
            self.best = details
            self.keep_best(self.save)
        self.control.should_evaluate, self.control.should_save = False, step > 0
        return {f"eval_{key}": value for key, value in found.items()}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        """Compute transformers' loss, the batch's photos put in; of pairs their own."""
        if TARGETS in inputs:
            return loss_of(self.model, inputs, self.generator)
        return super().compute_loss(self.model, with_pictures(inputs, self.generator), *args, **named)

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Run one forward and backward; the last one of a step makes the gradient that of all processes.

        Of several, transformers divides a chunk's loss by all tokens of the step and multiplies it by their number.
        """
        loss = super().gradients(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            mean_gradients(trainable(self.model).values(), self.world)
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.generator.vision.flush()
        # Without a validation split the last adapter is the one to keep.
        if not self.plan.validation and self.state.global_step == self.plan.steps:
            self.keep_best(self.save)
        super()._save_checkpoint(model, trial)

    def products_of_step(self) -> list[str]:
        """Return the ids of the products of the step at hand."""
        size = self.plan.settings.sft.batch_size
        begin = self.state.global_step * size
        return [id for i in range(begin, begin + size) for id in self.plan[i].listings]

    def extra_state(self) -> Mapping[str, Any]:
        """Return what the end of the run tells."""
        return {"before": self.before, "best": self.best}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Take it back."""
        self.before, self.best = counters["before"], counters["best"]


def _losses(score: Score | PairScore) -> str:
    """Return the most frequent kind of invalid answer, if there is one."""
    if not score.failures:
        return ""
    kind, number = max(score.failures.items(), key=lambda item: item[1])
    return f"; {number} answers are invalid, most often: {kind}"
