"""Reward inflation: the reward rises and the ranking of what was held out does not.

MLLMRec-R1 reports it of reasoning that is not filtered: a policy learns to please its reward on the training questions,
and no customer is served better. So both are watched together, at each validation:

    R_v   mean reward of the answers sampled since the validation before        H_v   nDCG@10 on held-out questions

    inflated at v   R_v >= R_1 + margin   and   H_v <= H_0                      H_0: before the first step

Twice in a row stops the run: the best step before is kept, which is the start where there was none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TWICE = 2


@dataclass
class Inflation:
    """What was seen so far; `margin` is of the reward."""

    margin: float
    start: float | None = None
    """H_0."""
    first: float | None = None
    """R_1."""
    rewards: list[float] = field(default_factory=list)
    """Since the last validation."""
    inflated: int = 0

    def rollouts(self, reward: float) -> None:
        """Note the mean reward of a step."""
        self.rewards.append(reward)

    def held_out(self, value: float) -> str:
        """Note a validation; return why to stop, or ""."""
        if self.start is None:
            self.start = value
            return ""
        if not self.rewards:
            return ""
        reward = sum(self.rewards) / len(self.rewards)
        self.rewards = []
        if self.first is None:
            self.first = reward
        risen, no_better = reward >= self.first + self.margin, value <= self.start
        self.inflated = self.inflated + 1 if risen and no_better else 0
        if self.inflated < TWICE:
            return ""
        return (
            f"reward inflation: the reward rose from {self.first:.3f} to {reward:.3f}, held-out nDCG@10 did not "
            f"({self.start:.3f} before, {value:.3f} now)"
        )
