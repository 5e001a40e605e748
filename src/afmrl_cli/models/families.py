"""The table of model families: everything that is true of one architecture and not of another, a row each.

A row belongs to a `model_type` of config.json. A family that brings nothing new is a row and a test: no other file asks
what type a model is (tests/models/test_families.py holds the sources to that, and runs a family that has only a row).

What every row has in common is written where it is used: the class is opened by AutoModelForImageTextToText, its vision
tower is `model.visual`; `get_image_features` gives the tower's output per picture, with DeepStack's layers beside it
where there are some, and the forward takes them back as `mm_encoder_outputs` (vision.py); positions are M-RoPE's of
three axes, counted by `get_rope_index` (rar/packed.py, rar/prefix.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from .precision import Precision

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
IMAGE_SLOT = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
THOUGHT = ("<think>", "</think>")
UNREADABLE = (IMAGE_TOKEN, VIDEO_TOKEN, "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""All linear layers of the language model, none of the vision tower, whose layers share some of these names."""
TOWER_TARGETS = (
    r".*visual\.(blocks|merger|deepstack_merger_list).*"
    r"\.(qkv|proj|fc1|fc2|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2|mlp\.0|mlp\.2)"
)
"""All linear layers of the vision tower's blocks and of what joins its tokens (its mergers). Some of these have numbers
for names, and so do the blocks.
"""
HYBRID_TARGETS = LORA_TARGETS[:-1] + "|in_proj_qkv|in_proj_z|out_proj)"
"""Those of the gated delta nets beside them: three of four layers of Qwen3.5 have no attention. Left as they are: the
convolutions, and the two layers that give a number a head (in_proj_a, in_proj_b).
"""


@dataclass(frozen=True)
class Family:
    """One architecture. The defaults are what the Qwen-VL models have in common."""

    model_type: str
    """As config.json has it."""
    title: str
    """For people."""
    processor_class: str
    """The stock processor of transformers, whose name a saved folder carries."""
    token_side: int
    """Side in pixels of the square that becomes one token: the tower's patch times its merge."""

    image_token: str = IMAGE_TOKEN
    video_token: str = VIDEO_TOKEN
    image_slot: str = IMAGE_SLOT
    """What stands for one picture in a text; its image token is repeated for each token of the picture."""
    end_tokens: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")
    """Any of them ends an answer; targets of training end with the first."""
    never_written: tuple[str, ...] = UNREADABLE
    """Tokens that would break an answer when it is read again as a prompt, and those that open and close a thought."""

    full_precision: tuple[str, ...] = ("model.visual", "lm_head")
    """Not quantised, as full paths: "visual" alone matches nothing, and a list without lm_head quantises the head."""
    trained_in: Precision = "nf4"
    """bf16: an adapter on 4 bits learns worse, so it is trained on them only where nothing else fits (precision.py)."""
    lora_targets: str = LORA_TARGETS
    """What LoRA is put on: a pattern of the form that `store.strict` lets a checkpoint have."""
    tower_targets: str = TOWER_TARGETS
    """The same for a vision encoder."""
    kernels: tuple[str, ...] = ()
    """Packages that make it quicker on a GPU, by their names for pip; without them it is PyTorch's work."""
    packs_answers: bool = True
    """Whether a mask can keep several answers to a prompt apart in one row. Where not, RAR learns from a row an answer.
    """


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2_vl", "Qwen2-VL", "Qwen2VLProcessor", token_side=14 * 2),
        Family("qwen2_5_vl", "Qwen2.5-VL", "Qwen2_5_VLProcessor", token_side=14 * 2),
        Family("qwen3_vl", "Qwen3-VL", "Qwen3VLProcessor", token_side=16 * 2),
        Family(
            "qwen3_5",
            "Qwen3.5",
            "Qwen3VLProcessor",
            token_side=16 * 2,
            never_written=UNREADABLE + THOUGHT,
            trained_in="bf16",
            lora_targets=HYBRID_TARGETS,
            kernels=("flash-linear-attention", "causal-conv1d"),
            packs_answers=False,
        ),
    )
}


def titles() -> str:
    """Name the families in a sentence: "Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5"."""
    *first, last = (family.title for family in FAMILIES.values())
    return f"{', '.join(first)} or {last}"
