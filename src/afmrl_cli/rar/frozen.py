"""Run the embedder frozen inside training: in eval mode; adapter, train mode and requires_grad are restored afterwards.

Generator and embedder may be adapters of one base in memory, and then the reward is computed in the very modules that
are being trained: the adapter is switched, dropout and activation checkpointing are off meanwhile, no gradient is
recorded, and all of it comes back even when something raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator

import torch

from ..models.base import active_adapter
from ..models.embedder import Embedder


@contextlib.contextmanager
def frozen(embedder: Embedder) -> Iterator[None]:
    """Run the block with the embedder's adapter alone (or none), eval mode, no gradient. Afterwards: adapter, training
    mode of every module, what was trainable and the model's notes on positions are as before.
    """
    model = embedder.loaded.causal
    if embedder.loaded.peft is None and any("lora_" in name for name, _ in model.named_modules()):
        raise RuntimeError("an adapter was put on the embedder's base without telling it: set LoadedBase.peft")
    training = [module for module in model.modules() if module.training]
    deltas = getattr(embedder.loaded.trunk, "rope_deltas", None)
    model.eval()
    try:
        with torch.no_grad(), active_adapter(embedder.loaded.peft, embedder.adapter):
            yield
    finally:
        for module in training:
            module.training = True
        embedder.loaded.trunk.rope_deltas = deltas


def weights_hash(embedder: Embedder) -> str:
    """Return SHA-256 (hex) of the embedder's weights: base and its own adapter, and none that hangs beside it.

    The same before and after another adapter has been added to the base or trained.
    """
    digest = hashlib.sha256()
    own = embedder.adapter
    others = set(embedder.loaded.peft.peft_config) - {own} if embedder.loaded.peft is not None else set()
    tensors = {name.replace(".base_layer.", "."): value for name, value in embedder.loaded.causal.state_dict().items()}
    for name in sorted(tensors):
        if "lora_" in name and others.intersection(re.split(r"\.", name)):
            continue
        value = tensors[name].detach().contiguous().cpu()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
