"""Sampling from the candidates' lines alone: which token may follow.

A small model is punished again and again before it writes a line of a dozen words without a slip, and learns nothing
about what comes next. So it may choose among the lines, token by token, and is rewarded for its choice.

The policy gradient is then a little off: it is that of the free policy at answers of the bound one. At the first token
the difference is the same for all answers of a group, whose advantages add up to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..rar.rollout import Allowed
from .prompt import listed


def lines_alone(tokenizer: Any, candidates: Sequence[str], answers: int, end: int) -> Allowed:
    """Return which tokens may follow: those of `answers` different lines of `candidates`, then `end`."""
    lines = list(map(listed, candidates))
    inner: list[list[int]] = tokenizer([f"{line}\n" for line in lines], add_special_tokens=False)["input_ids"]
    bare: list[list[int]] = tokenizer(lines, add_special_tokens=False)["input_ids"]
    last = [[*line, end] for line in bare]
    number = min(answers, len(candidates))

    def allowed(written: list[int]) -> list[int]:
        """Return the tokens that may follow those written so far."""
        left, rest = dict(enumerate(inner)), written
        for line in range(number):
            sequences = {i: last[i] for i in left} if line == number - 1 else left
            done = next((i for i, tokens in sequences.items() if rest[: len(tokens)] == tokens), None)
            if done is None:
                return sorted({tokens[len(rest)] for tokens in sequences.values() if tokens[: len(rest)] == rest})
            left, rest = {i: tokens for i, tokens in left.items() if i != done}, rest[len(sequences[done]) :]
        return [end]

    return allowed
