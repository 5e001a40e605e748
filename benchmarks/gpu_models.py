"""Models of the presets' sizes with random weights: what time and memory depend on, without a download.

The sizes are those of the public config.json files. Tokenizer and chat template are nano's, whose texts are a little
longer in tokens; its vocabulary is a part of the full one. Weights are made on the device and saved in bf16, so that
they are loaded (and quantised) as a hub model's are.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Size:
    """What config.json says: the language model's (width, layers, inner width, heads, key-value heads), the rest of it,
    and the tower.
    """

    text: tuple[int, int, int, int, int]
    vision: dict[str, Any]
    rope: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)


TOWER_2 = {"depth": 32, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
SECTIONS = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
SIZES = {
    "qwen2_vl": Size((1536, 28, 8960, 12, 2), TOWER_2 | {"embed_dim": 1280, "hidden_size": 1536}, SECTIONS),
    "qwen2_5_vl": Size(
        (2048, 36, 11008, 16, 2),
        TOWER_2
        | {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048, "window_size": 112}
        | {"fullatt_block_indexes": [7, 15, 23, 31]},
        SECTIONS,
    ),
    "qwen3_vl": Size(
        (2048, 28, 6144, 16, 8),
        {"depth": 24, "num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
        | {"hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2048}
        | {"deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": 2304},
        {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        {"head_dim": 128},
    ),
}
"""Qwen2-VL-2B, Qwen2.5-VL-3B, Qwen3-VL-2B."""
VOCABULARY, POSITIONS = 151_936, 32_768
NARROW = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 2}


def config_of(architecture: str, tiny: bool = False) -> Any:
    """The configuration of an architecture at its full size or, `tiny`, with two narrow layers."""
    from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

    from afmrl_cli.models.presets import nano_folder

    kinds = {"qwen2_vl": Qwen2VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}
    size, nano = SIZES[architecture], AutoConfig.from_pretrained(nano_folder())
    width, layers, inner, heads, shared = size.text
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "max_position_embeddings": POSITIONS,
        "rope_parameters": size.rope,
        "bos_token_id": None,
        "eos_token_id": nano.text_config.eos_token_id,
        "pad_token_id": nano.text_config.pad_token_id,
        "tie_word_embeddings": True,
    } | size.more
    vision = dict(size.vision)
    if tiny:
        text |= NARROW | {"num_key_value_heads": 1, "vocab_size": 20_000}
        vision |= {"depth": 2, "num_heads": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 256}
        vision |= {"fullatt_block_indexes": [1], "deepstack_visual_indexes": [0]}
        if architecture == "qwen2_vl":
            vision |= {"embed_dim": 64, "hidden_size": 256}
        known = set(kinds[architecture]().vision_config.to_dict())
        vision = {name: value for name, value in vision.items() if name in known}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(nano, name) for name in names}
    return kinds[architecture](text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def make_model(architecture: str, folder: Path, device: str, tiny: bool = False) -> int:
    """Save the model in `folder`; the number of its parameters."""
    import torch
    from transformers import AutoModelForImageTextToText

    from afmrl_cli.models.presets import nano_folder

    config = config_of(architecture, tiny)
    torch.manual_seed(0)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=kind)
    shutil.copytree(nano_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = folder / name
        if file.is_file():
            content = json.loads(file.read_text("utf-8"))
            _as_on_the_hub(content.get("image_processor", content), architecture)
            file.write_text(json.dumps(content), "utf-8")
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _as_on_the_hub(pictures: dict[str, Any], architecture: str) -> None:
    """Patches of this architecture, and the hub's limits of pixels in place of nano's small ones."""
    pictures["patch_size"] = SIZES[architecture].vision["patch_size"]
    pictures["size"] = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    for name in ("min_pixels", "max_pixels"):
        pictures.pop(name, None)
