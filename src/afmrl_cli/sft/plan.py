"""What a run will do, before any model is loaded: order, batches, steps, and the key by which it is found again."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..attributes.task import AttributeTask
from ..catalog.folds import Part
from ..models.presets import NANO, Base
from ..settings import Settings
from ..store.files import hash_json
from ..training.sizes import peak_rate, with_sft_sizes
from .corpus import Corpus, Example
from .targets import Target

NOT_THE_RESULT = {"save_every", "chunk_size", "name"}
"""Settings that do not change what is learnt."""


@dataclass(frozen=True)
class Plan:
    """The examples and how often they are gone through: `steps` of `sft.batch_size`."""

    settings: Settings
    task: AttributeTask
    corpus: Corpus
    steps: int
    steps_per_epoch: float
    peak_rate: float

    @property
    def chunk(self) -> int:
        """Return how many products are in memory at a time: the largest part of a step that `sft.chunk_size` allows."""
        size = self.settings.sft.batch_size
        return max(part for part in range(1, min(self.settings.sft.chunk_size, size) + 1) if size % part == 0)

    def __len__(self) -> int:
        """Count the examples of the whole run: its epochs, one after the other."""
        return self.steps * self.settings.sft.batch_size

    def __getitem__(self, position: int) -> Example:
        """Return the example at a position of the run: in each epoch another order, and other keys dropped."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        train, seed = self.corpus.train, self.settings.sft.seed
        epoch, at = divmod(position, len(train))
        example = train[int(_order(len(train), seed, epoch)[at])]
        if not self.corpus.sparse:
            return example
        return Example(example.product, self._drop(example.target, np.random.default_rng((seed, position))))

    def _drop(self, target: Target, rng: np.random.Generator) -> Target:
        """Return `target` without some of the keys that the shop fills only here and there.

        A cell that nobody filled is no statement. Without this, the keys that stand in an answer would tell which
        of the others will follow: the model would learn who fills the table, not what the photo shows.
        """
        dropout, sparse = self.settings.sft.key_dropout, self.corpus.sparse
        kept = {key: value for key, value in target.pairs.items() if rng.random() >= dropout * sparse.get(key, 0.0)}
        return Target(kept) if len(kept) >= self.settings.attributes.min_pairs else target


@functools.lru_cache(maxsize=2)
def _order(number: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(number)


def make_plan(corpus: Corpus, task: AttributeTask, settings: Settings, base: Base) -> Plan:
    """Return the plan that the settings mean, with sizes that follow from the catalog where they leave them open."""
    settings = with_sft_sizes(settings, len(corpus.train))
    sft = settings.sft
    rate = peak_rate(settings, "sft", built_in=base.name == NANO)
    return Plan(settings, task, corpus, sft.steps, len(corpus.train) / sft.batch_size, rate)


def run_key(plan: Plan, student: str) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    sft = plan.settings.sft.model_dump(exclude=NOT_THE_RESULT)
    return hash_json({"sft": sft, "student": student, "task": plan.task.id, "data": plan.corpus.fingerprint})[:10]


def describe(plan: Plan, part: Part | None = None) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests; `part` is what was taken of the training split."""
    corpus, sft = plan.corpus, plan.settings.sft
    return {
        "source": corpus.source.name,
        "train_products": len(corpus.train),
        "validation_products": len(corpus.validation),
        "left_out": dict(corpus.left_out.most_common()),
        "keys": sorted({key for example in corpus.train for key in example.target.pairs}),
        "batch_size": sft.batch_size,
        "steps": plan.steps,
        "validate_every": sft.validate_every,
        "steps_per_epoch": round(plan.steps_per_epoch, 2),
        "learning_rate": plan.peak_rate,
        **({"part": part.describe()} if part else {}),
    }
