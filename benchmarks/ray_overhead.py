"""What Ray costs: `embed --engine ray` against `embed --shard 0/1` and `merge`, of the same shop by the same threads.

    python -m benchmarks.ray_overhead [--products 5000] [--rounds 2]

Draws a shop and embeds it with nano, in turn, by one worker of Ray and by one shard, on one thread each, as processes,
starts of Python included. Prints the ratio of the whole commands, and that of the steady state: the time that the shard
itself took, in Ray's worker and in the process, both of which load the model in it. The vectors of both are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .figures import record
from .rerun import make_shop


def elapsed(root: Path, *commands: Sequence[str]) -> tuple[float, list[dict[str, float]]]:
    """Seconds that these commands take, one after the other, and the documents that they print."""
    one = {**os.environ, "OMP_NUM_THREADS": "1", "AFMRL_MODEL_PRESET": "nano"}
    begin, documents = time.monotonic(), []
    for command, *words in commands:
        called = [sys.executable, "-m", "afmrl_cli", command, str(root), "-q", "--json", *words]
        documents.append(json.loads(subprocess.run(called, env=one, check=True, stdout=subprocess.PIPE).stdout))
    return time.monotonic() - begin, documents


def vectors(root: Path) -> bytes:
    (file,) = (root / ".afmrl" / "embeddings").glob("*/v1/vectors.npy")
    return file.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    whole, steady, plain, by_ray = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        make_shop(root, options.products)
        for number in range(options.rounds):
            shutil.rmtree(root / ".afmrl", ignore_errors=True)
            seconds, (shard, _) = elapsed(root, ["embed", "--shard", "0/1"], ["merge"])
            alone = vectors(root)
            shutil.rmtree(root / ".afmrl")
            ray_seconds, (document,) = elapsed(root, ["embed", "--engine", "ray", "--workers", "1"])
            whole.append(ray_seconds / seconds)
            steady.append(document["worker_seconds"] / shard["seconds"])
            plain.append(seconds)
            by_ray.append(ray_seconds)
            print(
                f"round {number + 1}: --shard and merge {seconds:.1f} s (the shard {shard['seconds']:.1f} s), "
                f"--engine ray {ray_seconds:.1f} s (the shard {document['worker_seconds']:.1f} s); "
                f"whole {whole[-1]:.3f}, steady {steady[-1]:.3f}; the same vectors: {vectors(root) == alone}; "
                f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
                flush=True,
            )
    middle = statistics.median(whole)
    print(f"{options.products} products: whole commands {middle:.3f}, steady state {statistics.median(steady):.3f}")
    record(
        "ray against --shard",
        statistics.median(by_ray),
        statistics.median(plain),
        1 / middle,
        spread=[1 / each for each in whole],
        aim=">= 0.91",
        steady=statistics.median(steady),
    )


if __name__ == "__main__":
    main()
