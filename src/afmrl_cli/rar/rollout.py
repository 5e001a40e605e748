"""A group's sampled answers, the prompt run through the policy once.

    cache of x_1 .. x_{P-1}, one row a prompt  ->  G equal rows each  ->  x_P and the answers, sampled G times
    token of answer g at t  =  the first v with  sum_{w <= v} softmax(scores / T)_w > u_gt      u = `uniform(seed, ..)`

`generate` goes on from a cache that is there already. It gets the whole prompt's tokens, mask and positions (M-RoPE,
padding on the left), so that an answer begins at the position after the prompt's largest, and reads the last token
itself: the first token of all G answers is drawn from one and the same distribution. Suppressed tokens, ends and most
tokens are `generate`'s own.

So is sampling, unless `drawing` draws: then an answer's random numbers follow from its prompt's seed alone, and what is
sampled does not depend on which prompts stand beside it, in which process, or on the device's generator. (Other prompts
beside it change how scores are rounded, by which a token is flipped about once in a million.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor

from .packed import prompt_positions

Allowed = Callable[[list[int]], list[int]]
"""The tokens that may follow those written so far."""
LEVELS = 2**22
"""Of random numbers: so few that, in 32 bits, none times the sum of all probabilities is that sum."""
ANSWERS = 0x616E7377
"""In front of a seed: other draws by the same numbers, and numpy takes (1, 2) for (1, 2, 0), are others."""
SHOWN = ("pixel_values", "image_grid_thw", "mm_encoder_outputs")
"""What `Vision.inputs` gives of pictures."""


def uniform(seed: Sequence[int], answers: int, tokens: int) -> torch.Tensor:
    """Return numbers in (0, 1) that follow from `seed`: one for each token of each answer, [answers, tokens]."""
    levels = np.random.default_rng((ANSWERS, *seed)).integers(LEVELS, size=(answers, tokens), dtype=np.int32)
    return torch.from_numpy((levels + 0.5) / LEVELS).float()


class Drawing(LogitsProcessor):  # type: ignore[misc]
    """Makes greedy `generate` sample at `temperature`: each row's next token by its next one of `numbers` [rows,
    tokens].
    """

    def __init__(self, numbers: torch.Tensor, temperature: float) -> None:
        self.numbers, self.temperature, self.at = numbers, temperature, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` in which nothing is above the token that is drawn."""
        sums = (scores / self.temperature).softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(sums, self.numbers[:, self.at, None] * sums[:, -1:], right=True)
        self.at += 1
        # Sums are rounded: where they hit a forbidden token, the most probable one is taken.
        possible = scores.gather(1, drawn) > -torch.inf
        return scores.scatter(1, drawn, torch.where(possible, torch.inf, -torch.inf))


def sample(
    causal: Any,
    batch: dict[str, Any],
    group: int,
    config: GenerationConfig,
    ends: list[int],
    allowed: Sequence[Allowed] = (),
    drawing: Drawing | None = None,
) -> list[list[int]]:
    """Return new tokens of `group` answers to each prompt, one prompt's after another's; the first of `ends` is the
    last.

    `batch` is what `Vision.inputs` gives; `causal` the model with its vocabulary head, in eval mode (in training mode
    activation checkpointing forbids caches). `allowed` says for each prompt which tokens may follow; none: any. With
    `drawing`, which draws the tokens, `config` is greedy.
    """
    trunk, ids, mask = causal.model, batch["input_ids"], batch["attention_mask"]
    pictures = {name: batch[name] for name in SHOWN if name in batch}
    positions = prompt_positions(trunk, ids, mask, pictures.get("image_grid_thw"))
    with torch.no_grad():
        cache = trunk(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[..., :-1],
            use_cache=True,
            **pictures,
        ).past_key_values
        cache.reorder_cache(torch.arange(len(ids)).repeat_interleave(group))  # what delta nets' states know, too
        text = prompt_positions(trunk, ids, mask, None)[:1]
        made = causal.generate(
            input_ids=ids.repeat_interleave(group, dim=0),
            attention_mask=mask.repeat_interleave(group, dim=0),
            position_ids=torch.cat([text, positions]).repeat_interleave(group, dim=1),
            past_key_values=cache,
            generation_config=config,
            prefix_allowed_tokens_fn=_only(allowed, group, ids.shape[1]) if allowed else None,
            logits_processor=[drawing] if drawing else None,
        )
    return [_until(row, set(ends)) for row in made[:, ids.shape[1] :].tolist()]


def _only(allowed: Sequence[Allowed], group: int, width: int) -> Callable[[int, torch.Tensor], list[int]]:
    """Return what `generate` asks about a row: its tokens so far, behind the prompt's `width`."""
    return lambda row, ids: allowed[row // group](ids[width:].tolist())


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Return `tokens` up to the first end, with it."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens)) + 1]
