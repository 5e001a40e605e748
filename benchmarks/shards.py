"""Two shards beside each other against one process: the ratio of their times, on as many cores each as a shard has.

    python -m benchmarks.shards [--products 600] [--shards 2]

Draws a shop, embeds it with nano by one process and by shards that run at once, each process on one core, starts of
Python and loading of the model included; then merges, whose time is told apart. The ratio is that of the elapsed times:
with two shards at best 2, less on a busy machine. The vectors of both are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .figures import record
from .rerun import make_shop


def elapsed(commands: Sequence[Sequence[str]]) -> float:
    """Seconds until all of these processes, started at once on one thread each, have ended."""
    one = {**os.environ, "OMP_NUM_THREADS": "1", "AFMRL_MODEL_PRESET": "nano"}
    begin = time.monotonic()
    running = [
        subprocess.Popen([sys.executable, "-m", "afmrl_cli", *words], env=one, stdout=sys.stderr) for words in commands
    ]
    if any([process.wait() for process in running]):
        raise SystemExit("a process failed")
    return time.monotonic() - begin


def vectors(root: Path) -> object:
    import numpy as np

    (file,) = (root / ".afmrl" / "embeddings").glob("*/v1/vectors.npy")
    return np.load(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=600)
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()
    import numpy as np

    with tempfile.TemporaryDirectory() as work:
        alone, divided = Path(work) / "alone", Path(work) / "divided"
        make_shop(alone, options.products)
        make_shop(divided, options.products)
        one = elapsed([["embed", str(alone), "-q"]])
        shards = range(options.shards)
        both = elapsed([["embed", str(divided), "-q", "--shard", f"{i}/{options.shards}"] for i in shards])
        merge = elapsed([["merge", str(divided), "-q"]])
        apart = float(np.abs(np.asarray(vectors(alone)) - np.asarray(vectors(divided))).max())
    load = os.getloadavg()[0]
    print(
        f"{options.products} products: one process {one:.1f} s, {options.shards} shards {both:.1f} s and merge "
        f"{merge:.1f} s; ratio {one / both:.2f}, with the merge {one / (both + merge):.2f}; "
        f"vectors differ by {apart:.1e} at most; load {load:.1f} on {os.cpu_count()} cores"
    )
    record("shards", both, one, one / both, aim=f"near {options.shards} on idle cores", merge_s=merge, load=load)


if __name__ == "__main__":
    main()
