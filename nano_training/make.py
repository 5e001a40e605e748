"""Makes the nano model: `python -m nano_training.make --out FOLDER --minutes 60`; `--evaluate` prints its metrics.

Killed at any point, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from random import Random

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from afmrl_cli.models.templates import QUERY_INSTRUCTION, TARGET_INSTRUCTION
from afmrl_cli.nano.garment import colour_variants

from .batches import BatchSampler, tokenizer_texts
from .measure import measure
from .model import build_config, build_processor, build_tokenizer, save_nano
from .pool import PoolPlan, make_pool, pool_garments, training_photo
from .score import answers, recalls, value_scores, vectors
from .train import Plan, Trainer


def train(out: Path, plan: Plan, pool: PoolPlan, threads: int) -> None:
    """Train in `out` (pool, checkpoint, log) and leave the model in `out/weights`."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    photos = make_pool(out, pool, processes=threads)
    held = out / "tokenizer"
    if not held.exists():
        build_tokenizer(tokenizer_texts()).save_pretrained(held)
    tokenizer = AutoTokenizer.from_pretrained(held)
    processor = build_processor(tokenizer)
    torch.manual_seed(plan.seed)
    model = Qwen2VLForConditionalGeneration(build_config(tokenizer))

    rng = Random("development")
    garments = [garment for _ in range(100) for garment in colour_variants(rng)]
    shots: list[list[Image.Image]] = [[training_photo(g, n) for g in garments] for n in (0, 1)]
    truth = [g.attributes() for g in garments]
    names = [str(n) for n in range(len(garments))]

    def quick_check() -> dict[str, float]:
        texts = answers(model, processor, [""] * len(garments), [[photo] for photo in shots[0]])
        asked = vectors(model, processor, [""] * len(garments), [[photo] for photo in shots[0]], QUERY_INSTRUCTION)
        there = vectors(model, processor, [""] * len(garments), [[photo] for photo in shots[1]], TARGET_INSTRUCTION)
        save_nano(model, processor, out / "interim")
        return {**value_scores(truth, texts), **recalls(asked, there, names, names)}

    sampler = BatchSampler(pool_garments(pool), pool.photos, tokenizer, plan.seed)
    trainer = Trainer(model, tokenizer, sampler, photos, plan, out, quick_check)
    trainer.run()
    save_nano(model.eval(), processor, out / "weights")
    print(json.dumps(quick_check(), indent=2))


def evaluate(weights: Path | None, products: int, seed: int, threads: int) -> None:
    """Print the figures of the shipped model, or of the one in `weights`, as JSON."""
    torch.set_num_threads(threads)
    table = measure(weights, products, seed, threads)
    rounded = {row: {name: round(value, 4) for name, value in values.items()} for row, values in table.items()}
    print(json.dumps(rounded, indent=2))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m nano_training.make", description=__doc__)
    parser.add_argument("--out", type=Path, help="working folder; the model ends up in its folder weights/")
    parser.add_argument("--minutes", type=float, default=80.0, help="training time, beside the rendering of the pool")
    parser.add_argument("--styles", type=int, default=6000, help="styles in the pool, each in two colours and 4 photos")
    parser.add_argument("--seed", type=int, default=0, help="of pool and training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--evaluate", action="store_true", help="print the figures of a model instead of making one")
    parser.add_argument("--weights", type=Path, help="with --evaluate: the model's folder, default the shipped one")
    parser.add_argument("--products", type=int, default=1000, help="with --evaluate: size of the shop")
    parser.add_argument("--shop-seed", type=int, default=4711, help="with --evaluate: which shop")
    given = parser.parse_args()
    if given.evaluate:
        evaluate(given.weights, given.products, given.shop_seed, given.threads)
    elif given.out:
        pool = PoolPlan(given.styles, seed=given.seed)
        train(given.out, Plan(minutes=given.minutes, seed=given.seed), pool, given.threads)
    else:
        parser.error("--out FOLDER or --evaluate")


if __name__ == "__main__":
    main()
