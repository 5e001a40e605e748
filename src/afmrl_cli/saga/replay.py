"""Answers about pairs of photos run through the frozen language model once more, with a gradient in the photos' tokens.

    log pi(y_t | y_<t, X_a, X_b, question)       for all answers of a group in one row (`rar.packed`)

X are what the tower made of the photos, here leaves: the gradient of all answers gathers in them, and the tower's own
backward comes once, afterwards (`step`). The vocabulary's scores, the largest part of the memory, are computed for
`HEAD_TOKENS` tokens at a time and once more in the backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..models.vision import encoder_outputs
from ..rar.packed import Packed, Rows, pack

HEAD_TOKENS = 512
"""Of how many tokens the vocabulary's scores are in memory at a time."""


@dataclass(frozen=True)
class Group:
    """A pair of photos (numbers of `Photos.rows`), the tokens of the question about it, and those of its answers."""

    photos: tuple[int, int]
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Photos:
    """What the tower made of a batch's photos: `rows` [tokens, width] each and `grids` [photos, 3]."""

    rows: Sequence[Tensor]
    grids: Tensor

    def shown(self, photos: Sequence[int], trunk: Any) -> dict[str, Any]:
        """Return what the model takes of these photos, in this order."""
        kind = trunk.visual.dtype
        rows = [self.rows[i].to(kind) for i in photos]
        grids = self.grids[torch.tensor(list(photos), device=self.grids.device)]
        return {"image_grid_thw": grids, "mm_encoder_outputs": encoder_outputs(rows, trunk)}


def pack_groups(groups: Sequence[Group], photos: Photos, trunk: Any, *, together: bool) -> Packed:
    """Return the rows of `groups`, their answers one after another, as `rar.packed.pack` does."""
    device = photos.grids.device
    answers = [(number, answer) for number, group in enumerate(groups) for answer in group.answers]
    width, longest = max(len(group.prompt) for group in groups), max(len(answer) for _, answer in answers)
    ids = torch.zeros(len(answers), width + longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for i, (number, answer) in enumerate(answers):
        prompt = groups[number].prompt
        whole = torch.tensor([*prompt, *answer], device=device)
        start = width - len(prompt)
        ids[i, start : start + len(whole)] = whole
        mask[i, start : start + len(whole)] = 1

    def pictures(numbers: list[int]) -> dict[str, Any]:
        return photos.shown([photo for number in numbers for photo in groups[number].photos], trunk)

    rows = Rows(ids, mask, longest, [number for number, _ in answers])
    return pack(rows, trunk, trunk.get_input_embeddings().weight.dtype, pictures, together=together)


def answer_logps(causal: Any, packed: Packed, temperature: float) -> Tensor:
    """Return the log-probabilities [answers, tokens] of the answers' tokens under the distribution that they were
    sampled from, 0 where there is none.
    """
    hidden = causal.model(**packed.inputs, use_cache=False).last_hidden_state[packed.groups, packed.places]
    there = packed.labels >= 0
    states, tokens = hidden[there], packed.labels[there]

    def scored(part: Tensor, chosen: Tensor) -> Tensor:
        scores = at_least_fp32(causal.lm_head(part)) / temperature
        found: Tensor = scores.gather(1, chosen[:, None])[:, 0] - scores.logsumexp(-1)
        return found

    parts = [
        checkpoint(scored, states[i : i + HEAD_TOKENS], tokens[i : i + HEAD_TOKENS], use_reentrant=False)
        for i in range(0, len(tokens), HEAD_TOKENS)
    ]
    logps = torch.cat(parts)
    return torch.zeros(packed.labels.shape, dtype=logps.dtype, device=logps.device).masked_scatter(there, logps)


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Return `tensor` in fp32, or as it is where it is more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
