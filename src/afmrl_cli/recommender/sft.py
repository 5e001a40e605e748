"""SFT of the recommender: transformers' Trainer on questions and the lines that answer them.

    loss = - sum over the tokens of the answers of log p(token | question, tokens before) / number of those tokens

MLLMRec-R1's code takes the loss on the question, too; there most of it would be about listings that nobody chose.
Rows are padded on the left, so that all answers end in the last column and scores over the vocabulary are computed for
the last columns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import Trainer, TrainingArguments

from ..attributes.request import Request
from ..listener import Listener
from ..models.generator import LocalGenerator
from ..sft.trainer import end_of_turn, label_answers
from ..training.loop import Resumable, common_arguments
from .plan import SFT, Plan
from .progress import Progress, tell
from .questions import Example


class Collator:
    """Questions -> the tensors of a batch, with labels."""

    def __init__(self, generator: LocalGenerator, plan: Plan) -> None:
        self.generator, self.plan = generator, plan
        self.end = end_of_turn(generator.processor)

    def __call__(self, asked: Sequence[Example]) -> dict[str, Any]:
        """Collate questions; `labels` are as in `label_answers`.

        Raises ModelError when the tokenizer joins question and answer, or a row is longer than the model's positions.
        """
        processor = self.generator.processor
        prompts = [self.generator.text(Request(self.plan.question(each))) for each in asked]
        answers = [processor.clean(self.plan.answer(each)) + self.end for each in asked]
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        batch = processor.tokens(rows, [0] * len(rows), None)
        labels = label_answers(processor, batch["input_ids"], answers)
        return {**batch, "labels": labels, "logits_to_keep": labels.shape[1], "use_cache": False}


class SftTrainer(Resumable, Trainer):  # type: ignore[misc]
    """Trains the adapter that hangs on `generator`; `validate` measures it (None: nothing to choose by), `save` writes
    its folder.
    """

    def __init__(
        self,
        plan: Plan,
        generator: LocalGenerator,
        model: PeftModel,
        run: Path,
        validate: Callable[[], dict[str, float]] | None,
        save: Callable[[Path], None],
        listener: Listener,
    ) -> None:
        own, device = plan.settings.recommender, generator.loaded.device.type
        args = TrainingArguments(
            per_device_train_batch_size=plan.chunk,
            gradient_accumulation_steps=own.batch_size // plan.chunk,
            eval_strategy="steps" if validate else "no",
            eval_steps=own.validate_every,
            **common_arguments(own, run, steps=own.steps, peak_rate=plan.peak_rates[SFT], device=device),
        )
        super().__init__(
            model,
            args=args,
            data_collator=Collator(generator, plan),
            train_dataset=plan,
            eval_dataset=plan.validation.questions if validate and plan.validation else None,
        )
        self.plan, self.listener, self.progress = plan, listener, Progress()
        self._validate, self._save = validate, save

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Rank the validation's shortlists; keep the adapter when it is the best so far."""
        assert self._validate is not None
        found, step = self._validate(), self.state.global_step
        self.log({f"eval_{name}": value for name, value in found.items()})
        self.listener.note(tell(step, found))
        if self.progress.add(found, step, self.plan.settings.recommender.best_by) and step:
            self.keep_best(self._save)
        self.control.should_evaluate, self.control.should_save = False, step > 0
        return {f"eval_{name}": value for name, value in found.items()}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Without a validation the last adapter is the one to keep.
        if self._validate is None and self.state.global_step == self.args.max_steps:
            self.keep_best(self._save)
        super()._save_checkpoint(model, trial)

    def extra_state(self) -> Mapping[str, Any]:
        """Return the metrics that the end of the stage reports."""
        return self.progress.written()

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Take it back."""
        self.progress = Progress(counters["start"], counters["best"])
