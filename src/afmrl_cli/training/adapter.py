"""The LoRA adapter that is trained: put on the layers of a base, saved as a plain PEFT folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..models.base import LoadedBase, quiet
from ..models.presets import Base
from ..store.checkpoints import Checkpoints, Manifest, read_adapter_config
from ..training_settings import TrainingSettings

ADAPTER_NAME = "default"
"""The name that PEFT knows the trained adapter by."""

TaskType = Literal["FEATURE_EXTRACTION", "CAUSAL_LM"]
"""What PEFT notes in the adapter's configuration: of an embedder, of a generator."""


class HasBase(Protocol):
    """An embedder or a generator: a base in memory, and which of the adapters on it is used."""

    loaded: LoadedBase
    adapter: str | None


def add_trainable(
    owner: HasBase,
    settings: TrainingSettings,
    parent: Manifest | None,
    checkpoints: Checkpoints,
    task_type: TaskType = "FEATURE_EXTRACTION",
    targets: str = "",
) -> PeftModel:
    """Hang a new adapter on the base of `owner`, or `parent`'s to go on from, and make it the one that `owner` uses.

    `targets` are the layers that a new one is put on ("": the family's, of the language model). It is sampled with
    `settings.seed`, so that it is the same in every process; it changes nothing at first. Adapters that are on the base
    already stay, frozen and switched off.
    """
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets or owner.loaded.base.family.lora_targets,
        task_type=task_type,
    )
    loaded = owner.loaded
    if parent:
        read_adapter_config(checkpoints.path(parent.name))
    with quiet():
        folder = str(checkpoints.path(parent.name)) if parent else ""
        if loaded.peft is not None and parent is not None:
            loaded.peft.load_adapter(folder, adapter_name=ADAPTER_NAME, is_trainable=True)
        elif loaded.peft is not None:
            loaded.peft.add_adapter(ADAPTER_NAME, config)
        elif parent is not None:
            loaded.peft = PeftModel.from_pretrained(loaded.causal, folder, adapter_name=ADAPTER_NAME, is_trainable=True)
        else:
            loaded.peft = get_peft_model(loaded.causal, config, adapter_name=ADAPTER_NAME)
        loaded.peft.set_adapter(ADAPTER_NAME)
        if settings.activation_checkpointing:
            loaded.trunk.activation_checkpointing_enable({"use_reentrant": False})
    owner.adapter = ADAPTER_NAME
    return loaded.peft


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(model: PeftModel, base: Base, folder: Path, card: str) -> None:
    """Write adapter_model.safetensors, adapter_config.json (with the base's name) and the model card into `folder`."""
    config: Any = model.peft_config[ADAPTER_NAME]
    config.base_model_name_or_path, config.revision = base.name, base.revision
    # No embedding is trained; left to itself PEFT asks the hub whether the base's vocabulary has grown.
    model.save_pretrained(
        str(folder), selected_adapters=[ADAPTER_NAME], safe_serialization=True, save_embedding_layers=False
    )
    (folder / "README.md").write_text(card, "utf-8")
