"""Makes the nano model: `python -m nano_training.make --out FOLDER`; `--evaluate` prints its metrics.

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
from .model import build_config, build_processor, build_tokenizer, load_nano, save_nano
from .pool import PoolPlan, make_pool, phone_photo, pool_garments, training_photo
from .score import answers, recalls, value_scores, vectors
from .train import PHONE, Lessons, Plan, Trainer


def train(out: Path, plan: Plan, styles: int, threads: int, start: Path | None = None) -> None:
    """Train in `out` (pools, checkpoint, log) and leave the model in `out/weights`.

    `start` is the folder of a model that the last stage, with photos by phone, begins with; else all stages are run.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    if start:
        model, processor = load_nano(start)
    else:
        held = out / "tokenizer"
        if not held.exists():
            build_tokenizer(tokenizer_texts()).save_pretrained(held)
        processor = build_processor(AutoTokenizer.from_pretrained(held))
        torch.manual_seed(plan.seed)
        model = Qwen2VLForConditionalGeneration(build_config(processor.tokenizer))

    def lessons(pool: PoolPlan) -> Lessons:
        sampler = BatchSampler(pool_garments(pool), pool, processor.tokenizer, plan.seed)
        return Lessons(sampler, make_pool(out, pool, processes=threads))

    by_phone = lessons(PoolPlan(styles * 2 // 5, studio=2, phone=2, seed=plan.seed))
    studio = by_phone if start else lessons(PoolPlan(styles, seed=plan.seed))

    rng = Random("development")
    garments = [garment for _ in range(100) for garment in colour_variants(rng)]
    shots: list[list[Image.Image]] = [[training_photo(g, n) for g in garments] for n in (0, 1)]
    taken = [phone_photo(g, 2) for g in garments]
    truth = [g.attributes() for g in garments]
    blank, names = [""] * len(garments), [str(n) for n in range(len(garments))]

    def quick_check() -> dict[str, float]:
        texts = answers(model, processor, blank, [[photo] for photo in shots[0]])
        by_phone = value_scores(truth, answers(model, processor, blank, [[photo] for photo in taken]))
        asked = vectors(model, processor, blank, [[photo] for photo in shots[0]], QUERY_INSTRUCTION)
        there = vectors(model, processor, blank, [[photo] for photo in shots[1]], TARGET_INSTRUCTION)
        save_nano(model, processor, out / "interim")
        phones = {f"phone {name}": value for name, value in by_phone.items()}
        return {**value_scores(truth, texts), **recalls(asked, there, names, names), **phones}

    trainer = Trainer(model, studio, by_phone, plan, out, quick_check, first=PHONE if start else 0)
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
    parser.add_argument("--styles", type=int, default=6000, help="styles in the pool, each in two colours and 4 photos")
    parser.add_argument("--seed", type=int, default=0, help="of pool and training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--evaluate", action="store_true", help="print the figures of a model instead of making one")
    parser.add_argument(
        "--weights",
        type=Path,
        help="a model's folder: with --evaluate (default: the shipped one) to measure it, with --out to begin the last "
        "stage with it",
    )
    parser.add_argument("--products", type=int, default=1000, help="with --evaluate: size of the shop")
    parser.add_argument("--shop-seed", type=int, default=4711, help="with --evaluate: which shop")
    given = parser.parse_args()
    if given.evaluate:
        evaluate(given.weights, given.products, given.shop_seed, given.threads)
    elif given.out:
        train(given.out, Plan(seed=given.seed), given.styles, given.threads, given.weights)
    else:
        parser.error("--out FOLDER or --evaluate")


if __name__ == "__main__":
    main()
