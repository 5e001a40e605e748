"""How much of the bare model's forward rate `Embedder.encode` keeps.

    python -m benchmarks.embed_rate [--model FOLDER] [--items 256] [--batch 32] [--side 224] [--rounds 5]

Three sides in turn, the median of the rounds: the bare forward on tensors made before, in the very batches that encode
makes; encode from opened photos; encode from JPEG files, decoding included. Prints items per second and the ratios, by
the clock and by processor time (on a CPU that other work shares, only the second means anything).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.settings import EmbedSettings, ModelSettings
from afmrl_cli.store.checkpoints import Checkpoints

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
    arguments = parser.parse_args()
    settings = ModelSettings(embedder=arguments.model)
    embedder = load_embedder(settings, EmbedSettings(batch_size=arguments.batch), Checkpoints(Path("none")))
    with tempfile.TemporaryDirectory() as folder:
        rows = products(Path(folder), arguments.items, arguments.side)
        files = [Item(text, (path,)) for text, path in rows]
        opened = [Item(text, (Image.open(path).convert("RGB"),)) for text, path in rows]
        texts = embedder.texts(opened, INSTRUCTION)
        order = sorted(range(len(texts)), key=lambda i: -len(embedder.processor.tokenizer(texts[i])["input_ids"]))
        batches = [
            embedder.processor.tensors([texts[i] for i in part], [[opened[i].images[0]] for i in part])  # type: ignore[list-item]
            for part in (order[k : k + arguments.batch] for k in range(0, len(order), arguments.batch))
        ]
        sides: dict[str, Callable[[], object]] = {
            "bare forward": lambda: [embedder.forward(batch) for batch in batches],
            "encode, opened photos": lambda: embedder.encode(opened, instruction=INSTRUCTION),
            "encode, JPEG files": lambda: embedder.encode(files, instruction=INSTRUCTION),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        busy: dict[str, list[float]] = {name: [] for name in sides}
        for work in sides.values():
            work()
        for _ in range(arguments.rounds):
            for name, work in sides.items():
                start = time.process_time()
                times[name].append(seconds(work))
                busy[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        ratio = medians["bare forward"] / median
        worked = statistics.median(busy["bare forward"]) / statistics.median(busy[name])
        print(f"{name:24} {arguments.items / median:8.1f} items/s   {ratio:5.2f} of the bare ({worked:.2f} by CPU)")


if __name__ == "__main__":
    main()
