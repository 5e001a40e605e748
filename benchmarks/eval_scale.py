"""How long `afmrl eval` takes on a large catalog: 100,000 listings, 10,000 queries, the embedder and two more systems.

    python -m benchmarks.eval_scale [--products 100000] [--queries 10000] [--systems bm25 fusion]

The catalog is made up: pairs of listings that share a product and some words. The encoder is a hashed bag of words (256
numbers), so that what is measured is the evaluation and not a model: reading, ranking, figures, 2,000 bootstrap draws,
writing the runs. Photos are none. Prints seconds and the peak of memory.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.entries import parse_entries
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .figures import record

DIMENSION = 256


class Words:
    """A hashed bag of words."""

    id = "hashed-words-256"
    texts_cut = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        rows = np.zeros((len(items), DIMENSION), np.float32)
        for row, item in enumerate(items):
            for word in item.text.split():
                rows[row, zlib.crc32(word.encode()) % DIMENSION] += 1
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def write_catalog(file: Path, products: int) -> None:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "product_id", "group_id", "title", "description", "category", "brand"])
        for number in range(0, products, 2):
            shared = rng.sample(words, 12)
            for listing in range(number, min(number + 2, products)):
                own = rng.sample(shared, 8) + rng.sample(words, 8)
                product = [f"p{number}", f"g{number // 6}", " ".join(own[:6]), " ".join(own)]
                writer.writerow([f"s{listing}", *product, f"c{number % 40}", f"b{number % 200}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--systems", nargs="*", default=["bm25", "fusion"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = CatalogFolder(Path(scratch) / "catalog.csv")
        write_catalog(folder.catalog, chosen.products)
        settings = load_settings(None, {"eval.max_queries": chosen.queries, "embed.batch_size": 512}, BUILT_IN)
        began = time.perf_counter()
        work = Workspace(folder, settings, Silent(), load_encoder=Words)
        embed_catalog(work)
        print(f"embed (hashed words): {time.perf_counter() - began:.1f} s")
        wanted = EvalRequest(TaskSpec("identity"), tuple(parse_entries(chosen.systems, False)))
        began, busy = time.perf_counter(), time.process_time()
        report = measure(work, wanted)
        wall, busy = time.perf_counter() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for system in report.content["systems"]:
        print(f"{system['system']}: recall@10 {system['metrics']['recall@10']:.4f} {system['intervals']['recall@10']}")
    record(f"eval of {chosen.products:,} products, processor s", busy, clock_s=wall, peak_mib=peak)
    print(f"eval: {wall:.1f} s, {busy:.1f} s of processor time; peak {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
