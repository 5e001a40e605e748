"""LoRA adapters with random weights, for tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model

from afmrl_cli.models.base import load_base
from afmrl_cli.models.presets import Base
from afmrl_cli.saga.pooler import Pooler, save_pooler
from afmrl_cli.store.checkpoints import POOLER_WEIGHTS, QUERY_WEIGHTS, WEIGHTS, Checkpoints, Manifest, Role

FEATURES = "FEATURE_EXTRACTION"
Pooling = Literal["attention", "mean"]
LANGUAGE_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def save_random(folder: Path, base: Base, seed: int) -> Path:
    """An adapter of `base` that changes what it does, as PEFT saves it."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LANGUAGE_LAYERS, init_lora_weights=False)
    get_peft_model(load_base(base, "fp32", "cpu"), config).save_pretrained(folder)
    return folder


def add_random(
    checkpoints: Checkpoints, base: Base, name: str, seed: int, role: Role = "embedder", said: Base | None = None
) -> Manifest:
    """Store an adapter of `base` that changes what it does; its manifest says that it is of `said` (default: true)."""
    said = said or base
    with tempfile.TemporaryDirectory() as folder:
        return checkpoints.add(save_random(Path(folder), base, seed), Manifest(role, said.name, said.revision, name))


def save_two_sided(folder: Path, base: Base, seeds: tuple[int, int]) -> Path:
    """A gallery adapter and a query adapter: those that `save_random` makes of the two seeds."""
    with tempfile.TemporaryDirectory() as other:
        query = save_random(Path(other), base, seeds[1]) / WEIGHTS
        shutil.copyfile(query, save_random(folder, base, seeds[0]) / QUERY_WEIGHTS)
    return folder


def add_two_sided(checkpoints: Checkpoints, base: Base, name: str, seeds: tuple[int, int]) -> Manifest:
    """Store a two-sided embedder."""
    with tempfile.TemporaryDirectory() as folder:
        adapter = save_two_sided(Path(folder), base, seeds)
        return checkpoints.add(adapter, Manifest("embedder", base.name, base.revision, name))


def save_vision(
    folder: Path, base: Base, seed: int, dimension: int = 0, pooling: Pooling = "attention", *, trained: bool = True
) -> Path:
    """A vision encoder on `base`; `trained`: whose adapter and pooler change what the tower does."""
    torch.manual_seed(seed)
    targets = base.family.tower_targets
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=not trained, task_type=FEATURES)
    model = load_base(base, "fp32", "cpu")
    get_peft_model(model, config).save_pretrained(folder, save_embedding_layers=False)
    width = int(model.config.get_text_config().hidden_size)
    pooler = Pooler(width, dimension or width, pooling)
    for parameter in pooler.parameters() if trained else ():
        parameter.data += torch.randn_like(parameter)
    save_pooler(pooler, folder / POOLER_WEIGHTS)
    return folder


def add_vision(
    checkpoints: Checkpoints,
    base: Base,
    name: str,
    seed: int = 1,
    dimension: int = 0,
    pooling: Pooling = "attention",
    *,
    trained: bool = True,
) -> Manifest:
    """Store a vision encoder."""
    with tempfile.TemporaryDirectory() as folder:
        made = save_vision(Path(folder), base, seed, dimension, pooling, trained=trained)
        return checkpoints.add(made, Manifest("vision", base.name, base.revision, name))
