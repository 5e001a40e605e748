"""LoRA adapters with random weights, for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from afmrl_cli.models.base import load_base
from afmrl_cli.models.presets import Base
from afmrl_cli.store.checkpoints import Checkpoints, Manifest, Role

LANGUAGE_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def add_random(
    checkpoints: Checkpoints, base: Base, name: str, seed: int, role: Role = "embedder", said: Base | None = None
) -> Manifest:
    """Store an adapter of `base` that changes what it does; its manifest says that it is of `said` (default: true)."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LANGUAGE_LAYERS, init_lora_weights=False)
    said = said or base
    with tempfile.TemporaryDirectory() as folder:
        get_peft_model(load_base(base, "fp32", "cpu"), config).save_pretrained(folder)
        return checkpoints.add(Path(folder), Manifest(role, said.name, said.revision, name))
