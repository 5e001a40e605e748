"""The LoRA adapter that is trained: put on the language model of a base, saved as a plain PEFT folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..models.base import quiet
from ..models.embedder import Embedder
from ..models.presets import Base
from ..settings import AgclSettings
from ..store.checkpoints import Checkpoints, Manifest

TRAINED = "default"
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""All linear layers of the language model, none of the vision tower, whose layers share some of these names."""


def add_trainable(
    embedder: Embedder, settings: AgclSettings, parent: Manifest | None, checkpoints: Checkpoints
) -> PeftModel:
    """Hang a new adapter on the embedder's base, or `parent`'s to go on from, and make it what `embedder` encodes with.

    A new one is drawn from `settings.seed`, so that it is the same in every process; it changes nothing at first.
    """
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=TARGETS,
        task_type="FEATURE_EXTRACTION",
    )
    causal = embedder.loaded.causal
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # names that are about to go, but are still the only ones in 5.15
        if parent is None:
            model = get_peft_model(causal, config, adapter_name=TRAINED)
        else:
            folder = str(checkpoints.path(parent.name))
            model = PeftModel.from_pretrained(causal, folder, adapter_name=TRAINED, is_trainable=True)
        if settings.activation_checkpointing:
            embedder.loaded.trunk.gradient_checkpointing_enable({"use_reentrant": False})
    embedder.loaded.peft, embedder.adapter = model, TRAINED
    return model


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(model: PeftModel, base: Base, folder: Path, card: str) -> None:
    """Write adapter_model.safetensors, adapter_config.json (with the base's name) and the model card into `folder`."""
    config: Any = model.peft_config[TRAINED]
    config.base_model_name_or_path, config.revision = base.name, base.revision
    model.save_pretrained(str(folder), selected_adapters=[TRAINED], safe_serialization=True)
    (folder / "README.md").write_text(card, "utf-8")
