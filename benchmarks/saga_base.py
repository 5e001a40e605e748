"""The base of `benchmarks.saga`: nano, whose language model learnt to compare two photos.

    python -m benchmarks.saga_base WORK [--listings 1500] [--text-steps 1000] [--steps 600]

SAGA's language model is a large one that answers the question about a pair as it comes. nano describes a photo as well,
but is at chance about whether two descriptions are the same, and an adapter of a few hundred steps hardly changes that.
So all numbers of its language model are trained here, once, on pairs of garments that no shop of the benchmark sells;
the vision tower is nano's own, left as it is. WORK/base is a model folder as any (`model.generator`).

    text steps   two descriptions -> the keys in which they differ (text alone)
    steps        two photos and the question, by category and pattern, by colour or by product -> the whole answer
                 (`saga.adjudicator`), each line of which weighs the same

Printed are, over the last steps, the loss, and the shares of right lines of differences and of right verdicts, each
after a right beginning.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.prompt import chat_messages
from afmrl_cli.models.base import load_base
from afmrl_cli.models.presets import Base, resolve_base
from afmrl_cli.models.processor import Processor, load_processor
from afmrl_cli.models.reranker import choose_words
from afmrl_cli.models.vision import tower_features
from afmrl_cli.nano.garment import random_garment
from afmrl_cli.nano.shop import ShopPlan, plan_listings, write_shop
from afmrl_cli.saga.adjudicator import answer_text, differing, pair_question
from afmrl_cli.saga.pairs import Pairs
from afmrl_cli.saga.photos import LabelledPhoto, regrouped
from afmrl_cli.saga.replay import Photos
from afmrl_cli.sources import load_settings
from afmrl_cli.training.pairs import Photo

from . import BUILT_IN
from .saga_catalogs import DRAWN, SHOWN, known_attributes

IGNORED = -100
BATCH = 32
SEED = 900
LOGGED = 50
SIZES: Mapping[str, int] = {"listings": 1500, "text_steps": 1000, "steps": 600}
"""Listings of the shop whose photos are learnt from, and steps."""


@dataclass(frozen=True)
class Row:
    """What stands before an answer, its photos, and the answer, whose lines weigh the same."""

    prompt: str
    photos: tuple[int, ...]
    answer: str


class Model:
    """nano in memory, with what its tower makes of a shop's photos."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.causal: Any = load_base(base, "fp32", "cpu")
        self.processor: Processor = load_processor(base)
        self.words = choose_words(self.processor.tokenizer, base.name)
        self.rows: list[Tensor] = []
        self.grids = torch.zeros(0, 3, dtype=torch.long)

    def read(self, photos: Sequence[Path]) -> None:
        """Let the tower read photos."""
        from PIL import Image

        grids = []
        with torch.no_grad():
            for i in range(0, len(photos), 64):
                shown = self.processor.pixels([Image.open(photo).convert("RGB") for photo in photos[i : i + 64]])
                grids.append(shown["image_grid_thw"])
                self.rows += [
                    each.clone()
                    for each in tower_features(self.causal.model, shown["pixel_values"], shown["image_grid_thw"])
                ]
        self.grids = torch.cat(grids)

    def batch(self, rows: Sequence[Row]) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Return what the forward takes, labels and their weights [rows, length]; rows are padded on the left."""
        tokenizer = self.processor.tokenizer
        photos = [photo for row in rows for photo in row.photos]
        texts = [row.prompt + row.answer + tokenizer.eos_token for row in rows]
        made = self.processor.tokens(texts, [len(row.photos) for row in rows], self.grids[photos], 0)
        labels, weights = torch.full_like(made["input_ids"], IGNORED), torch.zeros(made["input_ids"].shape)
        for i, row in enumerate(rows):
            found = tokenizer(row.answer + tokenizer.eos_token, return_offsets_mapping=True)
            lines = torch.tensor([row.answer.count("\n", 0, begin) for begin, _ in found["offset_mapping"]])
            sizes = torch.bincount(lines)
            labels[i, -len(lines) :] = made["input_ids"][i, -len(lines) :]
            weights[i, -len(lines) :] = 1 / (sizes[lines] * (sizes > 0).sum())
        shown = Photos(self.rows, self.grids).shown(photos, self.causal.model) if photos else {}
        return {**made, **shown, "use_cache": False}, labels, weights


class Course:
    """The rows that are learnt: photos of a drawn shop, classes of all kinds."""

    def __init__(self, model: Model, work: Path, listings: int) -> None:
        self.model, self.keys = model, {key: () for key in sorted(SHOWN)}
        plan = ShopPlan(listings // 2, SEED, 0.5, duplicates=1.0, phone=True, text_queries=0, photo_queries=0, size=112)
        write_shop(work / "base-shop", plan)
        shown = [(each, shot) for each in plan_listings(plan) for shot in each.shots]
        model.read([work / "base-shop" / shot.name for _, shot in shown])
        self.number = {shot.name: i for i, (_, shot) in enumerate(shown)}
        photos = [
            LabelledPhoto(
                Photo(Path(shot.name), (0, 0), ""), each.id, each.product_id, 0, known_attributes(each.garment)
            )
            for each, shot in shown
        ]
        self.pairs = {kind: Pairs(regrouped(photos, _label(kind))) for kind in DRAWN}

    def prompt(self, kind: str) -> str:
        """Return the question about a pair as the model reads it."""
        classes = () if kind == "identity" else kind.split("+")
        question = pair_question(self.keys, self.model.words, "schema", classes)
        return self.model.processor.prompt(chat_messages(question.prompt, 2))

    def rows(self, seed: int) -> Iterator[Row]:
        """Yield rows without end."""
        rng = np.random.default_rng(seed)
        asked = {kind: self.prompt(kind) for kind in DRAWN}
        while True:
            kind = DRAWN[int(rng.integers(len(DRAWN)))]
            pairs = self.pairs[kind]
            pair = pairs.draw(int(rng.integers(len(pairs.photos))), bool(rng.random() < 0.5), rng)
            both = (pair.first, pair.second)
            answer = answer_text(pair.first.pairs, pair.second.pairs, pair.same, self.model.words, list(self.keys))
            yield Row(asked[kind], tuple(self.number[str(photo.photo.path)] for photo in both), answer)


def _label(kind: str) -> Any:
    keys = () if kind == "identity" else kind.split("+")
    return lambda photo: " ".join(photo.pairs[key] for key in keys) or photo.identity


def comparisons(seed: int) -> Iterator[Row]:
    """Yield without end two descriptions, of which each value is the same with even chance, and where they differ."""
    rng, keys = random.Random(seed), sorted(SHOWN)
    while True:
        first, other = (known_attributes(random_garment(rng)) for _ in range(2))
        second = {key: first[key] if key in first and rng.random() < 0.5 else value for key, value in other.items()}
        lines = [write_attributes((key, known[key]) for key in keys if key in known) for known in (first, second)]
        yield Row(f" {lines[0]}\n {lines[1]}\n", (), f" {', '.join(differing(first, second, keys)) or 'none'}\n")


@dataclass(frozen=True)
class Stage:
    """A part of the training: its name, rows by a seed, steps and peak learning rate."""

    name: str
    rows: Callable[[int], Iterator[Row]]
    steps: int
    rate: float = 1e-3


def learn(model: Model, stage: Stage, work: Path) -> None:
    """Train the language model for the steps of a stage, from where a killed run stood."""
    weights = [each for each in model.causal.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=stage.rate, weight_decay=0.0)
    state, start = work / f"base-{stage.name}.pt", 0
    if state.is_file():
        known = torch.load(state, weights_only=True)
        start = known["step"]
        model.causal.load_state_dict(known["model"])
        optimizer.load_state_dict(known["optimizer"])
    rows, seen = stage.rows(SEED + start), list[tuple[float, float, float]]()
    for step in range(start, stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * min(1.0, (step + 1) / (0.05 * stage.steps)) * (1 - step / stage.steps)
        batch = [next(rows) for _ in range(BATCH)]
        inputs, labels, shares = model.batch(batch)
        scores = model.causal(**inputs).logits[:, :-1].float()
        targets = labels[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            scores.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        )
        loss = (losses * shares[:, 1:]).sum() / len(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen.append((float(loss.detach()), *_right(model, scores.argmax(-1) == targets, batch)))
        if (step + 1) % LOGGED == 0 or step + 1 == stage.steps:
            _log(stage, step + 1, seen[-LOGGED:], work / "base.jsonl")
            held = {"step": step + 1, "model": model.causal.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(held, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)


def _log(stage: Stage, step: int, seen: Sequence[tuple[float, float, float]], log: Path) -> None:
    loss, differences, verdicts = (mean(each[i] for each in seen) for i in range(3))
    print(
        f"{stage.name}, step {step} of {stage.steps}: loss {loss:.3f}, differences {differences:.3f}, "
        f"verdicts {verdicts:.3f}",
        flush=True,
    )
    row = {"stage": stage.name, "step": step, "loss": loss, "differences": differences, "verdicts": verdicts}
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _right(model: Model, hits: Tensor, rows: Sequence[Row]) -> tuple[float, float]:
    """Return the shares of right lines of differences and of right verdicts (1.0 of none); `hits` [rows, length] are
    the tokens that the model would have written.
    """
    tokenizer = model.processor.tokenizer
    differences, verdicts = list[float](), list[float]()
    for i, row in enumerate(rows):
        whole = len(tokenizer(row.answer + tokenizer.eos_token)["input_ids"])
        lines = row.answer.splitlines(keepends=True)
        tail = row.answer.endswith("\n")
        before = len(tokenizer("".join(lines[:-1] if tail else lines[:-2]))["input_ids"]) if len(lines) > 1 else 0
        until = whole - 1 if tail else len(tokenizer("".join(lines[:-1]))["input_ids"])
        own = hits[i, -whole:]
        differences.append(float(own[before:until].all()))
        if not tail:
            verdicts.append(float(own[until:].all()))
    return mean(differences), mean(verdicts or [1.0])


def make_base(work: Path, wanted: Mapping[str, int]) -> Path:
    """Return the folder of the base, trained where it is missing."""
    place = work / "base"
    if (place / "config.json").is_file():
        return place
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    settings = load_settings(None, {"model.preset": "nano", "model.device": "cpu"}, BUILT_IN)
    model = Model(resolve_base(settings.model, "generator"))
    for name, parameter in model.causal.named_parameters():
        parameter.requires_grad_(".visual." not in name)
    learn(model, Stage("text", comparisons, wanted["text_steps"]), work)
    learn(model, Stage("photos", Course(model, work, wanted["listings"]).rows, wanted["steps"]), work)
    part = work / "base.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(model.base.folder, part, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    model.causal.save_pretrained(part)
    part.replace(place)
    return place


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    for name, number in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=number)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(make_base(given.work, {name: getattr(given, name) for name in SIZES}))


if __name__ == "__main__":
    main()
