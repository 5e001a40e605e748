"""The reward of an answer, by the rank of what came next.

    r = -1                      malformed: not n lines, a line that is no candidate, or one twice
    r = 1 / log2(1 + rank)      rank of the target in the list: 1, 0.63, 0.5, ...
    r = 0                       well-formed, and the target is not in it

MLLMRec-R1 gives 0.3 for whatever looks like an item and 1 for the right one; an id outside the candidates earns its 0.3
there, too. As advantages are normalised within a group, 0.3 against 1 says no more than 0 against 1: grades by rank do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .prompt import read_answer

MALFORMED = -1.0


@dataclass(frozen=True)
class Reward:
    """What an answer got; `rank` of the target in it, 0 where it is not."""

    value: float
    valid: bool
    rank: int


def reward_of(text: str, candidates: tuple[str, ...], answers: int, target: int, *, cut_off: bool = False) -> Reward:
    """Return the reward of an answer to a question whose target is the candidate at place `target`."""
    named = None if cut_off else read_answer(text, candidates, answers)
    if named is None:
        return Reward(MALFORMED, False, 0)
    if target not in named:
        return Reward(0.0, True, 0)
    rank = named.index(target) + 1
    return Reward(1 / math.log2(1 + rank), True, rank)
