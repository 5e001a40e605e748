"""How much of the bare model's forward rate `afmrl embed` keeps.

    python -m benchmarks.embed_rate [--model FOLDER] [--items 256] [--batch 32] [--side 224] [--rounds 5] [--threads 1]

Three sides in turn, the median of the rounds: the bare forward on tensors made before, in the very batches that
encode makes; `Embedder.encode` from photos in memory; what `afmrl embed` does, from JPEG files to vectors on disk.
All with the same number of threads for the forward: with 1 on two cores, opening and resizing have the other core.
Prints items per second and the ratios: by the clock (which on a CPU that other work shares means little), by the
processor time of the thread that runs the forward (what else it is kept busy with), and by that of the whole process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.retrieval.encode import Input, encode_missing
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .figures import record

INSTRUCTION = "Represent this product:"
WORDS = ("red", "navy", "cotton", "shirt", "jacket", "regular", "fit", "round", "neckline", "long", "with", "pockets")


def products(folder: Path, count: int, side: int) -> list[tuple[str, Path]]:
    """Texts of 8 to 40 words, photos of `side` x `side` pixels as JPEG."""
    random = np.random.default_rng(0)
    made = []
    for i in range(count):
        small = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        path = folder / f"{i}.jpg"
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=85)
        made.append((" ".join(random.choice(WORDS, random.integers(8, 41))), path))
    return made


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="", help="folder or hub name; default: the built-in nano")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=224, help="of the photos, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the forward")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    flags = {"model.embedder": arguments.model, "model.embedder_images": 1, "embed.batch_size": arguments.batch}
    settings = load_settings(None, flags, BUILT_IN)
    work = Workspace(CatalogFolder(Path("none")), settings, Silent())
    embedder = load_embedder(settings.model, settings.embed, Checkpoints(Path("none")))
    with tempfile.TemporaryDirectory() as folder:
        rows = products(Path(folder), arguments.items, arguments.side)
        inputs = [Input(str(i), Item(text, (path,)), str(i)) for i, (text, path) in enumerate(rows)]
        opened = [Item(text, (Image.open(path).convert("RGB"),)) for text, path in rows]
        texts = embedder.texts(opened, INSTRUCTION)
        order = sorted(range(len(texts)), key=lambda i: -len(embedder.processor.tokenizer(texts[i])["input_ids"]))
        batches = [
            embedder.processor.tensors([texts[i] for i in part], [[opened[i].images[0]] for i in part])  # type: ignore[list-item]
            for part in (order[k : k + arguments.batch] for k in range(0, len(order), arguments.batch))
        ]
        caches = (VectorCache(Path(folder) / f"vectors-{i}") for i in count())

        def embed() -> None:
            encode_missing(work, inputs, next(caches), lambda: embedder, INSTRUCTION, Problems())

        sides: dict[str, Callable[[], object]] = {
            "bare forward": lambda: [embedder.forward(batch) for batch in batches],
            "encode, opened photos": lambda: embedder.encode(opened, instruction=INSTRUCTION),
            "embed, from JPEG files": embed,
        }
        clocks = {"the clock": time.perf_counter, "its thread": time.thread_time, "all": time.process_time}
        times = {name: {clock: list[float]() for clock in clocks} for name in sides}
        for side in sides.values():
            side()
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                starts = {clock: now() for clock, now in clocks.items()}
                side()
                for clock, now in clocks.items():
                    times[name][clock].append(now() - starts[clock])
    medians = {name: {clock: statistics.median(found[clock]) for clock in clocks} for name, found in times.items()}
    bare = medians["bare forward"]
    for name, median in medians.items():
        told = ", ".join(f"{bare[clock] / median[clock]:.2f} by {clock}" for clock in clocks)
        print(f"{name:24} {arguments.items / median['the clock']:8.1f} items/s   of the bare: {told}")
        if name != "bare forward":
            for clock, told in (("the clock", "by the clock"), ("its thread", "of the model's thread")):
                pairs = zip(times["bare forward"][clock], times[name][clock], strict=True)
                rate, bare_rate = (arguments.items / found[clock] for found in (median, bare))
                what = f"{name}, against the bare forward, items a second {told}"
                record(what, rate, bare_rate, rate / bare_rate, spread=[a / b for a, b in pairs], aim=">= 0.95")


if __name__ == "__main__":
    main()
