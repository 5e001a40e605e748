"""LoRA adapters with random weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from afmrl_cli.models.base import load_base
from afmrl_cli.models.presets import Base

from .conftest import Adapter

LANGUAGE_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def make_adapter(base: Base, folder: Path, name: str, seed: int) -> Adapter:
    """An adapter of `base` that changes what it does; `folder` is made."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LANGUAGE_LAYERS, init_lora_weights=False)
    get_peft_model(load_base(base, "fp32", "cpu"), config).save_pretrained(str(folder))
    return Adapter(name, base.name, base.revision, folder)
