"""Bytes that a language model's forward and backward hold at their peak, counted without weights and without computing.

    A(layers) = A(1) + (layers - 1) (A(2) - A(1))          A(n): the peak of live tensors with n layers

The model is built from its configuration with one and with two layers, on the meta device, where tensors have shapes
and no storage, with PEFT's adapter on it; every operation's outputs are counted while they live. So what transformers,
PEFT and autograd keep is counted as they keep it, whatever their version. What kernels use inside is not seen, nor what
an allocator rounds up. With activation checkpointing each layer but one keeps its input alone.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForImageTextToText
from transformers.integrations.sdpa_attention import repeat_kv

from ..models.base import quiet
from .adapter import TARGETS

COUNTED = "afmrl_counted"


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
    """Attention as the CPU's and the GPU's fused kernels keep it; on the meta device torch would take the plain one,
    which holds length x length numbers. Keys and values are repeated, as transformers does where there is a mask.
    """
    key, value = (repeat_kv(each, module.num_key_value_groups) for each in (key, value))
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out = fused(query, key, value, 0.0, mask is None, scale=scaling)[0]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(COUNTED, _attention)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, until they are freed; `known` are not counted."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak, self._alive = 0, 0, set(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size


def activations(
    config: Any,
    dtype: torch.dtype,
    rows: int,
    length: int,
    *,
    rank: int = 0,
    dropout: float = 0.0,
    checkpointing: bool = False,
    answers: int = 0,
) -> int:
    """Peak bytes of a forward over `rows` x `length` tokens, above weights and adapter.

    With `rank` a backward too, its gradients included. `answers` > 0: so many tokens' log-probabilities over the
    vocabulary are what is differentiated, in place of the last hidden states.
    """
    text = config.get_text_config()
    one = _measured(config, 1, dtype, rows, length, rank, dropout, answers)
    if text.num_hidden_layers == 1:
        return one
    if checkpointing and rank:
        each = rows * length * text.hidden_size * dtype.itemsize
    else:
        each = _measured(config, 2, dtype, rows, length, rank, dropout, answers) - one
    return one + int((text.num_hidden_layers - 1) * each)


def _measured(
    config: Any, layers: int, dtype: torch.dtype, rows: int, length: int, rank: int, dropout: float, answers: int
) -> int:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    small.vision_config.depth = 1
    with torch.device("meta"), quiet():
        model = AutoModelForImageTextToText.from_config(small, dtype=dtype, attn_implementation=COUNTED)
        if rank:
            lora = LoraConfig(r=rank, lora_dropout=dropout, target_modules=TARGETS)
            model = get_peft_model(model, lora, low_cpu_mem_usage=True).base_model.model
        model.train(bool(rank))
        known = {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers()]}
        trunk = model.model.language_model
        inputs = torch.empty(rows, length, text.hidden_size, dtype=dtype)
        positions = torch.zeros(3, rows, length, dtype=torch.long)
        with LiveBytes(known) as counter, torch.set_grad_enabled(bool(rank)):
            hidden = trunk(inputs_embeds=inputs, position_ids=positions, use_cache=False).last_hidden_state
            if rank and answers:
                logits = model.lm_head(hidden.reshape(-1, text.hidden_size)[:answers])
                torch.autograd.backward(_log_probabilities(logits).sum())
            elif rank:
                torch.autograd.backward(hidden[:, -1].sum())
    return int(counter.peak)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """As TRL takes them: row by row where they are not fp32, and the entropy beside."""
    if logits.dtype == torch.float32:
        return logits[:, 0] - torch.logsumexp(logits, dim=-1)
    return torch.cat([torch.log_softmax(row, dim=-1)[:, 0] for row in torch.split(logits, 64)])
