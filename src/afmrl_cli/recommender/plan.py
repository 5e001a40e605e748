"""What a run of `train-recommender` will do, before any model is loaded: questions, their order, steps, and its key."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..models.presets import NANO, Base
from ..next_item.fused import Fused
from ..next_item.histories import Question
from ..rar.plan import query_order
from ..settings import Settings
from ..store.files import hash_json
from ..training.sizes import peak_rate, with_recommender_sizes
from .prompt import answer_text, question_text
from .questions import Example, draw, key_of
from .texts import Texts
from .validation import Validation

NOT_THE_RESULT = {"save_every", "chunk_size", "chunk_answers", "rollout_answers", "name"}
"""Settings that do not change what is learnt."""
SFT, GRPO = "sft", "grpo"


@dataclass(frozen=True)
class Plan:
    """Questions to learn from with their keys and the retrieval's first listings, and those to choose by (None: too
    few). `reasonings` are by key; `data` is a hash of what is learnt from."""

    settings: Settings
    texts: Texts
    train: list[Question]
    keys: list[str]
    near: list[NDArray[np.int64]]
    validation: Validation | None
    data: str
    steps_per_epoch: float
    peak_rates: dict[str, float]
    reasonings: dict[str, str]

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages, in their order."""
        stages = self.settings.recommender.stages
        return (SFT, GRPO) if stages == "both" else (stages,)

    @property
    def steps(self) -> dict[str, int]:
        """Return the steps of each stage."""
        own = self.settings.recommender
        return {stage: own.steps if stage == SFT else own.grpo_steps for stage in self.stages}

    @property
    def chunk(self) -> int:
        """Return how many questions are in memory at a time: the largest part of a step that `chunk_size` allows."""
        own = self.settings.recommender
        size, most = own.batch_size, own.chunk_size
        return max(part for part in range(1, min(most, size) + 1) if size % part == 0)

    def __len__(self) -> int:
        """Count the questions of all steps of SFT."""
        return self.settings.recommender.steps * self.settings.recommender.batch_size

    def __getitem__(self, position: int) -> Example:
        """Return the question at a position of SFT: in each epoch another order, other candidates, other places; now
        and then without its history.
        """
        if not 0 <= position < len(self):
            raise IndexError(position)
        own = self.settings.recommender
        epoch, at = divmod(position, len(self.train))
        asked = self.drawn(int(_order(len(self.train), own.seed, epoch)[at]), position)
        if np.random.default_rng((own.seed, position)).random() < own.history_dropout:
            return replace(asked, history=())
        return asked

    def drawn(self, number: int, draw_number: int) -> Example:
        """Return the training question of this number with candidates drawn for this time."""
        own = self.settings.recommender
        sizes = (own.history, own.candidates, own.hard, own.answers)
        rng = np.random.default_rng((own.seed, number, draw_number))
        return draw(self.keys[number], self.train[number], self.near[number], self.texts, sizes, rng)

    @property
    def order(self) -> list[int]:
        """Return the training questions of all batches of rollouts, one after another."""
        own = self.settings.recommender
        return query_order(len(self.train), own.grpo_steps, min(own.prompts, len(self.train)), own.seed)

    def question(self, asked: Example) -> str:
        """Return the question as text, with reasoning where the setting puts it there."""
        answers = self.settings.recommender.answers
        return question_text(asked.history, asked.candidates, answers, self._reasoning(asked, "prompt"))

    def answer(self, asked: Example) -> str:
        """Return the right answer as text, with reasoning where the setting puts it there."""
        return answer_text([asked.candidates[place] for place in asked.ranked], self._reasoning(asked, "answer"))

    def _reasoning(self, asked: Example, place: str) -> str:
        """Return the reasoning that stands there; none about a history that is not shown."""
        there = asked.history and self.settings.reasoning.place == place
        return self.reasonings.get(asked.key, "") if there else ""

    def with_reasonings(self, reasonings: dict[str, str]) -> Plan:
        """Return the plan with reasoning, by key."""
        return replace(self, reasonings=reasonings)


@functools.lru_cache(maxsize=2)
def _order(number: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(number)


def make_plan(
    settings: Settings,
    base: Base,
    texts: Texts,
    questions: tuple[list[Question], list[str], list[NDArray[np.int64]]],
    validation: Validation | None,
    data: str,
) -> Plan:
    """Return the plan, with sizes that follow from the number of `questions` (with keys and near listings) where the
    settings leave them open.
    """
    train, keys, near = questions
    settings = with_recommender_sizes(settings, len(train))
    own, built_in = settings.recommender, base.name == NANO
    nano, other = own.grpo_rates
    rates = {
        SFT: peak_rate(settings, "recommender", built_in=built_in),
        GRPO: own.grpo_learning_rate or (nano if built_in else other),
    }
    return Plan(settings, texts, train, keys, near, validation, data, len(train) / own.batch_size, rates, {})


def data_of(texts: Texts, train: list[Question], validation: list[Question], fused: Fused) -> str:
    """Hash what is learnt from and chosen by: texts, questions, and the weights of the retrieval."""
    keys = [[key_of(texts.ids, each) for each in side] for side in (train, validation)]
    return hash_json([texts.fingerprint, keys, dict(fused.weights.by_source)])


def run_key(plan: Plan, model: str) -> str:
    """Hash all that decides what is learnt: the same key, the same run."""
    own, reasoning = plan.settings.recommender, plan.settings.reasoning
    said: dict[str, object] = {}
    if reasoning.share:
        # The same model on another port has answered already.
        said = reasoning.model_dump(exclude={"concurrency", "retries", "timeout"}) | {
            "endpoint": bool(reasoning.endpoint)
        }
    return hash_json([own.model_dump(exclude=NOT_THE_RESULT), said, model, plan.data])[:10]


def describe(plan: Plan) -> dict[str, object]:
    """Return the choices made, for --dry-run, reports and manifests."""
    own = plan.settings.recommender
    return {
        "train_questions": len(plan.train),
        "validation_questions": len(plan.validation.questions) if plan.validation else 0,
        "learnt_until": max(each.seconds for each in plan.train),
        "listings": len(plan.texts.ids),
        "described_listings": plan.texts.described,
        "listings_of_shared_text": plan.texts.shared,
        "batch_size": own.batch_size,
        "steps": plan.steps,
        "validate_every": own.validate_every,
        "steps_per_epoch": round(plan.steps_per_epoch, 2),
        "learning_rate": {stage: plan.peak_rates[stage] for stage in plan.stages},
        "reasoning_share": plan.settings.reasoning.share,
    }
