"""Encoding a group of answers behind their shared beginning against encoding each in full: the ratio of the two.

    python -m benchmarks.rar_reward [--model FOLDER] [--queries 16] [--group 8] [--rounds 5] [--size 32]

The same queries of a rendered shop (photos opened before), the same G attribute texts for each, the same batch size;
the two ways take turns, and medians are printed. The largest difference between their vectors is printed too. "rests
apart" has attribute texts that differ from their first pair on, "rests alike" ones that share the first half of their
pairs, as the answers to one query mostly do. CPU or CUDA, as model.device=auto finds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from nano_training.measure import listing_text_of
from numpy.typing import NDArray
from PIL import Image

from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.listener import Silent
from afmrl_cli.models.batching import Batches
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.templates import QUERY_INSTRUCTION
from afmrl_cli.nano.garment import random_garment
from afmrl_cli.nano.shop import Listing, ShopPlan, write_shop
from afmrl_cli.rar.frozen import frozen
from afmrl_cli.rar.prefix import encode_groups
from afmrl_cli.settings import EmbedSettings, ModelSettings
from afmrl_cli.store.checkpoints import Checkpoints

from .figures import record

Encode = Callable[[Sequence[Sequence[Item]]], list[NDArray[np.float32]]]


def answers(listing: Listing, group: int, alike: bool, rng: random.Random) -> list[str]:
    """Attribute texts about a listing's garment, `group` of them, all different."""
    pairs = list(listing.garment.attributes().items())
    kept = pairs[: len(pairs) // 2] if alike else []
    found: dict[str, None] = {}
    while len(found) < group:
        other = {**dict(pairs), **random_garment(rng).attributes()}
        found[write_attributes(dict(kept) | {key: other[key] for key, _ in pairs[len(kept) :]})] = None
    return list(found)


def workloads(folder: Path, queries: int, group: int) -> dict[str, list[list[Item]]]:
    """Groups of items: what the query shows, and whether its texts begin alike."""
    shop = write_shop(folder, ShopPlan(queries, 5, duplicates=0.0, text_queries=0, photo_queries=0))
    made: dict[str, list[list[Item]]] = {}
    for shown in ("photo", "photos and text", "text"):
        for alike in (False, True):
            rng, groups = random.Random(1), []
            for listing in shop.listings:
                files = {"photo": listing.shots[:1], "text": ()}.get(shown, listing.shots)
                photos = tuple(Image.open(folder / shot.name).convert("RGB") for shot in files)
                text = "" if shown == "photo" else listing_text_of(listing)
                groups.append([Item(text, photos, said) for said in answers(listing, group, alike, rng)])
            made[f"{shown}, rests {'alike' if alike else 'apart'}"] = groups
    return made


def seconds(encode: Encode, groups: Sequence[Sequence[Item]]) -> tuple[float, NDArray[np.float32]]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    vectors = np.concatenate(encode(groups))
    return time.perf_counter() - begin, vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    wanted = parser.parse_args()
    embedder: Embedder = load_embedder(
        ModelSettings(preset="nano", embedder=wanted.model),
        EmbedSettings(batch_size=wanted.size),
        Checkpoints(Path("none")),
    )
    batches = Batches(wanted.size, Silent(), "reward")

    def full(groups: Sequence[Sequence[Item]]) -> list[NDArray[np.float32]]:
        return [embedder.encode([item for items in groups for item in items], instruction=QUERY_INSTRUCTION)]

    def shared(groups: Sequence[Sequence[Item]]) -> list[NDArray[np.float32]]:
        return encode_groups(embedder, groups, instruction=QUERY_INSTRUCTION, batches=batches)

    with tempfile.TemporaryDirectory() as place, frozen(embedder):
        for name, groups in workloads(Path(place), wanted.queries, wanted.group).items():
            times: dict[str, list[float]] = {"full": [], "shared": []}
            for turn in range(wanted.rounds + 1):
                full_time, expected = seconds(full, groups)
                shared_time, found = seconds(shared, groups)
                if turn:  # the first one warms up
                    times["full"].append(full_time)
                    times["shared"].append(shared_time)
            spread = [a / b for a, b in zip(times["full"], times["shared"], strict=True)]
            ratio = statistics.median(spread)
            print(
                f"{name}: in full {statistics.median(times['full']):.2f} s, shared "
                f"{statistics.median(times['shared']):.2f} s, {ratio:.2f} times as fast; "
                f"vectors differ by {np.abs(found - expected).max():.1e} at most",
                flush=True,
            )
            shared_s, full_s = statistics.median(times["shared"]), statistics.median(times["full"])
            difference = float(np.abs(found - expected).max())
            record(f"reward, {name}: s", shared_s, full_s, ratio, spread=spread, vectors_differ_by=difference)


if __name__ == "__main__":
    main()
