"""Bytes that a language model's forward and backward hold at their peak, counted without weights and without computing.

    A(layers) = A(1) + (layers - 1) (A(2) - A(1))          A(n): the peak of live tensors with n layers

The model is built from its configuration with one and with two layers, on the meta device, where tensors have shapes
and no storage, with PEFT's adapter on it; every operation's outputs are counted while they live. So what transformers,
PEFT and autograd keep is counted as they keep it, whatever their version. What kernels use inside is not seen, nor what
an allocator rounds up. With activation checkpointing each layer but one keeps its input alone.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForImageTextToText
from transformers.integrations.sdpa_attention import repeat_kv

from ..models.base import quiet
from ..models.families import FAMILIES

COUNTED = "afmrl_counted"


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any
) -> tuple[Any, None]:
    """Attention as the CPU's and the GPU's fused kernels keep it; on the meta device torch would take the plain one,
    which holds length x length numbers. Keys and values are repeated, as transformers does where there is a mask.
    """
    if (groups := getattr(module, "num_key_value_groups", 1)) > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    mask = attention_mask
    if mask is not None:  # torch makes numbers of it, anew in each layer, and keeps them for the backward
        mask = mask.to(query.dtype)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out = fused(query, key, value, 0.0, mask is None, attn_mask=mask, scale=scaling)[0]
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
    head: int = 0,
) -> int:
    """Peak bytes of a forward over `rows` x `length` tokens, above weights and adapter.

    With `rank` a backward too, its gradients included, of the last hidden states; of the loss on the last `answers`
    tokens of each row, where there are some; or of what takes `head` bytes above the hidden states, forward and
    backward.
    """
    text = config.get_text_config()
    how = (dtype, rows, length, rank, dropout, answers, head)
    one = _measured(config, 1, *how)
    if text.num_hidden_layers == 1:
        return one
    if checkpointing and rank:
        each = rows * length * text.hidden_size * dtype.itemsize
    else:
        each = _measured(config, 2, *how) - one
    return one + int((text.num_hidden_layers - 1) * each)


def _measured(
    config: Any,
    layers: int,
    dtype: torch.dtype,
    rows: int,
    length: int,
    rank: int,
    dropout: float,
    answers: int,
    head: int,
) -> int:
    text = config.get_text_config()
    with _model(config, layers, dtype) as model:
        if rank:
            lora = LoraConfig(r=rank, lora_dropout=dropout, target_modules=FAMILIES[config.model_type].lora_targets)
            model = get_peft_model(model, lora, low_cpu_mem_usage=True).base_model.model
        model.train(bool(rank))
        trunk = model.model.language_model
        positions = torch.zeros(3, rows, length, dtype=torch.long)
        with LiveBytes(_known(model)) as counter, torch.set_grad_enabled(bool(rank)):
            inputs = torch.empty(rows, length, text.hidden_size, dtype=dtype)
            # Rows of several lengths, as they are: transformers then makes a mask.
            mask = torch.empty(rows, 1, length, length, dtype=torch.bool)
            hidden = trunk(
                inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            if rank and answers:
                labels = torch.zeros(rows, answers, dtype=torch.long)
                logits = model.lm_head(hidden[:, -answers:])
                torch.autograd.backward(model.loss_function(logits, labels, text.vocab_size))
            elif rank:
                torch.autograd.backward(_Head.apply(hidden, head).sum())  # type: ignore[no-untyped-call]
    return int(counter.peak)


class _Head(torch.autograd.Function):
    """Takes `size` bytes for a moment, forward and backward."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, size: int) -> torch.Tensor:
        ctx.size, ctx.like = size, hidden
        torch.empty(size, dtype=torch.uint8)
        return hidden[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        torch.empty(ctx.size, dtype=torch.uint8)
        return torch.empty_like(ctx.like), None


def tower(config: Any, dtype: torch.dtype, images: int, tokens: int) -> int:
    """Peak bytes of the vision tower over so many photos of so many tokens each, above weights and pixels; no
    gradient, so that the number of its layers makes no difference.
    """
    shape = config.vision_config
    patches = tokens * shape.spatial_merge_size**2
    values = shape.in_channels * shape.temporal_patch_size * shape.patch_size**2
    ends = torch.arange(images + 1, dtype=torch.int32) * patches
    with _model(config, 1, dtype) as model:
        pixels, places = torch.empty(images * patches, values), torch.zeros(images * patches, 2, dtype=torch.long)
        # What the tower would work out from the photos' sizes, which the meta device can't.
        told: dict[str, Any] = {"position_ids": places, "cu_seqlens": ends}
        if config.model_type == "qwen2_5_vl":
            told |= {"window_index": torch.zeros(images * tokens, dtype=torch.long), "cu_window_seqlens": ends}
        if config.model_type == "qwen3_vl":
            taps = torch.zeros(images * patches, 4, dtype=torch.long)
            told |= {"interp_indices": taps, "interp_weights": taps.float()}
        known = _known(model) | {pixels.untyped_storage()._cdata}
        with LiveBytes(known) as counter, torch.no_grad():
            model.model.visual(pixels, torch.empty(images, 3, dtype=torch.long), **told)
    deeper = len(getattr(shape, "deepstack_visual_indexes", None) or ())
    return int(counter.peak + deeper * images * tokens * config.get_text_config().hidden_size * dtype.itemsize)


@contextlib.contextmanager
def _model(config: Any, layers: int, dtype: torch.dtype) -> Iterator[Any]:
    """The model of `config` with so many layers and a tower of one, on the meta device, which is the default inside."""
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    small.vision_config.depth = 1
    with torch.device("meta"), quiet():
        yield AutoModelForImageTextToText.from_config(small, dtype=dtype, attn_implementation=COUNTED).eval()


def _known(model: torch.nn.Module) -> set[int]:
    return {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers()]}
