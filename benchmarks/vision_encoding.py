"""What a photo costs a vision encoder, and what it costs the full embedder.

    python -m benchmarks.vision_encoding [--photos 96] [--side 224] [--rounds 5] [--threads 1] [--shapes NAME ...]

First counted: multiplications and additions of one photo in models of published shapes, at 224 x 224 pixels and at the
most that afmrl shows by default (512 tokens). Counted is torch's own count (FlopCounterMode) of real passes through
one and through two layers of full width; layers are alike, so that the others follow. The embedder reads the photo in
its template's turns (24 tokens), alone or with a text; the vision encoder is the tower without what a language model
alone reads of it, and the pooler. Then by the clock, with nano on photos of --side pixels: the same photos by both, in
turn; the median of the rounds, by the processor time of the thread that computes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from afmrl_cli.listener import Silent
from afmrl_cli.models.base import quiet
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.tower import drop_deepstack, photo_tokens
from afmrl_cli.models.vision_encoder import bare_tower
from afmrl_cli.saga.pooler import Pooler
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from benchmarks import BUILT_IN

from .figures import record

TEMPLATE_TOKENS = 24
TEXTS = (0, 64, 256)
"""Tokens of the product's text beside the photo; the last is model.max_text_tokens."""
WORDS = 512
"""Of the vocabulary, which is looked up and never multiplied."""
QWEN3_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16}
QWEN3_TOWER |= {"num_position_embeddings": 2304}
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3-vl-2b": (
        "qwen3_vl",
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        {**QWEN3_TOWER, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]},
    ),
    "qwen2-vl-2b": (
        "qwen2_vl",
        {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
        {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
    ),
    "qwen3-vl-4b": (
        "qwen3_vl",
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        {**QWEN3_TOWER, "out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17]},
    ),
    "tiny": (
        "qwen3_vl",
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
        {**QWEN3_TOWER, "depth": 4, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
        | {"out_hidden_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [1]},
    ),
}
"""Type, language model, tower."""
DEFAULT_SIDE = 22
"""Tokens of a photo's side by default: 484, of at most 512."""


def model_of(shape: str, layers: int, depth: int, deepstack: Sequence[int]) -> Any:
    """The base without its head, with so many layers of its widths; attention is written out, so that it is counted."""
    kind, text, tower = SHAPES[shape]
    text = text | {"num_hidden_layers": layers, "vocab_size": WORDS}
    tower = tower | {"depth": depth} | ({"deepstack_visual_indexes": list(deepstack)} if kind == "qwen3_vl" else {})
    with quiet():
        config = AutoConfig.for_model(kind, text_config=text, vision_config=tower)
        return AutoModel.from_config(config, attn_implementation="eager").eval()


def counted(work: Callable[[], object]) -> float:
    """Multiplications and additions."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def of_all(one: float, two: float, layers: int) -> float:
    """What all layers take, by what one and two do."""
    return one + (layers - 1) * (two - one)


def tower_operations(shape: str, side: int) -> tuple[float, float, float]:
    """Of a photo of `side` x `side` tokens: the tower as a language model needs it, as the pooler does, the pooler."""
    kind, _, full = SHAPES[shape]
    merged, grid = 2 * side, torch.tensor([[1, 2 * side, 2 * side]])
    pixels = torch.zeros(merged**2, 3 * 2 * full["patch_size"] ** 2)

    def own(depth: int, deepstack: Sequence[int]) -> float:
        tower = model_of(shape, 1, depth, deepstack).visual
        return counted(lambda: photo_tokens(tower, pixels, grid))

    one, two = own(1, []), own(2, [])
    least = of_all(one, two, full["depth"])
    merger = own(1, [0]) - one if kind == "qwen3_vl" else 0.0
    width = full.get("out_hidden_size") or full["hidden_size"]
    pooler, tokens = Pooler(width, width, "attention"), torch.zeros(side**2, width)
    return least + merger * len(full.get("deepstack_visual_indexes", ())), least, counted(lambda: pooler([tokens]))


def language_operations(shape: str, tokens: int) -> float:
    """Of so many tokens in the language model."""
    full = SHAPES[shape][1]

    def own(layers: int) -> float:
        model = model_of(shape, layers, 1, []).language_model
        shown = torch.zeros(1, tokens, full["hidden_size"])
        return counted(lambda: model(inputs_embeds=shown, use_cache=False))

    return of_all(own(1), own(2), full["num_hidden_layers"])


def numbers(shape: str) -> tuple[float, float]:
    """Millions of numbers in the weights of tower and pooler, and of the embedder but for its vocabulary."""
    _, text, full = SHAPES[shape]
    with torch.device("meta"):
        model = model_of(shape, text["num_hidden_layers"], full["depth"], full.get("deepstack_visual_indexes", ()))
        width = text["hidden_size"]
        pooler = sum(
            each.numel() for each in (torch.empty(width), torch.empty(width, width), torch.empty(width, width))
        )
        whole = sum(each.numel() for each in model.parameters()) - WORDS * width
        drop_deepstack(model.visual)
    return (sum(each.numel() for each in model.visual.parameters()) + pooler) / 1e6, whole / 1e6


def count(shapes: Sequence[str]) -> None:
    """Print the counted operations."""
    print("| base | photo | text, tokens | vision encoder, GFLOP | embedder, GFLOP | times |")
    print("| --- | --- | --- | --- | --- | --- |")
    for shape in shapes:
        sides = {"224 x 224": 224 // (2 * SHAPES[shape][2]["patch_size"]), "by default": DEFAULT_SIDE}
        for name, side in sides.items():
            whole, least, pooler = tower_operations(shape, side)
            for text in TEXTS:
                embedder = whole + language_operations(shape, side**2 + TEMPLATE_TOKENS + text)
                own, ratio = least + pooler, embedder / (least + pooler)
                cells = [shape, f"{name}: {side**2} tokens", text, f"{own / 1e9:,.0f}", f"{embedder / 1e9:,.0f}"]
                print(f"| {' | '.join(map(str, cells))} | {ratio:.1f} |")
                record(f"vision encoding: {shape}, {name}, text {text}", own / 1e9, embedder / 1e9, ratio, aim="3")
        own, whole = numbers(shape)
        print(f"\n{shape}: {own:,.0f} million numbers in memory, the embedder has {whole:,.0f} and its vocabulary\n")


def clock(photos: int, side: int, rounds: int) -> None:
    """Print how long nano takes for the same photos, as a vision encoder and as the embedder."""
    settings = load_settings(None, {"model.device": "cpu", "cache.vision": False}, BUILT_IN)
    random = np.random.default_rng(0)
    small = (random.integers(0, 256, (20, 20, 3), dtype=np.uint8) for _ in range(photos))
    images = [Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC) for each in small]
    items = [Item("", (image,)) for image in images]
    embedder = load_embedder(settings.model, settings.embed, Checkpoints(Path("none")))
    encoder = bare_tower(settings, None, Silent())
    encoder.pooler = Pooler(encoder.dimension, encoder.dimension, "attention")
    times: dict[str, list[float]] = {"embedder": [], "vision encoder": []}
    for _ in range(rounds):
        for name, each in (("embedder", embedder), ("vision encoder", encoder)):
            began = time.thread_time()
            each.encode(items, instruction="Represent this product:")
            times[name].append(time.thread_time() - began)
    each_photo = {name: statistics.median(taken) / photos * 1e3 for name, taken in times.items()}
    ratios = [a / b for a, b in zip(times["embedder"], times["vision encoder"], strict=True)]
    ratio = statistics.median(ratios)
    for name, milliseconds in each_photo.items():
        print(f"nano, {photos} photos of {side} px, {name}: {milliseconds:.2f} ms a photo")
    print(f"{ratio:.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
    own, other = each_photo["vision encoder"], each_photo["embedder"]
    record("vision encoding: nano by the clock, ms", own, other, ratio, spread=ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["qwen3-vl-2b", "qwen3-vl-4b", "qwen2-vl-2b"])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    count(chosen.shapes)
    clock(chosen.photos, chosen.side, chosen.rounds)


if __name__ == "__main__":
    main()
