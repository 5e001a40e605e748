"""How likely the recommender names each candidate first, the question run through the model once.

    log p(line of i, line break | question)     in two orders of the candidates, one the reverse of the other: no
                                                candidate stands first in both

That is the very probability by which the model would begin its answer so. Prompts are padded on the left; a cache of
each is repeated for its candidates, as in `rar/rollout.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..attributes.request import Request
from ..errors import ModelError
from ..models.base import active_adapter
from ..models.batching import Batches
from ..models.generator import LocalGenerator
from ..models.processor import TooLong
from ..rar.packed import prompt_positions
from ..rar.policy import evaluating
from .prompt import listed, question_text

Floats = NDArray[np.float64]


@contextmanager
def naming_lengths() -> Iterator[None]:
    """Name the settings that make a question long, where one is longer than the model's positions."""
    try:
        yield
    except TooLong as error:
        hint = "lower recommender.item_tokens, recommender.shortlist, recommender.candidates or recommender.history"
        raise ModelError(f"a question with its answer is too long: {error}", hint) from error


@dataclass(frozen=True)
class Shown:
    """A history and the candidates to rank, all different, as text."""

    history: tuple[str, ...]
    candidates: tuple[str, ...]


def request_of(shown: Shown, answers: int, reasoning: str = "") -> Request:
    """Return the question as the generator is asked it."""
    return Request(question_text(shown.history, shown.candidates, answers, reasoning))


def line_scores(generator: LocalGenerator, asked: Sequence[Shown], answers: int, batches: Batches) -> list[Floats]:
    """Return log p [2, candidates] of each question's candidates, in their order, in both orders of showing them."""
    turned = [
        Shown(each.history, order) for each in asked for order in (each.candidates, tuple(reversed(each.candidates)))
    ]
    prompts = [generator.text(request_of(each, answers)) for each in turned]
    tokenizer = generator.processor.tokenizer
    lines = [_line_tokens(tokenizer, each.candidates) for each in turned]
    sizes = [len(row) for row in tokenizer(prompts)["input_ids"]] if prompts else []

    def prepare(indices: list[int]) -> dict[str, Any]:
        if not indices:
            return {}
        chosen = [lines[i] for i in indices]
        room = max(len(line) for each in chosen for line in each)
        tensors = generator.processor.tokens([prompts[i] for i in indices], [0] * len(indices), None, room)
        return {"tensors": tensors, "lines": chosen}

    most = max((len(each) for each in lines), default=1)
    with evaluating(generator.loaded.causal), naming_lengths():
        made = batches.run(sizes, prepare, lambda batch: _forward(generator, batch), most)
    return [np.stack([made[i], made[i + 1][::-1]]) for i in range(0, len(made), 2)]


def _line_tokens(tokenizer: Any, lines: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer([f"{listed(line)}\n" for line in lines], add_special_tokens=False)["input_ids"]
    return found


def _forward(generator: LocalGenerator, batch: dict[str, Any]) -> list[Floats]:
    """Return log p [candidates] for each prompt of a batch."""
    loaded, lines = generator.loaded, batch["lines"]
    trunk, device = loaded.trunk, loaded.device
    ids, mask = (batch["tensors"][name].to(device) for name in ("input_ids", "attention_mask"))
    positions = prompt_positions(trunk, ids, mask, None)
    counts = torch.tensor([len(each) for each in lines])
    owner = torch.repeat_interleave(torch.arange(len(lines)), counts).to(device)
    flat = [torch.tensor(line) for each in lines for line in each]
    targets = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=0).to(device)
    ends = torch.tensor([len(line) for line in flat], device=device)
    steps = torch.arange(targets.shape[1], device=device)
    inside = steps < ends[:, None]
    # The prompt's last token predicts a line's first one, so it is read with the lines and not with the prompt.
    last = ids[:, -1:][owner]
    with torch.inference_mode(), active_adapter(loaded.peft, generator.adapter):
        cache = trunk(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[..., :-1],
            use_cache=True,
        ).past_key_values
        cache.reorder_cache(owner)  # what delta nets' states know, too
        hidden = trunk(
            input_ids=torch.cat([last, targets[:, :-1]], dim=1),
            attention_mask=torch.cat([mask[:, :-1][owner], inside.long()], dim=1),
            position_ids=positions[:, :, -1][:, owner][..., None] + steps,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logps = loaded.causal.lm_head(hidden).float().log_softmax(-1).gather(2, targets[..., None])[..., 0]
    sums = torch.where(inside, logps, 0.0).sum(1).double().cpu().numpy()
    return np.split(sums, np.cumsum(counts.tolist())[:-1].tolist())
