"""Transformers' Trainer on batches of photos: tower, pooler and proxies, each with a learning rate of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from ..catalog.pictures import Picture
from ..errors import DataError
from ..listener import Listener
from ..training.adapter import trainable
from ..training.batch_trainer import BatchTrainer
from ..training.loop import common_arguments
from ..training.parallel import gather_parts, sum_gradients
from .model import Saga
from .photos import LabelledPhoto
from .plan import Plan
from .step import Batch, StepResult, step
from .validation import recall_by_class

PATIENCE = 10
"""Steps without a pair that teaches, after which a run stops."""
AT_A_TIME = 256
"""Validation photos that are open at a time."""


class Trained(torch.nn.Module):
    """All that is trained, as one module: the adapter on the tower, the pooler, the proxies."""

    def __init__(self, tower: PeftModel, saga: Saga) -> None:
        super().__init__()
        self.tower, self.pooler, self.metric = tower, saga.pooler, saga.metric

    def groups(self, rate: float, own: Any) -> Iterator[dict[str, Any]]:
        """Yield the parameters with their learning rates; `rate` is the tower's."""
        parts = ((self.tower, 1.0), (self.pooler, own.pooler_rate), (self.metric, own.proxy_rate))
        for part, times in parts:
            chosen = [parameter for parameter in part.parameters() if parameter.requires_grad]
            if chosen:
                yield {"params": chosen, "lr": rate * times, "weight_decay": own.weight_decay}


class VisionTrainer(BatchTrainer):
    """One run of `plan`; `save` writes the checkpoint's files into a folder."""

    unit = "photos"

    def __init__(
        self, plan: Plan, saga: Saga, tower: PeftModel, run: Path, save: Callable[[Path], None], listener: Listener
    ) -> None:
        self.plan, self.saga, self.save, self.listener = plan, saga, save, listener
        self.numbers: list[int] = []
        self.asked = self.differing = 0
        own, device = plan.settings.vision, saga.device.type
        arguments = common_arguments(own, run, steps=plan.steps, peak_rate=plan.peak_rate, device=device)
        super().__init__(plan.from_step, own, arguments, Trained(tower, saga))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimiser that the arguments name, with a learning rate for each part."""
        if getattr(self, "optimizer", None) is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = list(self.model.groups(self.args.learning_rate, self.own))
            self.optimizer = kind(groups, **options)
        made: torch.optim.Optimizer = self.optimizer
        return made

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Leave the gradient of a batch in all that is trained; returns its loss."""
        began = time.monotonic()
        epoch, at, self.numbers = inputs
        self.model.eval()  # the frozen adapter's dropout is off, and caches work
        train = self.plan.photos.train.photos
        photos = [train[i] for i in self.numbers]
        batch = Batch(
            [self.open(photo) for photo in self.world.part(photos)],
            [photo.label for photo in photos],
            [photo.listing for photo in photos],
        )
        at_step = self.state.global_step
        seed = (self.args.seed, at_step)
        loss, found = step(self.saga, batch, seed, mined=at_step >= self.args.warmup_steps, world=self.world)
        sum_gradients(trainable(self.model).values(), self.world)
        self.progress.epoch, self.progress.at = epoch, at
        self.step_metrics = self._metrics(found, len(photos), time.monotonic() - began)
        self._need_spread()
        return loss

    def _need_spread(self) -> None:
        """Raise DataError when in the first steps no pair's answers differed: GRPO would never learn."""
        if self.asked and not self.differing and self.state.global_step + 1 >= PATIENCE:
            raise DataError(
                f"in {PATIENCE} steps the answers about none of {self.asked:,} pairs differ in their verdict: there is "
                "nothing to learn from",
                "choose classes that are harder to tell apart (vision.classes), or train by metric learning alone: "
                "--grpo 0 --anchoring 0",
            )

    def _metrics(self, found: StepResult, photos: int, seconds: float) -> dict[str, float]:
        rewards = [reward for each in found.asked for reward in each.rewards]
        differing = sum(each.differs for each in found.asked)
        self.asked, self.differing = self.asked + len(found.asked), self.differing + differing
        tokens = sum(len(answer) for each in found.asked for answer in each.group.answers)
        asked = {"pairs": float(len(found.asked)), "differing": float(differing), "num_tokens": float(tokens)}
        right = {"right": float(np.mean(rewards))} if rewards else {}
        times = {f"seconds_{part}": value for part, value in found.seconds.items()}
        lengths = {f"gradient_{name}": value for name, value in found.gradients.items()}
        return {"samples_per_second": photos / seconds, **found.losses, **asked, **right, **lengths, **times}

    def open(self, photo: LabelledPhoto) -> Picture:
        """Open a photo as the generator reads it. Raises ImageProblem."""
        return self.saga.judge.load_image(photo.photo.path, self.plan.settings.catalog)

    def products_of_step(self) -> list[str]:
        """Return the ids of the listings of the step at hand."""
        train = self.plan.photos.train.photos
        return list(dict.fromkeys(train[i].listing for i in self.numbers))

    def validate(self) -> dict[str, float]:
        """Measure Recall@k by class on the validation photos; {} where there are none."""
        photos = self.plan.validation()
        own, made = self.world.part(photos), [self.saga.encode([])]
        for i in range(0, len(own), AT_A_TIME):
            made.append(self.saga.encode([self.open(photo) for photo in own[i : i + AT_A_TIME]]))
            self.listener.progress("validation", min(i + AT_A_TIME, len(own)), len(own))
        vectors = gather_parts(torch.cat(made), len(photos), self.world).cpu().numpy()
        return recall_by_class(vectors, photos) if photos else {}

    def save_best(self, folder: Path) -> None:
        """Write the checkpoint as it is now."""
        self.save(folder)

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress, and how many pairs were asked about and differed."""
        return {**super().extra_state(), "asked": self.asked, "differing": self.differing}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        super().load_extra_state(counters)
        self.asked, self.differing = counters["asked"], counters["differing"]
