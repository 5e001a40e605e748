"""How long the demo, `embed` and `attributes` take alone, and beside one process that keeps a processor busy.

    python -m benchmarks.beside [--products 200] [--rounds 3] [--only product,embed,attributes,demo]

Each is a process of its own on a fresh copy of an example shop, alone and beside the busy one in turns. Shown is the
clock's time, for waiting is what is measured, the median of the rounds. The aim is 2.2 times at most. "spinning" is the
same beside the busy process with OMP_WAIT_POLICY=ACTIVE, which is how OpenMP's threads wait by default; `afmrl` sets
PASSIVE. Nothing else may run. "product" is 200 products of two matrices, 64 x 5,000 and 5,000 x 64, in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from afmrl_cli.__main__ import WAITING
from afmrl_cli.nano.shop import ShopPlan, write_shop

from .figures import record

WAYS = ("alone", "beside", "spinning")
PRODUCT = """
import time, torch
a, b = torch.randn(64, 5000), torch.randn(5000, 64)
a @ b
began = time.monotonic()
for _ in range(200):
    a @ b
print(time.monotonic() - began)
"""


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep one processor busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def seconds(words: list[str], way: str) -> float:
    """Clock time of Python with `words`, done `way`; what a script prints of itself counts instead."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment["OMP_WAIT_POLICY"] = "ACTIVE" if way == "spinning" else "PASSIVE"
    with contextlib.nullcontext() if way == "alone" else busy():
        began = time.monotonic()
        command = [sys.executable, *words]
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return float(done.stdout) if words[0] == "-c" else time.monotonic() - began


def one(name: str, shop: Path, work: Path, products: int, way: str) -> float:
    """The time of one command on a fresh folder."""
    if name == "product":
        return seconds(["-c", PRODUCT], way)
    place, afmrl = work / "place", ["-m", "afmrl_cli"]
    shutil.rmtree(place, ignore_errors=True)
    if name == "demo":
        return seconds([*afmrl, "demo", str(place), "--products", str(products)], way)
    shutil.copytree(shop, place)
    return seconds([*afmrl, name, str(place)], way)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="product,embed,attributes,demo")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_shop(work / "shop", ShopPlan(arguments.products, 7, duplicates=1.0))
        for name in arguments.only.split(","):
            rounds = [
                {way: one(name, work / "shop", work, arguments.products, way) for way in WAYS}
                for _ in range(arguments.rounds)
            ]
            alone, beside, spinning = (statistics.median(each[way] for each in rounds) for way in WAYS)
            ratios = [each["alone"] / each["beside"] for each in rounds]
            print(
                f"{name:10} alone {alone:7.2f} s, beside a busy process {beside:7.2f} s ({beside / alone:.2f} times), "
                f"spinning {spinning:7.2f} s ({spinning / alone:.2f} times)"
            )
            record(f"{name} beside a busy process, s", beside, alone, alone / beside, spread=ratios, aim="0.45 or more")


if __name__ == "__main__":
    main()
