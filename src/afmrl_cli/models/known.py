"""The shapes of the presets' models, for what must be known of them before they are fetched.

From the models' published config.json; only what decides memory. A model on this disk is read from its own.
"""

from __future__ import annotations

from typing import Any

VOCABULARY = 151_936
KNOWN: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (
        "qwen2_5_vl",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
        },
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048},
    ),
    "Qwen/Qwen2-VL-2B-Instruct": (
        "qwen2_vl",
        {
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
        },
        {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "num_heads": 16},
    ),
    "Qwen/Qwen3-VL-2B-Instruct": (
        "qwen3_vl",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 6144,
        },
        {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048},
    ),
}
"""Name -> model type, text and vision configuration."""


def known_config(name: str) -> Any:
    """The configuration of a preset's model, as transformers has it; None of any other model."""
    if name not in KNOWN:
        return None
    from transformers import AutoConfig

    kind, text, vision = KNOWN[name]
    text = text | {"vocab_size": VOCABULARY, "tie_word_embeddings": True}
    return AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=True)
