"""The nano model: what it is built from, how it is opened, and how it is written.

A Qwen2-VL of 5.45 million parameters, so that whatever works with it works with its large siblings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from afmrl_cli.models.families import FAMILIES
from afmrl_cli.models.presets import nano_folder
from afmrl_cli.models.processor import without_video

VOCABULARY = 4096
"""At most; the texts that the tokenizer learns from hold fewer words than would fill it."""
IMAGE_PIXELS = 112 * 112
SPECIAL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2-VL's own, in its order."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's, without the system turn that it puts in unasked: ten tokens that would say the same every time."""

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with Qwen's word splitting and special tokens, learnt from `texts`; it pads on
    the left.
    """
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[t for t in SPECIAL_TOKENS if t not in ("<|im_end|>", "<|endoftext|>")],
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(
    tokenizer: PreTrainedTokenizerFast, width: int = 192, layers: int = 4, depth: int = 5
) -> Qwen2VLConfig:
    """Return the nano model's shape; tests build smaller ones."""

    def number(token: str) -> int:
        return cast(int, tokenizer.convert_tokens_to_ids(token))

    heads = 4
    half = width // heads // 2
    return Qwen2VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
            },
            "bos_token_id": None,
            "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": depth,
            "embed_dim": width,
            "hidden_size": width,
            "num_heads": width // 32,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        tie_word_embeddings=True,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """Return a Qwen2-VL processor that does without a video processor, and so without torchvision."""
    tokenizer.padding_side = "left"
    pictures = Qwen2VLImageProcessorPil(
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": IMAGE_PIXELS, "longest_edge": IMAGE_PIXELS},
    )
    return _processor(pictures, tokenizer)


def load_nano_processor(folder: Path | None = None) -> Qwen2VLProcessor:
    """Return the processor of a nano folder (default: the shipped one)."""
    folder = folder or nano_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"  # lost when a tokenizer is saved and opened again
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
    return _processor(pictures, tokenizer)


def _processor(pictures: Any, tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    made: Qwen2VLProcessor = without_video(FAMILIES["qwen2_vl"], pictures, tokenizer, tokenizer.chat_template)
    return made


def load_nano(folder: Path | None = None) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    """Return the nano model in fp32 and its processor, ready to answer."""
    folder = folder or nano_folder()
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), load_nano_processor(folder)


def save_nano(model: Qwen2VLForConditionalGeneration, processor: Qwen2VLProcessor, folder: Path) -> None:
    """Write model and processor as a transformers folder, weights in fp16 (half the size; nothing measurable lost)."""
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.float16)
    half.config.dtype = torch.float16
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written readable by the owner alone
    processor.save_pretrained(folder)
    # On disk in fp16, but to be opened in fp32 unless asked otherwise: half precision crawls on a CPU.
    _amend(folder / "config.json", {"dtype": "float32"})
    _amend(folder / "tokenizer_config.json", {"padding_side": "left"}, drop=("is_local", "local_files_only"))


def _amend(path: Path, values: dict[str, str], drop: tuple[str, ...] = ()) -> None:
    settings = {**json.loads(path.read_text(encoding="utf-8")), **values}
    kept = {name: value for name, value in settings.items() if name not in drop}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
