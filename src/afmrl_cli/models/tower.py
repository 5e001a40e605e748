"""A base's vision tower by itself, an adapter merged into it: what a photo takes where no language model is needed.

    W' = W + s B A,   A [r, inputs], B [outputs, r] of the adapter,   s = alpha / r  (rslora: alpha / sqrt(r))

Of the base's files only the tower's tensors are read: of a model of two billion numbers that is every fifth one. They
are what the whole model has under the same names, in its type. The sum is made in fp32.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText

from ..errors import ModelError
from ..store.checkpoints import WEIGHTS, read_adapter_config
from ..store.strict import AdapterConfig
from .base import full_precision, open_weights, quiet, refuse_missing
from .device import Device
from .precision import Precision
from .presets import Base

TOWER = "model.visual."
"""How the layers of the tower begin in a whole model."""
IN_FILES = r"^(model\.)?visual\."
"""The same in its files, whose names are older in some."""
MATRIX = re.compile(rf"base_model\.model\.{re.escape(TOWER)}(?P<layer>.+)\.lora_(?P<side>A|B)\.weight")
HINT = "train it again, or copy the checkpoint again"


def load_tower(base: Base, precision: Precision, device: Device) -> Any:
    """Return the vision tower of `base` in eval mode, without gradients. Raises ModelError and OutOfMemory as
    `base.load_base`.
    """
    kind = full_precision(precision, device)
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        shape = AutoModelForImageTextToText.from_config(config, trust_remote_code=False).model.visual
    tower, missing = open_weights(
        type(shape),
        base,
        precision,
        config=config.vision_config,
        key_mapping={IN_FILES: ""},
        dtype=kind,
        device_map={"": device},
    )
    refuse_missing(missing, base)
    return tower.eval().requires_grad_(requires_grad=False)


def merge_adapter(tower: nn.Module, folder: Path, name: str) -> None:
    """Add the LoRA in `folder`, of the checkpoint `name`, to the weights of `tower`. ModelError when it is damaged, or
    its tensors are not those of the tower's layers that its configuration names.
    """
    config = read_adapter_config(folder)
    if config.use_dora or config.rank_pattern or config.alpha_pattern:
        raise ModelError(f"checkpoint {name}: not a plain LoRA, which a vision encoder has", HINT)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(f"checkpoint {name}: can't be loaded: {reason}", HINT) from error
    layers = {layer: each for layer, each in tower.named_modules() if isinstance(each, nn.Linear)}
    expected = {
        f"base_model.model.{TOWER}{layer}.lora_{side}.weight": shape
        for layer, each in layers.items()
        if _is_named(TOWER + layer, config)
        for side, shape in (("A", (config.r, each.in_features)), ("B", (each.out_features, config.r)))
    }
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if odd := sorted(key for key in {*shapes, *expected} if shapes.get(key) != expected.get(key)):
        what = f"{len(odd)} tensors do not fit this vision tower, such as {odd[0][:200]}"
        raise ModelError(f"checkpoint {name}: {what}", HINT)
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    with torch.no_grad():
        for layer in {found["layer"] for key in shapes if (found := MATRIX.fullmatch(key))}:
            weight = layers[layer].weight
            inner, outer = (
                tensors[f"base_model.model.{TOWER}{layer}.lora_{side}.weight"].to(weight.device).float()
                for side in "AB"
            )
            weight.copy_(weight.float() + scale * (outer @ inner))


def drop_deepstack(tower: Any) -> None:
    """Take out of `tower` what a language model alone reads: the mergers of DeepStack's layers, where there are any."""
    if getattr(tower, "deepstack_visual_indexes", None):
        tower.deepstack_visual_indexes = tower.config.deepstack_visual_indexes = []
        tower.deepstack_merger_list = nn.ModuleList()


def _is_named(layer: str, config: AdapterConfig) -> bool:
    """Tell whether the configuration puts LoRA on `layer`, as PEFT reads it."""
    wanted = config.target_modules
    if isinstance(wanted, str):
        return re.fullmatch(wanted, layer) is not None
    return any(layer == each or layer.endswith(f".{each}") for each in wanted)


def photo_tokens(tower: Any, pixels: Tensor, grids: Tensor) -> list[Tensor]:
    """Return what the tower's merger makes of each photo, [tokens, D], as the language model would read it.

    pixels [patches, d] of all of them, grids [photos, 3] in patches, as `Processor.pixels` gives them.
    """
    made = tower(pixels.to(tower.device, tower.dtype), grid_thw=grids.to(tower.device)).pooler_output
    return list(torch.split(made, (grids.prod(1) // tower.spatial_merge_size**2).tolist()))
