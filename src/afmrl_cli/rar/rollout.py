"""A group's sampled answers, the prompt run through the policy once.

    cache of x_1 .. x_{P-1}, one row a prompt  ->  G equal rows each  ->  x_P and the answers, sampled G times

`generate` goes on from a cache that is there already. It gets the whole prompt's tokens, mask and positions (M-RoPE,
padding on the left), so that an answer begins at the position after the prompt's largest, and reads the last token
itself: the first token of all G answers is drawn from one and the same distribution, by the random numbers that plain
`generate` on G prompts would draw. Sampling is `generate`'s own: temperature, suppressed tokens, ends, most tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from .packed import prompt_positions

Allowed = Callable[[list[int]], list[int]]
"""The tokens that may follow those written so far."""
SHOWN = ("pixel_values", "image_grid_thw", "mm_encoder_outputs")
"""What `Vision.inputs` gives of pictures."""


def sample(
    causal: Any,
    batch: dict[str, Any],
    group: int,
    config: GenerationConfig,
    ends: list[int],
    allowed: Sequence[Allowed] = (),
) -> list[list[int]]:
    """Return new tokens of `group` answers to each prompt, one prompt's after another's; the first of `ends` is the
    last.

    `batch` is what `Vision.inputs` gives; `causal` the model with its vocabulary head, in eval mode (in training mode
    activation checkpointing forbids caches). `allowed` says for each prompt which tokens may follow; none: any.
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
        )
    return [_until(row, set(ends)) for row in made[:, ids.shape[1] :].tolist()]


def _only(allowed: Sequence[Allowed], group: int, width: int) -> Callable[[int, torch.Tensor], list[int]]:
    """Return what `generate` asks about a row: its tokens so far, behind the prompt's `width`."""
    return lambda row, ids: allowed[row // group](ids[width:].tolist())


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Return `tokens` up to the first end, with it."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens)) + 1]
