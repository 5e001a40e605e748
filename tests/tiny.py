"""Qwen-VL models small enough for a test: random weights, a tokenizer learnt on the spot, saved as a hub model is."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from tests import NANO

ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
HYBRID = "qwen3_5"
"""Its first layer is a gated delta net, with 8 linear layers instead of 7; a row can't hold several answers."""
LAYERS, HIDDEN, VOCABULARY, MAX_POSITIONS = 2, 64, 512, 1024
LINEAR_LAYERS = 7 * LAYERS
"""q, k, v, o, gate, up, down in each layer of the language model."""

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% if add_generation_prompt %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
"""What Qwen3.5's template ends with."""
WORDS = [
    "red cotton shirt with short sleeves and a round neckline",
    "Find this product: blue denim jacket, regular fit",
    "Represent this product: colour: green; pattern: striped; closure: zip",
    "Was unterscheidet dieses Produkt von anderen?",
]


THOUGHT = ("<think>", "</think>")


@functools.cache
def tiny_tokenizer(*, thinks: bool = False) -> Any:
    """A byte-level BPE of 512 tokens with Qwen's special tokens; `thinks`: and Qwen3.5's, which are not special."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learnt = VOCABULARY - len(THOUGHT) * thinks
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=learnt, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(WORDS * 20, trainer)
    # No padding_side: as in a hub model's folder, the code that opens it has to set it.
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
    )
    made.add_tokens(list(THOUGHT) * thinks)
    return made


def tiny_config(architecture: str, hidden: int = HIDDEN, layers: int = LAYERS) -> Any:
    """The configuration of a small `architecture`."""
    from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3_5Config, Qwen3VLConfig

    number = tiny_tokenizer().convert_tokens_to_ids
    half = hidden // 8
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": 0.1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
        },
        "bos_token_id": None,
        "eos_token_id": number("<|im_end|>"),
        "pad_token_id": number("<|endoftext|>"),
        "tie_word_embeddings": True,
    }
    ids = {
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
        "tie_word_embeddings": True,
    }
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if architecture == "qwen2_vl":
        return Qwen2VLConfig(
            text_config=text, vision_config=vision | {"embed_dim": 32, "hidden_size": hidden, "patch_size": 14}, **ids
        )
    vision |= {"hidden_size": 32, "out_hidden_size": hidden, "intermediate_size": 64}
    if architecture == "qwen2_5_vl":
        vision |= {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    if architecture == HYBRID:
        delta = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
        delta |= {"linear_key_head_dim": hidden // 4, "linear_value_head_dim": hidden // 4}
        text |= delta | {"layer_types": ["linear_attention"] * (layers - 1) + ["full_attention"]}
        return Qwen3_5Config(
            text_config=text, vision_config=vision | {"patch_size": 16, "num_position_embeddings": 16}, **ids
        )
    vision |= {"patch_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return Qwen3VLConfig(text_config=text, vision_config=vision, **ids)


def make_tiny(architecture: str, folder: Path, *, seed: int = 0, hidden: int = HIDDEN, layers: int = LAYERS) -> Path:
    """A model of `architecture` in `folder`, laid out as the hub's folders are: old preprocessor_config.json, a video
    processor's settings beside it, sampling habits in generation_config.json.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(tiny_config(architecture, hidden, layers))
    model.generation_config.update(do_sample=True, temperature=0.01, top_p=0.001, top_k=1, repetition_penalty=1.5)
    model.save_pretrained(folder)
    tiny_tokenizer(thinks=architecture == HYBRID).save_pretrained(folder)
    if architecture == HYBRID:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE + THINKING, "utf-8")
    stock = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
    patches16 = architecture not in stock
    pictures: dict[str, Any] = {
        "patch_size": 16 if patches16 else 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5] if patches16 else [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.5, 0.5, 0.5] if patches16 else [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": stock.get(architecture, "Qwen3VLProcessor"),
    }
    limits: dict[str, Any] = {"min_pixels": 3136, "max_pixels": 12845056}
    if patches16:
        limits = {"size": {"shortest_edge": 4096, "longest_edge": 16777216}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures | limits), "utf-8")
    video = pictures | limits | {"video_processor_type": "Qwen2VLVideoProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video), "utf-8")
    return folder


def without_head(model: Path, place: Path) -> Path:
    """A copy of `model` as an embedder is published: weights that are not tied, and no vocabulary head among them."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(model, place))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def photo(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    """A picture of coloured noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def tiny_settings(model: Path, defaults: Mapping[str, object]) -> Callable[..., Settings]:
    """Return `settings(**{"agcl.steps": 4})`: `model` for both roles, on the CPU in fp32, and `defaults`."""
    both = dict.fromkeys(("model.generator", "model.embedder"), str(model))
    base: dict[str, object] = {**both, "model.device": "cpu", "model.precision": "fp32", **defaults}

    def make(**changes: object) -> Settings:
        return load_settings(None, base | changes, NANO)

    return make
