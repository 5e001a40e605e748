"""How long a search takes over 10,000 to 1,000,000 vectors: p50 and p95 of a query, FAISS against NumPy, and a process.

    python -m benchmarks.search_latency [--sizes 10000,100000,1000000] [--dimensions 256,768] [--kinds flat,ivf,hnsw]
                                        [--apart] [--cold] [--embedder FOLDER]

The vectors are drawn as embedders make them: a direction that all share, a spectrum that falls as 1 / j, kinds of
products, and in them groups of eight near-duplicates (similarity 0.96; of other groups the nearest 0.85). Of the nano
model's vectors of real catalogs 90 % lie in 11 to 16 dimensions, of these in about 100 of 256: a harder case.
--apart draws groups that have nothing in common, in all dimensions, which no index but an exact one can find its way
in. A query is a new near-duplicate of a stored vector; recall@10 is by score, against exact search. "exact" is NumPy's
product and a partial sort. A filtered search compares the tenth of the rows that pass. Time is of the clock; in
brackets, processor time. Vectors lie in a file that is mapped, as in a catalog's folder.

--cold writes a catalog of the first size with such vectors, and times `afmrl search --like` as a process of its own,
interpreter start included; it needs an embedder's files for their id (the built-in nano model by default), but loads no
model.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.index import Index, Kind, build_index, exact_search, search_index
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .figures import record

GROUP, QUERIES, K = 8, 100, 10
PIECE = 8192
"""Groups that are drawn at a time."""
TWIN_NOISE = 0.2
HNSW_MOST = 100_000
"""HNSW over more vectors takes many minutes to build."""


def drawn(out: NDArray[np.float32], apart: bool = False, seed: int = 0) -> None:
    """Fill the rows of `out` [n, d]."""
    count, dimension = out.shape
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dimension + 1, dtype=np.float32) ** (0.0 if apart else -0.5)
    shared = rng.standard_normal(dimension, dtype=np.float32)
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)
    kinds = rng.standard_normal((count // GROUP // 100 + 1, dimension), dtype=np.float32)
    for start in range(0, count, PIECE * GROUP):
        rows = min(PIECE * GROUP, count - start)
        groups: NDArray[np.float32] = rng.standard_normal((-(-rows // GROUP), dimension), dtype=np.float32)
        if not apart:
            groups = shared + kinds[rng.integers(0, len(kinds), len(groups))] + 0.7 * groups
        groups = (groups * spectrum.astype(np.float32)) @ turn
        groups /= np.linalg.norm(groups, axis=1, keepdims=True)
        piece = np.repeat(groups, GROUP, axis=0)[:rows]
        piece += TWIN_NOISE / math.sqrt(dimension) * rng.standard_normal((rows, dimension), dtype=np.float32)
        out[start : start + rows] = piece / np.linalg.norm(piece, axis=1, keepdims=True)


def new_twins(matrix: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    dimension = matrix.shape[1]
    rows = matrix[np.sort(rng.choice(len(matrix), count))]
    noisy = rows + TWIN_NOISE / math.sqrt(dimension) * rng.standard_normal(rows.shape, dtype=np.float32)
    unit: NDArray[np.float32] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True)
class Times:
    """Milliseconds of one query at a time, and what was found."""

    p50: float
    p95: float
    busy: float
    scores: NDArray[np.float32]


def timed(search: Callable[[NDArray[np.float32]], NDArray[np.float32]], queries: NDArray[np.float32]) -> Times:
    """`search` gives the scores of a query's K nearest, best first."""
    search(queries[:1])
    seconds, busy, found = [], [], []
    for i in range(len(queries)):
        began, worked = time.perf_counter(), time.process_time()
        found.append(search(queries[i : i + 1])[0])
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return Times(float(p50), float(p95), float(np.median(busy)) * 1000, np.stack(found))


def measure(folder: Path, count: int, dimension: int, kinds: Sequence[Kind], apart: bool) -> None:
    file = folder / "vectors.npy"
    matrix = np.lib.format.open_memmap(file, "w+", np.float32, (count, dimension))
    drawn(matrix, apart)
    matrix.flush()
    matrix = np.load(file, mmap_mode="r")
    queries = new_twins(matrix, QUERIES)
    print(f"{count:,} vectors of {dimension}, {QUERIES} queries one by one, k = {K}{', groups apart' * apart}")

    def in_numpy(query: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = query @ matrix.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        return -np.sort(-np.take_along_axis(scores, best, 1), axis=1)

    exact = timed(in_numpy, queries)
    print(f"  {'exact (NumPy)':<16} {_shown(exact)}", flush=True)
    for kind in kinds:
        if kind == "hnsw" and count > HNSW_MOST:
            continue
        began, worked, before = time.perf_counter(), time.process_time(), _own_memory()
        index = build_index(matrix, kind)
        built, busy = time.perf_counter() - began, time.process_time() - worked
        held = _own_memory() - before
        times = timed(partial(_ask, index), queries)
        recall = float(np.mean(times.scores >= exact.scores[:, -1:] - 1e-6))
        print(
            f"  {kind:<16} {_shown(times)}   {exact.p50 / times.p50:5.1f} x NumPy ({exact.busy / times.busy:.1f})"
            f"   recall@10 {recall:.4f} (told {index.recall:.4f}, effort {index.effort})"
            f"   built in {built:.1f} s ({busy:.1f})   {held / 2**20:,.0f} MiB",
            flush=True,
        )
        name = f"search of {count:,} x {dimension}, {kind} against NumPy, processor ms"
        record(name, times.busy, exact.busy, exact.busy / times.busy, recall=round(recall, 4), p50_ms=times.p50)
        del index
    rows = np.arange(0, count, 10)
    print(f"  {'filtered, 10 %':<16} {_shown(timed(lambda query: exact_search(matrix, query, K, rows)[0], queries))}")


def _shown(times: Times) -> str:
    return f"p50 {times.p50:7.2f} ms ({times.busy:.2f})   p95 {times.p95:7.2f} ms"


def _own_memory() -> int:
    """Memory of this process, less the files that are mapped."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024


def _ask(index: Index, query: NDArray[np.float32]) -> NDArray[np.float32]:
    return search_index(index, query, K)[0]


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
    settings = load_settings(None, flags, BUILT_IN)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "title", "description", "brand", "category", "price", "color"])
            for i in range(count):
                text = f"A product of its own kind, number {i}, with a description as long as they often are."
                writer.writerow([f"s{i}", f"Product {i}", text, f"Brand {i % 50}", f"Group/{i % 20}", i % 90, i % 11])
        folder = CatalogFolder(root / "catalog.csv")
        vectors = np.empty((count, 256), np.float32)
        drawn(vectors)
        encoder = Drawn(vectors)
        started = time.perf_counter()
        embed_catalog(Workspace(folder, settings, Silent(), load_encoder=lambda: encoder))
        print(f"{count:,} listings with drawn vectors, as a process of its own (median of {runs})")
        print(f"  embed but for the model {time.perf_counter() - started:6.2f} s")
        started = time.perf_counter()
        embed_catalog(Workspace(folder, settings, Silent(), load_encoder=lambda: encoder))
        print(f"  embed, nothing changed  {time.perf_counter() - started:6.2f} s")
        environment = {**os.environ, "AFMRL_MODEL_EMBEDDER": embedder} if embedder else dict(os.environ)
        like = ["search", "--like", "s77"]
        for words in (["--version"], like, [*like, "--filter", "brand=Brand 7"], [*like, "--json", "-k", "100"]):
            seconds, busy = [], []
            for _ in range(runs):
                started, worked = time.perf_counter(), os.times()
                process = [sys.executable, "-m", "afmrl_cli", *words]
                done = subprocess.run(process, cwd=root, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                seconds.append(time.perf_counter() - started)
                now = os.times()
                busy.append(now.children_user + now.children_system - worked.children_user - worked.children_system)
            median = float(np.median(busy))
            print(f"  afmrl {' '.join(words):<44} {np.median(seconds):6.2f} s ({median:.2f})")
            if words == like:
                record(f"cold search --like, {count:,} listings, processor s", median, aim="<= 1.0 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--dimensions", default="256")
    parser.add_argument("--kinds", default="flat,ivf,hnsw")
    parser.add_argument("--apart", action="store_true", help="groups that have nothing in common")
    parser.add_argument("--embedder", default="", help="folder of the embedder that --cold pretends to have used")
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    for dimension in map(int, given.dimensions.split(",")):
        for count in sizes:
            with tempfile.TemporaryDirectory() as folder:
                measure(Path(folder), count, dimension, given.kinds.split(","), given.apart)
    if given.cold:
        cold(sizes[0], given.embedder)


if __name__ == "__main__":
    main()
