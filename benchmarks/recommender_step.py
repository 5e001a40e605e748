"""A chunk of the recommender's SFT with listings as text against the same questions with photos in the prompt.

    python -m benchmarks.recommender_step WORK [--chunk 4] [--side 224] [--rounds 5]

The built-in model on a drawn shop in WORK, its shoppers' histories, settings as they come (attributes as text); forward
and backward of one chunk, collated anew each time. Three sides, in turn, in processor time of this process:

    text      as `afmrl train-recommender` asks
    photos    before each listing of the history and of the candidates the slot of its first photo, as recommenders do
              that show the model pictures; opened and run through the tower each time
    stored    the same with what the tower made of the photos before (`cache.vision`)

Memory: each side a process of its own, which first does one of the questions; measured is how far the peak (VmHWM) lies
above what it held before (as in `benchmarks.memory`). Printed are medians, tokens, and ratios to `text`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afmrl_cli.attributes.request import Request
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.recommender.questions import Example
from afmrl_cli.recommender.run import RECOMMENDER, Run
from afmrl_cli.recommender.sft import Collator
from afmrl_cli.sft.trainer import label_answers
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import Job, start_job
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .figures import record
from .memory import status

SIDES = ("text", "photos", "stored")


class Side:
    """A recommender in memory, and how questions are put to it."""

    def __init__(self, name: str, job: Job, plan: Any, photos: dict[str, Path]) -> None:
        work = job.work
        cache = Cache(work.folder.cache, work.settings.cache, Silent()) if name == "stored" else None
        self.made = Run(job, plan, work.folder.runs / "bench", Bases(cache))
        self.made.model.train()
        self.collate = Collator(self.made.generator, plan)
        self.name, self.plan, self.photos, self.catalog = name, plan, photos, work.settings.catalog
        self.tokens = 0

    def batch(self, asked: Sequence[Example]) -> dict[str, Any]:
        """Return what the model's forward takes."""
        if self.name == "text":
            return self.collate(asked)
        generator = self.made.generator
        answers = [self.plan.answer(each) + self.collate.end for each in asked]
        rows = [self._with_slots(each) + answer for each, answer in zip(asked, answers, strict=True)]
        pictures = [
            [generator.load_image(self.photos[line], self.catalog) for line in (*each.history, *each.candidates)]
            for each in asked
        ]
        batch = generator.vision.tokens(rows, pictures)
        labels = label_answers(generator.processor, batch["input_ids"], answers)
        shown = generator.vision.show([picture for row in pictures for picture in row])
        there = generator.vision.inputs({**batch, **shown}, generator.loaded.device)
        generator.vision.flush()
        return {**there, "labels": labels, "logits_to_keep": labels.shape[1], "use_cache": False}

    def _with_slots(self, asked: Example) -> str:
        """Return the question as the model reads it, a picture's slot before each listing's line."""
        generator, question = self.made.generator, self.plan.question(asked)
        plain = generator.processor.clean(question)
        slot, lines = generator.processor.family.image_slot, plain.split("\n")
        listed = [*range(1, 1 + len(asked.history)), *range(len(lines) - len(asked.candidates), len(lines))]
        for number in listed:
            lines[number] = slot + lines[number]
        return generator.text(Request(question)).replace(plain, "\n".join(lines), 1)

    def step(self, asked: Sequence[Example]) -> float:
        """Do a chunk; return its processor seconds."""
        began = time.process_time()
        batch = self.batch(asked)
        self.tokens = int(batch["attention_mask"].sum())
        torch.autograd.backward(self.made.model(**batch).loss)
        self.made.model.zero_grad()
        return time.process_time() - began


def opened(wanted: argparse.Namespace) -> tuple[Job, Any, dict[str, Path], list[Example]]:
    """Return the job on the shop, its plan, the first photo by a listing's text, and the questions of a chunk."""
    shop = wanted.work / "shop"
    if not (shop / "catalog.csv").is_file():
        plan = ShopPlan(wanted.products, 3, text_queries=0, photo_queries=0, size=wanted.side, shoppers=wanted.shoppers)
        write_shop(shop, plan, processes=1)
    flags = {"model.preset": "nano", "model.device": "cpu"}
    work = Workspace(CatalogFolder(shop / "catalog.csv"), load_settings(shop, flags, BUILT_IN), Silent())
    job = start_job(RECOMMENDER, work)
    made = RECOMMENDER.plan(job).content
    images = {each.id: each.images[0] for each in read_products(work.folder, work.settings.catalog, Problems())}
    photos = {line: images[name] for line, name in zip(made.texts.lines, made.texts.ids, strict=True)}
    own = made.settings.recommender
    full = (each for each in (made[i] for i in range(len(made))) if len(each.history) == own.history)
    return job, made, photos, [next(full) for _ in range(wanted.chunk)]


def peak(wanted: argparse.Namespace, name: str) -> int:
    """Return the bytes that a chunk of a side takes at its peak, from a process of its own."""
    words = [str(wanted.work), "--chunk", str(wanted.chunk), "--one", name]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    command = [sys.executable, "-m", "benchmarks.recommender_step", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_here(wanted: argparse.Namespace) -> int:
    """Return that of the side `wanted.one` in this process."""
    job, plan, photos, asked = opened(wanted)
    side = Side(wanted.one, job, plan, photos)
    warm = side.batch(asked[:1])
    torch.autograd.backward(side.made.model(**warm).loss)
    del warm
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = status("VmRSS")
    side.step(asked)
    return status("VmHWM") - before


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--chunk", type=int, default=4, help="questions that are in memory at a time")
    parser.add_argument("--products", type=int, default=120)
    parser.add_argument("--shoppers", type=int, default=300)
    parser.add_argument("--side", type=int, default=224, help="of a photo, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.one:
        print(peak_here(wanted))
        return
    job, plan, photos, asked = opened(wanted)
    sides = [Side(name, job, plan, photos) for name in SIDES]
    for side in sides:
        side.step(asked)  # the first photos run through the tower, later ones come from the store
    rounds = [[side.step(asked) for side in sides] for _ in range(wanted.rounds)]
    seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]
    bytes_ = [0 if wanted.no_memory else peak(wanted, name) for name in SIDES]
    print(f"{wanted.chunk} questions, {len(asked[0].history)} listings before and {len(asked[0].candidates)} to choose")
    print(f"{'':<10}{'tokens a question':>20}{'s a chunk':>12}{'ratio':>8}{'peak MiB':>12}{'ratio':>8}")
    for i, side in enumerate(sides):
        ratios = [each[i] / each[0] for each in rounds]
        slower = statistics.median(ratios)
        more = bytes_[i] / bytes_[0] if bytes_[0] else float("nan")
        print(
            f"{side.name:<10}{side.tokens / wanted.chunk:>20.0f}{seconds[i]:>12.2f}{slower:>8.2f}"
            f"{bytes_[i] / 2**20:>12.0f}{more:>8.2f}"
        )
        if i:
            what = f"recommender: a chunk of SFT as text, against {side.name} in the prompt, s"
            record(what, seconds[0], seconds[i], slower, spread=ratios, tokens=side.tokens / sides[0].tokens)


if __name__ == "__main__":
    main()
