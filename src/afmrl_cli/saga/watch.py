"""How a layer of the language model attends, for a few of its tokens, while a forward runs as it would anyhow.

    alpha_h,t = softmax(q_h,t K_h^T / sqrt d + mask)      heads h, watched tokens t

The layer's attention is computed by transformers' own function; beside it the watched rows are computed once more, from
the very queries and keys that it gets (positions are in them), so no family needs code of its own and no other layer
gives its attention away. Nothing of it has a gradient.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WATCHED = "afmrl_watched"
"""The name that transformers knows the function below by."""
DEPTH = 0.7
"""Where in the language model the teacher's layer lies: 26 of 36, as in the paper. The last ones look at sinks."""


class Watch:
    """Which tokens of a batch are watched, by row and place; `weights` [heads, tokens, length] are what was seen."""

    def __init__(self, rows: Tensor, places: Tensor) -> None:
        self.rows, self.places = rows, places
        self.weights: Tensor | None = None


def teacher_layer(trunk: Any, layer: int = 0) -> int:
    """Return the index of the layer that is watched: number `layer`, counted from 1, or for 0 the one at `DEPTH`; of
    those that have attention (a gated delta net has none) the nearest.
    """
    layers = trunk.language_model.layers
    there = [i for i, each in enumerate(layers) if hasattr(each, "self_attn")]
    wanted = (layer or round(DEPTH * len(layers))) - 1
    return min(there, key=lambda i: (abs(i - wanted), i))


@contextlib.contextmanager
def watching(trunk: Any, layer: int, watch: Watch) -> Iterator[None]:
    """Make the layer with index `layer` note, inside the block, how the watched tokens attend."""
    AttentionInterface.register(WATCHED, _attend)
    attention = trunk.language_model.layers[layer].self_attn
    before = attention.config
    attention.config = copy.copy(before)
    attention.config._attn_implementation = WATCHED
    attention.watch = watch
    try:
        yield
    finally:
        attention.config = before
        del attention.watch


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend as transformers does; note the weights of what is watched."""
    watch: Watch = module.watch
    if watch.weights is None:  # with activation checkpointing the backward comes here once more
        with torch.no_grad():
            watch.weights = _weights(query, key, attention_mask, options.get("scaling"), watch)
    found: tuple[Tensor, Tensor | None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return found


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, watch: Watch) -> Tensor:
    heads, width = query.shape[1], query.shape[-1]
    scale = width**-0.5 if scaling is None else scaling
    found = torch.zeros(heads, len(watch.rows), key.shape[2], device=query.device)
    for row in sorted(set(watch.rows.tolist())):
        at = (watch.rows == row).nonzero()[:, 0]
        places = watch.places[at]
        keys = key[row].repeat_interleave(heads // key.shape[1], dim=0).float()
        scores = query[row][:, places].float() @ keys.transpose(1, 2) * scale
        found[:, at] = (scores + _added(mask, row, places, key.shape[2]).to(scores.device)).softmax(-1)
    return found


def _added(mask: Tensor | None, row: int, places: Tensor, length: int) -> Tensor:
    """Return what is added to the scores of the tokens at `places` [1, tokens, length]: the lowest number where one is
    not seen.
    """
    lowest = torch.finfo(torch.float32).min
    if mask is None:
        seen = torch.arange(length, device=places.device) <= places[:, None]
    else:
        own = mask[row if mask.shape[0] > 1 else 0, 0, places]
        if own.dtype != torch.bool:
            return own.float()[None]
        seen = own
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, lowest)[None]
