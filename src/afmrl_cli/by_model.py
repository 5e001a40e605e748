"""Settings that follow from the model where they are left open: batches and chunks that fit, activations kept or not.

With other models than the built-in one they are smaller, so that the presets fit on a card of 8 or 6 GiB. That costs
time; results are the same but for rounding and the dropout that is sampled. A number that the user sets is taken as
it is.
"""

from __future__ import annotations

from typing import Any

from .settings import BUILT_IN, Settings

BY_MODEL: dict[str, tuple[str, Any, Any]] = {
    "attributes.batch_size": ("generator", 32, 12),
    "embed.batch_size": ("embedder", 32, 16),
    "agcl.activation_checkpointing": ("embedder", False, True),
    "composed.activation_checkpointing": ("embedder", False, True),
    "sft.chunk_size": ("generator", 8, 2),
    "sft.activation_checkpointing": ("generator", False, True),
    "rerank.chunk_size": ("generator", 8, 1),
    "rerank.activation_checkpointing": ("generator", False, True),
    "recommender.chunk_size": ("generator", 16, 2),
    "recommender.constrained": ("generator", True, False),
    "recommender.rollout_answers": ("generator", 1024, 16),
    "recommender.activation_checkpointing": ("generator", False, True),
    "vision.chunk_photos": ("generator", 64, 8),
    "vision.chunk_answers": ("generator", 32, 4),
    "vision.rollout_answers": ("generator", 1024, 16),
    "vision.activation_checkpointing": ("generator", False, True),
    "rar.rollout_answers": ("generator", 1024, 16),
    "rar.activation_checkpointing": ("generator", False, True),
}
"""Whose model decides, the value with the built-in one, and with any other."""


def is_open(value: object) -> bool:
    """Return whether a setting's value leaves it open: None, or 0 of a number."""
    return value is None or (value == 0 and not isinstance(value, bool))


def value_by_model(key: str, base: str) -> Any:
    """Return what the setting `key` is with the model `base`."""
    _, built_in, other = BY_MODEL[key]
    return built_in if base == BUILT_IN else other


def with_values_by_model(settings: Settings) -> Settings:
    """Return the settings with a value for all that they leave open and the models decide."""
    changes: dict[str, dict[str, Any]] = {}
    for key, (decides, _, _) in BY_MODEL.items():
        section, _, name = key.partition(".")
        # What embeds is a vision encoder then, which has the generator's base.
        role = "generator" if settings.model.vision_checkpoint and section == "embed" else decides
        if is_open(getattr(getattr(settings, section), name)):
            base = getattr(settings.model, role) or settings.model.preset
            changes.setdefault(section, {})[name] = value_by_model(key, base)
    return settings.model_copy(
        update={section: getattr(settings, section).model_copy(update=new) for section, new in changes.items()}
    )
