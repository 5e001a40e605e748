"""How the search for each vector's nearest others grows, as `afmrl dedupe` does it: seconds, slope, recall.

    OMP_NUM_THREADS=1 python -m benchmarks.dedupe_neighbours [--sizes 10000,100000,1000000] [--vectors FILE]

Vectors as `search_latency` draws them, groups of eight around each other, 256 numbers; or those of a .npy file. Times
are processor seconds. Recall is the share of the ten nearest others that exact search finds, on a sample, with a 95 %
interval over its vectors. `all pairs` is what the exact search of the sample says of all of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afmrl_cli.dedupe.neighbours import nearest_rows
from afmrl_cli.intervals import interval

from .figures import record
from .growth import slope_of
from .search_latency import drawn

DIMENSION, K, SAMPLE = 256, 10, 500


def measured(matrix: NDArray[np.float32]) -> float:
    """Seconds for all vectors; prints a line."""
    begin = time.process_time()
    found = np.concatenate([rows for _, rows in nearest_rows(matrix, K + 1)])
    seconds = time.process_time() - begin
    sample = np.sort(np.random.default_rng(0).choice(len(matrix), min(SAMPLE, len(matrix)), replace=False))
    begin = time.process_time()
    scores = matrix[sample] @ matrix.T
    best = np.argpartition(scores, -K - 1, axis=1)[:, -K - 1 :]
    exact = (time.process_time() - begin) * len(matrix) / len(sample)
    shares = [
        len(set(best[i]) & set(found[row]) - {row}) / len(set(best[i]) - {row}) for i, row in enumerate(sample.tolist())
    ]
    low, high = interval(np.array(shares)[:, None], [str(row) for row in sample], 0.95)[:, 0]
    print(
        f"{len(matrix):>9,} vectors {seconds:8.1f} s   all pairs {exact:9.1f} s   recall {np.mean(shares):.4f} "
        f"({low:.4f} to {high:.4f})",
        flush=True,
    )
    name = f"neighbours of {len(matrix):,} vectors, processor s"
    record(name, seconds, exact, exact / seconds, recall=float(np.mean(shares)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--vectors", type=Path)
    given = parser.parse_args()
    if given.vectors:
        measured(np.asarray(np.load(given.vectors), dtype=np.float32))
        return
    sizes, seconds = [int(size) for size in given.sizes.split(",")], []
    for size in sizes:
        matrix = np.empty((size, DIMENSION), dtype=np.float32)
        drawn(matrix)
        seconds.append(measured(matrix))
    if len(sizes) > 1:
        slope = slope_of(sizes, seconds)
        print(f"slope {slope:.2f}")
        record("growth of dedupe's neighbours, log-log slope of time", slope, aim="<= 1.05")


if __name__ == "__main__":
    main()
