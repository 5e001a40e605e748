"""How long a search takes over 10,000 and 100,000 vectors: p50 and p95 of a query, FAISS against NumPy, and a process.

    python -m benchmarks.search_latency [--sizes 10000,100000] [--embedder FOLDER] [--cold]

The vectors are 256-dimensional and clustered as catalogs are: groups of eight near-twins. "exact" is a NumPy matrix
product with a partial sort. A filtered search compares the tenth of the rows that pass. --cold writes a catalog of the
largest size with such vectors, and times `afmrl search --like` as a process of its own, interpreter start included; it
needs an embedder's files for their id (the built-in nano model by default), but loads no model.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.presets import model_id
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.index import Index, Kind, build_index, exact_search, search_index
from afmrl_cli.settings import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder

DIMENSION, TWINS, QUERIES, K = 256, 8, 200, 10


def clustered(count: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    groups = rng.standard_normal((count // TWINS + 1, DIMENSION)).astype(np.float32)
    matrix = groups[np.arange(count) // TWINS] + 0.2 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
    unit: NDArray[np.float32] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


def timed(search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> tuple[float, float]:
    """p50 and p95 in milliseconds of one query at a time."""
    search(queries[:1])
    seconds = []
    for i in range(len(queries)):
        started = time.perf_counter()
        search(queries[i : i + 1])
        seconds.append(time.perf_counter() - started)
    return float(np.percentile(seconds, 50)) * 1000, float(np.percentile(seconds, 95)) * 1000


def measure(count: int, kinds: Sequence[Kind]) -> None:
    matrix = clustered(count)
    rng = np.random.default_rng(1)
    queries = matrix[rng.choice(count, QUERIES)] + 0.02 * rng.standard_normal((QUERIES, DIMENSION), dtype=np.float32)
    print(f"{count:,} vectors of {DIMENSION}, {QUERIES} queries one by one, k = {K}")

    def in_numpy(query: NDArray[np.float32]) -> object:
        scores = query @ matrix.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)

    plain = timed(in_numpy, queries)
    print(f"  {'exact (NumPy)':<16} p50 {plain[0]:7.2f} ms   p95 {plain[1]:7.2f} ms")
    for kind in kinds:
        started = time.perf_counter()
        index = build_index(matrix, kind)
        built = time.perf_counter() - started
        p50, p95 = timed(partial(_ask, index), queries)
        print(
            f"  {kind:<16} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   {plain[0] / p50:5.1f} x NumPy"
            f"   recall@10 {index.recall:.3f}   built in {built:.1f} s"
        )
    rows = np.arange(0, count, 10)
    p50, p95 = timed(lambda query: exact_search(matrix, query, K, rows), queries)
    print(f"  {'filtered, 10 %':<16} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms")


def _ask(index: Index, query: NDArray[np.float32]) -> object:
    return search_index(index, query, K)


class Drawn:
    """Vectors out of a hat, as an encoder: the benchmark is about search, not about models."""

    id = "drawn"
    texts_cut = 0

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self.matrix, self.at = matrix, 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        rows = self.matrix[self.at : self.at + len(items)]
        self.at += len(items)
        return rows


def cold(count: int, embedder: str, runs: int = 5) -> None:
    flags = {"model.embedder": embedder, "embed.batch_size": 2048}
    settings = load_settings(None, flags, {})
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "title", "description", "brand", "category", "price", "color"])
            for i in range(count):
                text = f"A product of its own kind, number {i}, with a description as long as they often are."
                writer.writerow([f"s{i}", f"Product {i}", text, f"Brand {i % 50}", f"Group/{i % 20}", i % 90, i % 11])
        folder = CatalogFolder(root / "catalog.csv")
        name_of_embedder = model_id(settings.model, "embedder", Checkpoints(folder.checkpoints))
        encoder = Drawn(clustered(count))
        started = time.perf_counter()
        embed_catalog(folder, settings, name_of_embedder, lambda: encoder, Silent())
        print(f"{count:,} listings with drawn vectors, as a process of its own (median of {runs})")
        print(f"  embed but for the model {time.perf_counter() - started:6.2f} s")
        started = time.perf_counter()
        embed_catalog(folder, settings, name_of_embedder, lambda: encoder, Silent())
        print(f"  embed, nothing changed  {time.perf_counter() - started:6.2f} s")
        environment = {**os.environ, "AFMRL_MODEL_EMBEDDER": embedder} if embedder else dict(os.environ)
        like = ["search", "--like", "s77"]
        for words in (["--version"], like, [*like, "--filter", "brand=Brand 7"], [*like, "--json", "-k", "100"]):
            seconds = []
            for _ in range(runs):
                started = time.perf_counter()
                process = [sys.executable, "-m", "afmrl_cli", *words]
                done = subprocess.run(process, cwd=root, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                seconds.append(time.perf_counter() - started)
            print(f"  afmrl {' '.join(words):<44} {np.median(seconds):6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--kinds", default="flat,ivf,hnsw")
    parser.add_argument("--embedder", default="", help="folder of the embedder that --cold pretends to have used")
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    for count in sizes:
        measure(count, given.kinds.split(","))
    if given.cold:
        cold(max(sizes), given.embedder)


if __name__ == "__main__":
    main()
