"""Speed of the in-batch BM25 against rank-bm25's own scoring.

    python -m benchmarks.lexical_weights [--products 100000]

Products with eight attributes each, batches of 128 x 128; both give the same numbers, which is checked.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import numpy as np
from rank_bm25 import BM25Okapi

from afmrl_cli.retrieval.bm25 import fit_bm25, idf

from .figures import record

BATCH, ATTRIBUTES, REPEATS = 128, 8, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=100_000)
    products = parser.parse_args().products
    rng = random.Random(0)
    corpus = [[f"key{k}value{int(rng.paretovariate(0.6)) % 400}" for k in range(ATTRIBUTES)] for _ in range(products)]
    begin = time.perf_counter()
    ours = fit_bm25(corpus)
    built = time.perf_counter() - begin
    theirs = BM25Okapi(corpus)
    theirs.idf = dict(zip(ours.column, idf(ours.counts), strict=True))
    rows, columns = rng.sample(range(products), BATCH), rng.sample(range(products), BATCH)
    begin = time.perf_counter()
    expected = np.array([theirs.get_batch_scores(corpus[i], columns) for i in rows])
    slow = time.perf_counter() - begin
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        found = ours.pairs(rows, columns)
        times.append(time.perf_counter() - begin)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    fast = statistics.median(times)
    print(f"{products:,} products, built in {built:.1f} s; {BATCH} x {BATCH} pairs:")
    print(
        f"rank-bm25 get_batch_scores {1000 * slow:.0f} ms, ours {1000 * fast:.2f} ms: {slow / fast:,.0f} times faster"
    )
    spread = [slow / each for each in times]
    record("BM25 of 128 x 128 pairs against rank-bm25, ms", 1000 * fast, 1000 * slow, slow / fast, spread=spread)


if __name__ == "__main__":
    main()
