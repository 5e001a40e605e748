"""What the store of picture features saves: the second of two commands that look at the same photos.

    python -m benchmarks.vision_once [--model nano|wide] [--products 96] [--rounds 3] [--side 112]

`attributes` after `embed`, `embed` by another adapter after `embed`, the second epoch of SFT and of AGCL, and a step of
RAR on queries that were seen before (two prompts, eight answers each), each with the store and without
(`cache.vision`), in turn, in this process; the medians of processor time, of everything the command does with a product
but reading the catalog. And what the first look costs, which is at one photo at a time with the store. `wide` is a
Qwen2.5-VL with a small language model and a larger tower, random weights. Also the figures behind the default: what a
hit costs, what it saves, and how many bytes a photo takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from afmrl_cli.attributes.prompt import attribute_prompt
from afmrl_cli.attributes.request import Request
from afmrl_cli.attributes.task import load_task
from afmrl_cli.catalog.pictures import image_loader
from afmrl_cli.catalog.product import Product
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.generator import LocalGenerator, load_generator
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.settings import AttributeSettings, Settings
from afmrl_cli.sft.corpus import Example
from afmrl_cli.sft.targets import Target
from afmrl_cli.sft.trainer import Collator, with_pictures
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.training.adapter import add_trainable
from afmrl_cli.training.loss import choose_loss
from afmrl_cli.training.pairs import Pair, Photo, Side
from afmrl_cli.training.parallel import World
from afmrl_cli.training.step import Batch, Reader, accumulate
from afmrl_cli.training_settings import AgclSettings, SftSettings

from .embed_rate import INSTRUCTION, products
from .figures import record
from .rar_step import Side as Trained
from .rar_step import make_ours, make_world

NONE = Checkpoints(Path("none"))
BATCH, CHUNK = 32, 8
TOLD = {
    "first": "embed for the first time",
    "attributes": "attributes after embed",
    "embed": "embed again",
    "teach": "SFT's second epoch",
    "epoch": "AGCL's second epoch",
    "rar": "RAR step on queries seen before",
}


def make_wide(folder: Path) -> Path:
    """A Qwen2.5-VL whose tower is larger than its language model: 12 layers of 256 beside 2 of 128."""
    from tests import tiny
    from transformers import AutoModelForImageTextToText

    tiny.make_tiny("qwen2_5_vl", folder, hidden=128)
    config = tiny.tiny_config("qwen2_5_vl", 128)
    vision = config.vision_config
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = 12, 256, 768, 8
    vision.fullatt_block_indexes = [5, 11]
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


class Commands:
    """With the store or without: models that share a base, and what the commands do with them."""

    def __init__(self, settings: Settings, rows: list[tuple[str, Path]], cache: Path | None) -> None:
        self.settings, self.rows = settings, rows
        bases = Bases(Cache(cache, settings.cache, Silent()) if cache else None)
        self.embedder: Embedder = load_embedder(settings.model, settings.embed, NONE, bases=bases)
        self.generator: LocalGenerator = load_generator(settings.model, settings.attributes, NONE, bases=bases)
        training = Bases(Cache(cache, settings.cache, Silent()) if cache else None)
        self.trained: Embedder = load_embedder(settings.model, settings.embed, NONE, bases=training)
        add_trainable(self.trained, settings.agcl, None, NONE).train()
        teaching = Bases(Cache(cache, settings.cache, Silent()) if cache else None)
        self.taught: LocalGenerator = load_generator(settings.model, settings.attributes, NONE, bases=teaching)
        self.pupil = add_trainable(self.taught, settings.sft, None, NONE, "CAUSAL_LM").train()

    def embed(self, embedder: Embedder | None = None) -> None:
        embedder = embedder or self.embedder
        load_image = image_loader(embedder, self.settings.catalog)
        items = [Item(text, (load_image(path),)) for text, path in self.rows]
        embedder.encode(items, instruction=INSTRUCTION)

    def first(self, embedders: Iterator[Embedder]) -> None:
        self.embed(next(embedders))

    def attributes(self) -> None:
        load_image = image_loader(self.generator, self.settings.catalog)
        asked = [Request(attribute_prompt(text), (load_image(path),), product=text) for text, path in self.rows]
        self.generator.generate(asked)

    def epoch(self) -> None:
        reader = Reader(self.trained, self.settings)
        photos = [Photo(path, (224, 224), path.name) for _, path in self.rows]
        texts = [text for text, _ in self.rows]
        for start in range(0, len(self.rows), BATCH):
            rows = range(start, min(start + BATCH, len(self.rows)))
            pairs = [Pair("photos", Side(i, "", (photos[i],)), Side(i, texts[i], (photos[i],))) for i in rows]
            nothing = np.zeros((len(pairs), len(pairs)), bool)
            batch = Batch(pairs, nothing.astype(float), nothing, nothing)
            accumulate(reader, batch, choose_loss(self.settings.agcl), self.settings.agcl.chunk_tokens, World())

    def teach(self) -> None:
        collate = Collator(self.taught, load_task(self.settings.attributes, Path()), self.settings)
        target = Target({"colour": "red", "sleeves": "long", "pattern": "plain"})
        examples = [
            Example(Product(str(i), title=text, images=(path,)), target) for i, (text, path) in enumerate(self.rows)
        ]
        for start in range(0, len(examples), CHUNK):
            batch = with_pictures(collate(examples[start : start + CHUNK]), self.taught)
            torch.autograd.backward(self.pupil(**batch).loss)
        self.taught.vision.flush()


def rar_sides(place: Path, model: str) -> dict[str, Trained]:
    """A trainer without the store, and one with it."""
    write_shop(place / "shop", ShopPlan(30, seed=3, duplicates=0.5, size=224))
    return {
        name: make_ours(*make_world(place, model, 2, 224, cache), place / name)
        for name, cache in (("without", None), ("with", place / "rar-cache"))
    }


def seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def hits(side: Commands) -> str:
    """What a photo costs in bytes, to read again, and to look at."""
    store, count = side.embedder.vision.store, len(side.rows)
    assert store is not None
    load_image = image_loader(side.embedder, side.settings.catalog)
    known = [load_image(path) for _, path in side.rows]
    found = seconds(lambda: [load_image(path) for _, path in side.rows]) / count
    read = seconds(lambda: side.embedder.vision.show(known)) / count
    size = sum(file.stat().st_size for file in store.folder.iterdir()) / count
    fresh = Bases().get(side.embedder.loaded.base, side.settings.model).vision(side.embedder.loaded.base)
    opened = [fresh.load_image(path, side.settings.catalog) for _, path in side.rows]
    open_ = seconds(lambda: [fresh.load_image(path, side.settings.catalog) for _, path in side.rows]) / count
    batch = fresh.show(opened)
    with torch.inference_mode():
        work = partial(fresh.trunk.get_image_features, batch["pixel_values"], batch["image_grid_thw"])
        tower = seconds(lambda: work()) / count
    return (
        f"a photo: {size / 1000:.1f} kB stored; hash and look-up {1e3 * found:.2f} ms, reading {1e3 * read:.2f} ms; "
        f"opening and resizing {1e3 * open_:.2f} ms, tower {1e3 * tower:.2f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("nano", "wide"), default="nano")
    parser.add_argument("--products", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=112, help="of a photo as wide reads it, in pixels")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        model: dict[str, object] = {"preset": "nano", "device": "cpu", "precision": "fp32"}
        if wanted.model == "wide":
            folder = str(make_wide(Path(place) / "wide"))
            model |= {"generator": folder, "embedder": folder, "max_pixels": wanted.side**2}
        agcl = AgclSettings(loss="infonce", batch_size=BATCH, lora_dropout=0.0, activation_checkpointing=False)
        sft = SftSettings(activation_checkpointing=False)
        attributes = AttributeSettings(max_new_tokens=48, batch_size=BATCH)
        settings = Settings.model_validate({"model": model, "agcl": agcl, "sft": sft, "attributes": attributes})
        rows = products(Path(place), wanted.products, 224)
        sides = {"without": Commands(settings, rows, None), "with": Commands(settings, rows, Path(place) / "cache")}
        sides["with"].embed()
        print(hits(sides["with"]))
        print(f"{'processor time':<32}{'without':>10}{'with':>10}{'ratio':>8}")
        works: dict[str, dict[str, Callable[[], object]]] = {
            name: {which: getattr(side, name) for which, side in sides.items()}
            for name in ("attributes", "embed", "teach", "epoch")
        }
        caches = (Cache(Path(place) / f"first-{i}", settings.cache, Silent()) for i in range(wanted.rounds))
        fresh = [load_embedder(settings.model, settings.embed, NONE, bases=Bases(cache)) for cache in caches]
        works["first"] = {"without": sides["without"].embed, "with": partial(sides["with"].first, iter(fresh))}
        trainers = rar_sides(Path(place), str(model.get("generator", "nano")))
        works["rar"] = {which: partial(side.step, 0) for which, side in trainers.items()}
        for work in works["rar"].values():
            work()
        for name, each in works.items():
            times: dict[str, list[float]] = {"without": [], "with": []}
            for _ in range(wanted.rounds):
                for which, work in each.items():
                    times[which].append(seconds(work))
            before, after = (statistics.median(times[which]) for which in ("without", "with"))
            print(f"{TOLD[name]:<32}{before:>9.2f}s{after:>9.2f}s{before / after:>7.2f}x", flush=True)
            spread = [a / b for a, b in zip(times["without"], times["with"], strict=True)]
            record(f"{TOLD[name]}, photos looked at once, processor s", after, before, before / after, spread=spread)


if __name__ == "__main__":
    main()
