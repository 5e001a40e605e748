"""GRPO on verdicts about pairs of photos, as pure functions. Lines that begin with > are the paper's.

    > A_g    = ( r_g - mean(r) ) / ( std(r) + eps )                     over the G answers about one pair
    > L_GRPO = - 1 / (sum_g T_g)  sum_g sum_t  A_g log pi( y_t | y_<t, S )

r_g is 1 where the verdict is right, else 0; T_g the answer's length in tokens, S what is asked about the pair. A group
whose rewards are all alike teaches nothing: others are asked in its place. Every answer is learnt from once, by the
policy that wrote it, so that the ratio of PPO is 1 and there is nothing to clip; no reference policy.

What the paper leaves open, and what we chose: std is that of the sample (G - 1), which fits the paper's figure, and
eps = 1e-4, as in TRL. The advantages of a group without spread are exactly 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from torch import Tensor

EPS = 1e-4


def has_spread(rewards: Sequence[float]) -> bool:
    """Say whether the rewards of one group differ, so that there is something to learn from it."""
    return len(set(rewards)) > 1


def advantages(rewards: Sequence[Sequence[float]]) -> list[list[float]]:
    """Compute A for each answer of each group; 0 for all of a group whose rewards are alike."""
    return [_of_group(group) for group in rewards]


def _of_group(rewards: Sequence[float]) -> list[float]:
    if not has_spread(rewards):
        return [0.0] * len(rewards)
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (std + EPS) for reward in rewards]


def grpo_loss(logps: Tensor, mask: Tensor, advantages: Tensor, tokens: int) -> Tensor:
    """Compute L_GRPO, a scalar, of the log-probabilities `logps` [rows, T] of the answers' tokens.

    `mask` [rows, T] is true at tokens that were generated (whatever else stands there does not count), `advantages`
    [rows]. `tokens` is how many were generated for all answers of the step: the losses of its chunks add up to its own.
    """
    generated = logps.masked_fill(~mask.bool(), 0.0)
    return -(advantages.detach().to(logps)[:, None] * generated).sum() / tokens
