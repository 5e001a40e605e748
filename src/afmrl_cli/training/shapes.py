"""The shapes of language models and their towers, as the formula of a training's memory (`memory`) takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.presets import read_config
from ..models.weights import count_numbers

CHUNK = 64
"""Tokens that a delta net takes at a time."""


@dataclass(frozen=True)
class Deltas:
    """D, e, w, c, m, t of the formula."""

    layers: int = 0
    keys: int = 0
    values: int = 0
    mixed: int = 0
    chunk: int = 0
    state: int = 0


@dataclass(frozen=True)
class Shape:
    """P, d, L, f, q, k, V of the formula, width and layers of the vision tower, and the delta nets among the layers."""

    numbers: int
    hidden: int
    layers: int
    mlp: int
    query: int
    keys: int
    words: int
    tower: int
    tower_layers: int
    deltas: Deltas = Deltas()

    @property
    def attention(self) -> int:
        """Return how many layers have attention."""
        return self.layers - self.deltas.layers

    def linears(self) -> list[tuple[int, int, int]]:
        """Return the linear layers of the language model: how many there are, their inputs and outputs."""
        d, delta = self.hidden, self.deltas
        queries = self.query * (2 if delta.layers else 1)
        attention = ((d, queries), (d, self.keys), (d, self.keys), (self.query, d))
        net = ((d, delta.mixed), (d, delta.values), (delta.values, d))
        mlp = ((d, self.mlp), (d, self.mlp), (self.mlp, d))
        kinds = ((self.attention, attention), (delta.layers, net), (self.layers, mlp))
        return [(times, *sides) for times, layers in kinds for sides in layers]


KNOWN: dict[str, tuple[str, Shape]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": ("qwen2_5_vl", Shape(3_755_000_000, 2048, 36, 11008, 2048, 256, 151_936, 1280, 32)),
    "Qwen/Qwen2-VL-2B-Instruct": ("qwen2_vl", Shape(2_209_000_000, 1536, 28, 8960, 1536, 256, 151_936, 1280, 32)),
    "Qwen/Qwen3-VL-2B-Instruct": ("qwen3_vl", Shape(2_128_000_000, 2048, 28, 6144, 2048, 1024, 151_936, 1024, 24)),
    "Qwen/Qwen3-VL-Embedding-2B": ("qwen3_vl", Shape(2_128_000_000, 2048, 28, 6144, 2048, 1024, 151_936, 1024, 24)),
    "Qwen/Qwen3.5-2B": (
        "qwen3_5",
        Shape(2_274_000_000, 2048, 24, 6144, 2048, 512, 248_320, 1024, 24, Deltas(18, 2048, 2048, 6144, 1024, 262_144)),
    ),
}
"""The presets' models, for before they are fetched: type and shape, from their published files."""


def read_shape(folder: Path, name: str) -> Shape:
    """Read a model's shape from its config.json, and count the numbers in its safetensors files. Raises ModelError."""
    config, numbers = read_config(folder, name), count_numbers(folder)
    try:
        text, vision = config.get("text_config") or config, config["vision_config"]
        hidden, heads = text["hidden_size"], text["num_attention_heads"]
        head = text.get("head_dim") or hidden // heads
        return Shape(
            numbers,
            hidden,
            text["num_hidden_layers"],
            text["intermediate_size"],
            heads * head,
            text.get("num_key_value_heads", heads) * head,
            text["vocab_size"],
            vision.get("embed_dim") or vision["hidden_size"],
            vision["depth"],
            _deltas(text),
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ModelError(f"{name}: its shape can't be read: {reason}", "fetch or copy the model again") from error


def _deltas(text: dict[str, Any]) -> Deltas:
    """Read the shape of a language model's delta nets."""
    if not (layers := (text.get("layer_types") or []).count("linear_attention")):
        return Deltas()
    heads, key, value = (text[f"linear_{name}"] for name in ("num_value_heads", "key_head_dim", "value_head_dim"))
    keys = text["linear_num_key_heads"] * key
    return Deltas(layers, heads * key, heads * value, 2 * keys + heads * value, CHUNK * heads, heads * key * value)
