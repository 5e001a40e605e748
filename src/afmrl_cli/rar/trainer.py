"""GRPO on the generator, by TRL's GRPOTrainer, with the embedder's reward.

    A_g  = (r_g - mean r) / (std r + 1e-4)                      over the G answers to one query
    L    = -rho A + beta (pi_ref / pi - log(pi_ref / pi) - 1)   per token
    rho  = pi / pi_of_the_rollouts: 1, with a gradient, since a batch of answers is used once; nothing is clipped

What is ours beside the reward: rollouts are kept apart from TRL's scoring; a query's answers are drawn by numbers that
follow from (seed, step, query), so that a resumed run goes on as if never stopped; the vision tower sees a picture once
in the whole loop (`models/vision.py`; without a store, once a step), and a group's prompt is run once (`rollout.py`,
`packed.py`); and the policy's weights stay in fp32.

Several processes (torchrun): TRL's sampler gives each its share of a step's queries, whole groups, which it answers,
rewards and learns from. A process divides its loss by what it has (`dapo`: by the mean of what all have), so that the
mean of the gradients is that of the whole step; `bnpo` divides by the tokens of a chunk, and chunks are others there.
What is decided follows from what all have sampled, and is the same in all.

Departures from TRL's defaults: the sum of token losses is divided by a constant (`dr_grpo`), which has no length bias
at all; the paper of that loss leaves out the division by std, AFMRL has it, so `rar.scale` is "group". Dropout is off:
with it the KL to the reference is not 0 at the start. No autocast, no activation checkpointing by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import GRPOConfig

from ..attributes.parse import pair_numbers
from ..attributes.request import Request
from ..errors import ModelError
from ..listener import Listener, Silent
from ..models.base import quiet
from ..models.processor import TEMPLATE_OPTIONS
from ..training.adapter import trainable
from ..training.loop import Resumable, common_arguments, train_resumably, write_metrics
from ..training.parallel import gather_objects, mean_gradients
from ..training_settings import RarSettings, RecommenderSettings
from .held_out import HeldOut, Validation
from .pair_loss import PAIRS, loss_by_pairs, pair_table
from .plan import Plan
from .policy import REFERENCE, Policy
from .reward import Reward
from .shared_prefix import SharedPrefix
from .vision import VisionOnce
from .watchdog import Watchdog


@dataclass
class Rollouts:
    """The answers of a step: `numbers` are the groups' queries, the rest has `group` entries for each of them."""

    numbers: list[int]
    tokens: list[list[int]]
    rewards: list[Reward]
    seconds: dict[str, float] = field(default_factory=lambda: {"rollout": 0.0, "reward": 0.0})


@dataclass
class Progress:
    """What a state holds beside tensors. Metrics are held-out ones: without attributes, of the policy that training
    starts from, of the best step; `best_step` 0: no step was as good as the start.
    """

    plain: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    collapsed: str = ""
    seconds: float = 0.0


class RarTrainer(Resumable, SharedPrefix):
    """One run of `plan` in the folder `run`; `keep` writes the trained adapter into a folder.

    After `train_resumably` the fields of `progress` say what came of it. `rollouts` are those of all processes, `own`
    those of this one, `step_seconds` what the last step took.
    """

    def __init__(self, plan: Plan, policy: Policy, run: Path, keep: Callable[[Path], None], listener: Listener) -> None:
        self.policy, self.rar, self.listener = policy, plan.settings.rar, listener
        self.environment = plan.environments.train
        self.watchdog = Watchdog(self.rar.margin)
        self.progress = Progress()
        self.vision = VisionOnce(policy.generator.loaded.trunk)
        self.trunk = policy.generator.loaded.trunk
        self.packs_answers = policy.generator.processor.family.packs_answers
        self.own = self.rollouts = Rollouts([], [], [])
        self.step_seconds = 0.0
        self.chunk_tokens = []
        self._requests: dict[int, Request] = {}
        self.validates = True
        self._keep = keep
        loaded = policy.generator.loaded
        if loaded.peft is None:
            raise ValueError("the policy is an adapter, and there is none")
        # All that may end an answer elsewhere ends it in rollouts, too.
        loaded.causal.generation_config.eos_token_id = policy.generator.ends
        before = {name: parameter.detach().clone() for name, parameter in trainable(loaded.peft).items()}
        with quiet():
            super().__init__(
                model=loaded.peft,
                reward_funcs=self.reward,
                args=GRPOConfig(**rar_arguments(plan, policy, run)),
                train_dataset=Dataset.from_dict({"query": plan.order}),
                processing_class=policy.generator.processor.inner,
            )
        # On a 4-bit base TRL casts the adapter to bf16, in which steps of 1e-5 are rounded away.
        for name, parameter in trainable(loaded.peft).items():
            parameter.data = before[name]
        if plan.parent is None and REFERENCE in loaded.peft.peft_config:
            loaded.peft.delete_adapter(REFERENCE)  # a copy of nothing; without it TRL switches the adapter off
        self.held_out = HeldOut(plan.environments.heldout, policy, self.world)

    def _send_telemetry(self) -> None:
        """Send nothing: nothing leaves this machine."""

    def gradients(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Run one forward and backward; the last one of a step makes the gradient that of all processes."""
        loss = super().gradients(self.model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            mean_gradients(trainable(self.model).values(), self.world)
        return loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one part of a step; the first part of a batch of rollouts makes them."""
        with self.vision.remembering():
            return super().training_step(model, inputs, num_items_in_batch)

    def products_of_step(self) -> list[str]:
        """Return the ids of the products that the step is about."""
        return [self.environment.queries[number].id for number in self.rollouts.numbers]

    # Rollouts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.vision.forget()
        self._requests.clear()
        numbers = [row["query"] for row in inputs][:: self.num_generations]
        self.own = self._roll_out(numbers)
        self.rollouts = joined(gather_objects(self.own, self.world))
        made: dict[str, Any] = super()._generate_and_score_completions(self._rows(self.own.numbers))
        if self.rar.loss == "pairs":
            generator, width = self.policy.generator, made["completion_ids"].shape[1]
            made[PAIRS] = pair_table([pair_numbers(generator.texts_so_far(row)) for row in self.own.tokens], width)
        return made

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Compute the loss of a chunk: TRL's, but for `pairs`."""
        if self.rar.loss != "pairs":
            return super()._compute_loss(model, inputs)
        self.begin_chunk(inputs)
        return loss_by_pairs(self, model, inputs)

    def _rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return TRL's rows: every query as often as it is answered."""
        if self.shared_prefix:
            rows = [{"query": i, "prompt": self.policy.generator.messages(self._request(i))} for i in numbers]
        else:
            rows = [{"query": number, **self.policy.row(self.environment, number)} for number in numbers]
        return [row for row in rows for _ in range(self.num_generations)]

    def _request(self, number: int) -> Request:
        """Return the request about a query; its photos stay for the step."""
        if number not in self._requests:
            self._requests[number] = self.policy.request(self.environment, number)
        return self._requests[number]

    def prompt_tokens(self, query: int) -> list[int]:
        """Return the prompt about a query, image tokens included."""
        ids: list[int] = self.policy.tokens([self._request(query)])["input_ids"][0].tolist()
        return ids

    def pictures(self, queries: list[int]) -> dict[str, Any]:
        """Return what the policy takes of the pictures of these queries."""
        return self.policy.pictures([self._request(query) for query in queries])

    def _roll_out(self, numbers: list[int]) -> Rollouts:
        """Sample answers and rewards for this process's queries."""
        begin = time.perf_counter()
        tokens = self._sample(numbers)
        between = time.perf_counter()
        answers = [self.policy.generator.generation(row) for row in tokens]
        query_of_answer = [number for number in numbers for _ in range(self.num_generations)]
        rewards = self.environment.rewards(
            query_of_answer, [each.text for each in answers], [each.cut_off for each in answers]
        )
        seconds = {"rollout": between - begin, "reward": time.perf_counter() - between}
        return Rollouts(list(numbers), tokens, rewards, seconds)

    def _sample(self, numbers: Sequence[int]) -> list[list[int]]:
        """Sample answers to these queries."""
        seeds = [(self.args.seed, self.state.global_step + 1, number) for number in numbers]
        return self.policy.sample([self._request(number) for number in numbers], self.rar, seeds)

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        """Return what has been rolled out already, for TRL to score."""
        return self.own.tokens, None

    def reward(self, **_: Any) -> list[float]:
        """Return what has been rewarded already, in the order of the rollouts."""
        return [reward.value for reward in self.own.rewards]

    # Validation

    def start(self) -> None:
        """Measure, before the first step, what the policy is worth as it is. ModelError when none of its answers is
        valid.
        """
        found = self.held_out.validate()
        self.progress.plain, self.progress.start = self.held_out.plain(), found.metrics
        self.progress.before = found.answers
        if not found.metrics["valid_share"]:
            first = "train it to the schema first (`afmrl train-sft`)"
            raise ModelError(
                f"none of {len(found.answers)} answers is valid: {only_punished(found.answers)}",
                f"{first}, or mend attributes.keys and attributes.max_new_tokens",
            )
        self.watchdog.held_out(found.metrics["valid_share"], found.metrics[self.held_out.main], self.held_out.main)
        self._write_validation(found)

    def measure(self) -> float:
        """Train without a validation; return what the last step took, in seconds."""
        self.validates = False
        train_resumably(self, Silent(), steps_per_epoch=self.steps_per_epoch)
        return self.step_seconds

    @property
    def steps_per_epoch(self) -> float:
        """Return steps in which as many queries come as there are."""
        queries_per_step: float = self.args.generation_batch_size / self.num_generations
        return len(self.environment.queries) / queries_per_step

    def _validate(self) -> str:
        """Validate on the held-out queries; keep the adapter when it is the best so far. Why to stop, or ""."""
        found, main, progress = self.held_out.validate(), self.held_out.main, self.progress
        self._write_validation(found)
        best = progress.best or progress.start
        if found.metrics[main] >= best[main]:
            progress.best, progress.best_step, progress.after = found.metrics, self.state.global_step, found.answers
            self.keep_best(self._keep)
        elif not progress.best_step:
            progress.after = found.answers
        return self.watchdog.held_out(found.metrics["valid_share"], found.metrics[main], main)

    def _write_validation(self, found: Validation) -> None:
        step = self.state.global_step
        row = {"step": step, **{f"eval_{name}": value for name, value in found.metrics.items()}}
        if self.world.first:
            write_metrics(self.run, row)
        main = self.held_out.main
        message = f"held-out {main} {found.metrics[main]:.3f}, valid {found.metrics['valid_share']:.0%}"
        self.listener.note(f"step {step}: {message}, {found.metrics['pairs']:.1f} pairs an answer")

    def extra_state(self) -> Mapping[str, Any]:
        """Return progress and watchdog."""
        return {"progress": asdict(self.progress), "watchdog": asdict(self.watchdog)}

    def load_extra_state(self, counters: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        self.progress = Progress(**counters["progress"])
        self.watchdog = Watchdog(**counters["watchdog"])

    def is_over(self, counters: Mapping[str, Any]) -> bool:
        """Tell whether the policy had collapsed."""
        return bool(counters["progress"]["collapsed"])

    # Telling

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line a step: TRL's metrics under TRL's names, and what the rollouts got; then ask the watchdog."""
        if "loss" not in logs:  # the summary at the end
            return
        self.pool_metrics()
        found = self._metrics["train"]
        for name in REPLACED:
            found.pop(name, None)
        self.step_seconds = sum(found["step_time"])
        self.progress.seconds += self.step_seconds
        metrics = self.rollout_metrics()
        super().log({**logs, **metrics}, start_time)
        if self.validates:
            self._watch(metrics["valid_share"])

    def _watch(self, valid_share: float) -> None:
        """Stop a policy that collapses, and one that never gives a valid answer."""
        step = self.state.global_step
        stop = self.watchdog.rollouts(valid_share)
        if not self.watchdog.any_valid():
            texts = [self.policy.generator.generation(row).text for row in self.rollouts.tokens]
            valid = self.progress.start["valid_share"]
            raise ModelError(
                f"none of the sampled answers of {step} steps is valid, of those not sampled {valid:.0%} were: "
                f"{only_punished(texts)}",
                "lower rar.temperature, or train it to the schema for longer (`afmrl train-sft`)",
            )
        if step == self.state.max_steps or step % self.rar.validate_every == 0:
            stop = self._validate() or stop
        self.progress.collapsed = self.progress.collapsed or stop
        if self.progress.collapsed:
            self.control.should_training_stop = self.control.should_save = True

    def rollout_metrics(self) -> dict[str, float]:
        """Return the metrics of the last rollouts."""
        made, rewards = self.rollouts, self.rollouts.rewards
        valid = [reward for reward in rewards if reward.valid]
        return {
            "valid_share": len(valid) / len(rewards),
            "recall": float(np.mean([reward.recall for reward in valid])) if valid else 0.0,
            "distinct_answers": len({tuple(row) for row in made.tokens}) / len(made.tokens),
            "pictures_computed": self.vision.computed / max(1, self.vision.requested),
            **{f"seconds/{part}": seconds for part, seconds in made.seconds.items()},
        }


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """Return the rollouts of all processes as those of one, in the order of the plan."""
    return Rollouts(
        [number for part in parts for number in part.numbers],
        [tokens for part in parts for tokens in part.tokens],
        [reward for part in parts for reward in part.rewards],
        {name: max(part.seconds[name] for part in parts) for name in parts[0].seconds},
    )


def only_punished(answers: Sequence[str]) -> str:
    """Return what is wrong with answers that are never valid."""
    return f"the policy would only be punished; it writes, for example, {answers[0][:80]!r}"


def rar_arguments(plan: Plan, policy: Policy, run: Path) -> dict[str, Any]:
    """Return what GRPOConfig gets for a plan."""
    rar = plan.settings.rar
    own = plan.prompts // plan.world.size
    return grpo_arguments(rar, policy, run, prompts=own, steps=rar.steps, peak_rate=plan.peak_rate)


def grpo_arguments(
    own: RarSettings | RecommenderSettings, policy: Policy, run: Path, *, prompts: int, steps: int, peak_rate: float
) -> dict[str, Any]:
    """Return what GRPOConfig gets for `steps` steps of `prompts` groups, in each process."""
    answers = prompts * own.group
    rows = max(number for number in range(1, min(own.chunk_answers, answers) + 1) if answers % number == 0)
    device = policy.generator.loaded.device.type
    shared = common_arguments(own, run, steps=steps, peak_rate=peak_rate, device=device)
    return shared | {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": answers // rows,
        "num_generations": own.group,
        "beta": own.beta,
        "temperature": own.temperature,
        "loss_type": "grpo" if own.loss == "pairs" else own.loss,
        "scale_rewards": own.scale,
        "max_completion_length": policy.generator.max_new_tokens,
        "chat_template_kwargs": TEMPLATE_OPTIONS,
        "generation_kwargs": {"suppress_tokens": policy.generator.never},
        "disable_dropout": True,
        "shuffle_dataset": False,
        "activation_checkpointing": own.activation_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
    }


REPLACED = {"rewards/reward/mean", "rewards/reward/std"}
"""Metrics of TRL's that say nothing new: one reward is all there is."""
