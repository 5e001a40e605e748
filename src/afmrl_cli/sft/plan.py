"""What a run will do, before any model is loaded: order, batches, steps, and the key by which it is found again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..attributes.task import AttributeTask
from ..catalog.folds import Part
from ..listener import Listener
from ..models.presets import NANO, Base
from ..settings import AttributeSettings, Settings
from ..store.files import hash_json
from ..training.parallel import World
from ..training.sizes import peak_rate, with_sft_sizes
from .corpus import Corpus, Example
from .score import Score, score_generator
from .targets import Target

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator

NOT_THE_RESULT = {"save_every", "chunk_size", "name"}
"""Settings that do not change what is learnt."""


@dataclass(frozen=True)
class Course:
    """How often examples are gone through: `steps` of `sft.batch_size`."""

    settings: Settings
    task: AttributeTask
    steps: int
    steps_per_epoch: float
    peak_rate: float

    def chunk(self, world: World) -> int:
        """Return how many products are in memory at a time: the largest part of what a process has of a step that
        `sft.chunk_size` allows. Raises UsageError when the processes can't have as much each.
        """
        size = len(world.share(self.settings.sft.batch_size, "sft.batch_size"))
        return max(part for part in range(1, min(self.settings.sft.chunk_size, size) + 1) if size % part == 0)

    def __len__(self) -> int:
        """Count the examples of the whole run: its epochs, one after the other."""
        return self.steps * self.settings.sft.batch_size

    def place(self, position: int, number: int) -> int:
        """Return which of `number` examples comes at a position of the run: in each epoch another order."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        epoch, at = divmod(position, number)
        return int(_order(number, self.settings.sft.seed, epoch)[at])


@dataclass(frozen=True)
class Plan(Course):
    """The examples of single products, one after the other."""

    corpus: Corpus

    @property
    def validation(self) -> list[Example]:
        """Return what is validated on."""
        return self.corpus.validation

    @property
    def answers(self) -> list[str]:
        """Return the answers that are learnt."""
        return [example.target.text for example in self.corpus.train]

    @property
    def attributes(self) -> AttributeSettings:
        """Return how the generator answers in validation."""
        return self.settings.attributes

    @property
    def prompt(self) -> str:
        """Return what is asked, for the model card."""
        return self.task.template

    @property
    def learnt_from(self) -> str:
        """Say what is learnt from, for the model card."""
        return f"{len(self.corpus.train):,} products"

    def score(self, generator: LocalGenerator, world: World, listener: Listener) -> Score:
        """Let the generator answer about this process's part of the validation products."""
        return score_generator(generator, world.part(self.corpus.validation), self.task, self.settings, listener)

    def describe(self, part: Part | None) -> dict[str, object]:
        """Return the choices made, for --dry-run, reports and manifests; `part` is what was taken of the training
        split.
        """
        corpus, sft = self.corpus, self.settings.sft
        return {
            "source": corpus.source.name,
            "train_products": len(corpus.train),
            "validation_products": len(corpus.validation),
            "left_out": dict(corpus.left_out.most_common()),
            "keys": sorted({key for example in corpus.train for key in example.target.pairs}),
            "batch_size": sft.batch_size,
            "steps": self.steps,
            "validate_every": sft.validate_every,
            "steps_per_epoch": round(self.steps_per_epoch, 2),
            "learning_rate": self.peak_rate,
            **({"part": part.describe()} if part else {}),
        }

    def __getitem__(self, position: int) -> Example:
        """Return the example at a position of the run: in each epoch another order, and other keys dropped."""
        example = self.corpus.train[self.place(position, len(self.corpus.train))]
        if not self.corpus.sparse:
            return example
        rng = np.random.default_rng((self.settings.sft.seed, position))
        return Example(example.product, self._drop(example.target, rng))

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
    return Plan(settings, task, sft.steps, len(corpus.train) / sft.batch_size, rate, corpus)


def run_key(plan: Plan, student: str, world: World) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    content = {
        "sft": plan.settings.sft.model_dump(exclude=NOT_THE_RESULT),
        "student": student,
        "task": plan.task.id,
        "data": plan.corpus.fingerprint,
        **world.key,
    }
    return hash_json(content)[:10]
