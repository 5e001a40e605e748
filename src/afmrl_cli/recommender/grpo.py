"""GRPO on the recommender, by TRL's GRPOTrainer and the step in which a group runs its question once.

    A_g  = (r_g - mean r) / (std r + 1e-4)                      over the G answers to one question; r: `reward`
    L    = -rho A + beta (pi_ref / pi - log(pi_ref / pi) - 1)   per token; pi_ref: what SFT has made

As in `rar/trainer.py`, whose shared prefix, sampling and arguments these are. A question's candidates are drawn and
shuffled anew each time it comes: GR2 found policies that learn to copy the order they are shown. Reward and held-out
ranking are watched together (`inflation`). MLLMRec-R1 merges the SFT adapter and trains a second one; here one adapter
goes on, and a frozen copy of it is the reference. There is no picture anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from trl import GRPOConfig

from ..attributes.request import Request
from ..errors import ModelError
from ..listener import Listener
from ..models.base import quiet
from ..rar.policy import Policy
from ..rar.rollout import Allowed
from ..rar.shared_prefix import SharedPrefix
from ..rar.trainer import REPLACED, grpo_arguments
from ..training.adapter import trainable
from ..training.loop import Resumable, write_metrics
from ..training.sizes import RAR_APART, interval
from .constrained import lines_alone
from .inflation import Inflation
from .plan import GRPO, Plan
from .progress import Progress, tell
from .questions import Example
from .reward import Reward, reward_of

HOPELESS = 3
"""Steps without a single valid answer after which nothing better is to be expected."""


class GrpoTrainer(Resumable, SharedPrefix):
    """Trains the adapter that hangs on the policy's generator; `validate` measures it (None: nothing to choose by),
    `save` writes its folder.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        run: Path,
        validate: Callable[[], dict[str, float]] | None,
        save: Callable[[Path], None],
        listener: Listener,
    ) -> None:
        own = plan.settings.recommender
        loaded = policy.generator.loaded
        self.plan, self.policy, self.listener = plan, policy, listener
        self.progress, self.inflation, self.stopped = Progress(), Inflation(own.inflation), ""
        self.trunk, self.packs_answers = loaded.trunk, policy.generator.processor.family.packs_answers
        self.chunk_tokens = []
        self.asked: dict[int, Example] = {}
        self.rewards: list[Reward] = []
        self.tokens: list[list[int]] = []
        self.hopeless = 0
        self.every = interval(own.grpo_steps, RAR_APART)
        self._validate, self._save = validate, save
        assert loaded.peft is not None
        loaded.causal.generation_config.eos_token_id = policy.generator.ends
        before = {name: parameter.detach().clone() for name, parameter in trainable(loaded.peft).items()}
        prompts = min(own.prompts, len(plan.train))
        arguments = grpo_arguments(
            own, policy, run, prompts=prompts, steps=own.grpo_steps, peak_rate=plan.peak_rates[GRPO]
        )
        with quiet():
            super().__init__(
                model=loaded.peft,
                reward_funcs=self.reward,
                args=GRPOConfig(**arguments),
                train_dataset=Dataset.from_dict({"query": plan.order}),
                processing_class=policy.generator.processor.inner,
            )
        # On a 4-bit base TRL casts the adapter to bf16, in which steps of 1e-5 are rounded away.
        for name, parameter in trainable(loaded.peft).items():
            parameter.data = before[name]

    def _send_telemetry(self) -> None:
        """Send nothing: nothing leaves this machine."""

    # Rollouts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = [row["query"] for row in inputs][:: self.num_generations]
        drawn = len(self.plan) + self.state.global_step  # other candidates than any that SFT has shown
        self.asked = {number: self.plan.drawn(number, drawn) for number in numbers}
        own = self.plan.settings.recommender
        lines = [self._lines(number) for number in numbers] if own.constrained else []
        seeds = [(self.args.seed, self.state.global_step + 1, number) for number in numbers]
        self.tokens = self.policy.sample([self._request(number) for number in numbers], own, seeds, lines)
        answered = [number for number in numbers for _ in range(self.num_generations)]
        self.rewards = [self._reward(*each) for each in zip(answered, self.tokens, strict=True)]
        rows = [
            {"query": number, "prompt": self.policy.generator.messages(self._request(number))} for number in answered
        ]
        made: dict[str, Any] = super()._generate_and_score_completions(rows)
        return made

    def _request(self, number: int) -> Request:
        return Request(self.plan.question(self.asked[number]))

    def _lines(self, number: int) -> Allowed:
        generator, own = self.policy.generator, self.plan.settings.recommender
        return lines_alone(generator.processor.tokenizer, self.asked[number].candidates, own.answers, generator.ends[0])

    def _reward(self, number: int, tokens: list[int]) -> Reward:
        asked, answer = self.asked[number], self.policy.generator.generation(tokens)
        answers = self.plan.settings.recommender.answers
        return reward_of(answer.text, asked.candidates, answers, asked.target, cut_off=answer.cut_off)

    def prompt_tokens(self, query: int) -> list[int]:
        """Return the tokens of a question."""
        ids: list[int] = self.policy.tokens([self._request(query)])["input_ids"][0].tolist()
        return ids

    def pictures(self, queries: list[int]) -> dict[str, Any]:
        """Return nothing: a question holds no picture."""
        return {}

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        """Return what has been sampled already, for TRL to score."""
        return self.tokens, None

    def reward(self, **_: Any) -> list[float]:
        """Return what has been rewarded already, in the order of the answers."""
        return [reward.value for reward in self.rewards]

    # Validation

    def start(self) -> None:
        """Measure, before the first step, how held-out questions are ranked."""
        if self._validate is not None:
            self._note(self._validate())

    def _note(self, found: Mapping[str, float]) -> str:
        """Take note of a validation, keep the adapter when it is the best; return why to stop, or ""."""
        step, by = self.state.global_step, self.plan.settings.recommender.best_by
        write_metrics(self.run, {"step": step, **{f"eval_{name}": value for name, value in found.items()}})
        self.listener.note(tell(step, found))
        if self.progress.add(found, step, by) and step:
            self.keep_best(self._save)
        return self.inflation.held_out(found[by])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line a step, with what the answers got; validate, and stop where only the reward rises."""
        if "loss" not in logs:  # the summary at the end
            return
        self.pool_metrics()
        for name in REPLACED:
            self._metrics["train"].pop(name, None)
        super().log({**logs, **self.answer_metrics()}, start_time)
        self._refuse_hopeless()
        step = self.state.global_step
        self.inflation.rollouts(float(np.mean([reward.value for reward in self.rewards])))
        last = step == self.state.max_steps
        if self._validate is None:
            if last:
                self.keep_best(self._save)
        elif last or step % self.every == 0:
            self.stopped = self._note(self._validate())
        if self.stopped:
            self.control.should_training_stop = self.control.should_save = True

    def answer_metrics(self) -> dict[str, float]:
        """Return the metrics of the last answers; hr@1 also by the third of the candidates where the target stood."""
        rewards, group = self.rewards, self.num_generations
        found = {
            "valid_share": float(np.mean([reward.valid for reward in rewards])),
            "answer_hr@1": float(np.mean([reward.rank == 1 for reward in rewards])),
            "distinct_answers": len({tuple(row) for row in self.tokens}) / len(self.tokens),
        }
        by_third: dict[str, list[bool]] = {"first": [], "middle": [], "last": []}
        for number, asked in enumerate(self.asked.values()):
            third = tuple(by_third)[min(2, 3 * asked.target // len(asked.candidates))]
            by_third[third] += [reward.rank == 1 for reward in rewards[number * group : (number + 1) * group]]
        return found | {f"answer_hr@1_{third}": float(np.mean(each)) for third, each in by_third.items() if each}

    def _refuse_hopeless(self) -> None:
        self.hopeless = 0 if any(reward.valid for reward in self.rewards) else self.hopeless + 1
        if self.hopeless >= HOPELESS:
            answer = self.policy.generator.generation(self.tokens[0]).text
            raise ModelError(
                f"none of the sampled answers of {HOPELESS} steps is valid: they would only be punished; the "
                f"recommender writes, for example, {answer[:80]!r}",
                "train it by SFT for longer (recommender.epochs), or lower recommender.temperature",
            )

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress, what was watched, and why the run was stopped."""
        watched = {"inflation": asdict(self.inflation), "stopped": self.stopped, "hopeless": self.hopeless}
        return {"progress": self.progress.written(), **watched}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        self.progress = Progress(**counters["progress"])
        self.inflation = Inflation(**counters["inflation"])
        self.stopped, self.hopeless = counters["stopped"], counters["hopeless"]

    def is_over(self, counters: Mapping[str, Any]) -> bool:
        """Tell whether the run had been stopped."""
        return bool(counters["stopped"])
