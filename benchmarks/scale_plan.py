"""What each stage takes at 100 thousand to 100 million products, calculated from rates that were measured.

    python -m benchmarks.scale_plan [--dimension 256] [--photos 1] [--generator 28] [--embedder 97] [--workers 1]
                                    [--price 1.0]

Nothing is run. Every rate names where it was measured (docs/lab/benchmarks.md: two cores, no GPU); --generator and
--embedder are products a second of one worker, which `afmrl attributes` and `afmrl embed` print for your own models;
--price is what a worker costs an hour. A time is t(n) = t(n0) (n / n0)^slope. Memory is that of the largest process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)


@dataclass(frozen=True)
class Stage:
    """Hours of all workers together, memory of one process and disk in bytes, by the number of products."""

    name: str
    hours: Callable[[int], float]
    memory: Callable[[int], float]
    disk: Callable[[int], float]
    divided: bool = True
    """Whether `--shard` divides it over workers."""


def growth(seconds: float, at: int, slope: float) -> Callable[[int], float]:
    """Hours by the number of products, from a time measured at one of them."""
    return lambda n: seconds * (n / at) ** slope / 3600


def stages(dimension: int, photos: float, generator: float, embedder: float) -> list[Stage]:
    row, photo = 15.7e-6, 1.27e-3  # benchmarks.check_scale: a million rows, 10,000 photos of 1,000 x 1,000 pixels
    color = 0.8e-3  # benchmarks.embed_rate leaves it out; a photo's colours (retrieval/histogram.py)
    wide = dimension / 256

    def kilobytes(start: float, each: float) -> Callable[[int], float]:
        return lambda n: start * 2**20 + each * 1000 * n

    def nothing(n: int) -> float:
        return 0.0

    return [
        Stage("check", lambda n: n * (row + photos * photo) / 3600, kilobytes(162, 0.7), nothing),
        Stage("attributes", lambda n: n / generator / 3600, kilobytes(590, 1.2), lambda n: 700.0 * n),
        Stage(
            "embed",
            lambda n: n * (1 / embedder + photos * color) / 3600,
            kilobytes(650, 7.2),
            lambda n: (4 * dimension + 700 + 1025 * (photos > 0)) * n,
        ),
        # benchmarks.search_latency: IVF of a million vectors of 256 numbers in 16.7 s, of 100,000 in 1.5 s.
        Stage(
            "index", growth(16.7 * wide, 1_000_000, 1.05), kilobytes(300, 1.4 * wide), lambda n: 340 * wide * n, False
        ),
        # benchmarks.growth: 113 s of processor time and 10.2 kB a product at 100,000; vectors in at most 256 numbers.
        Stage("dedupe", growth(113, 100_000, 1.0), kilobytes(500, 10.2 + 2.2 * min(wide, 1)), nothing, False),
        # benchmarks.index_push: a million of 256 numbers in 657 s, 819 of processors, of which 200,000 took 108.
        Stage(
            "index push",
            growth(657 * wide, 1_000_000, 1.26),
            kilobytes(300, 9 * wide),
            lambda n: 1870 * wide * n,
            False,
        ),
    ]


def size(value: float) -> str:
    """Bytes in words."""
    for unit in ("MB", "GB", "TB"):
        value /= 1000 if unit != "MB" else 1e6
        if value < 1000 or unit == "TB":
            break
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def time_of(hours: float) -> str:
    """Hours in words."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.1f} h" if hours < 100 else f"{hours / 24:,.0f} d"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--photos", type=float, default=1)
    parser.add_argument("--generator", type=float, default=28.2)
    parser.add_argument("--embedder", type=float, default=97.3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--price", type=float, default=1.0)
    given = parser.parse_args()
    print("| stage | " + " | ".join(f"{count:,}" for count in SIZES) + " |")
    print("| --- |" + " ---: |" * len(SIZES))
    all_of_it = stages(given.dimension, given.photos, given.generator, given.embedder)
    for stage in all_of_it:
        cells = []
        for count in SIZES:
            hours = stage.hours(count) / (given.workers if stage.divided else 1)
            held = stage.memory(count / given.workers if stage.divided else count)
            cells.append(f"{time_of(hours)}, {size(held)}")
        print(f"| {stage.name}: time, memory | " + " | ".join(cells) + " |")
    disk = (size(sum(stage.disk(count) for stage in all_of_it)) for count in SIZES)
    print("| disk, all of it | " + " | ".join(disk) + " |")
    prices = (given.price * sum(stage.hours(count) for stage in all_of_it) for count in SIZES)
    print(f"| at {given.price:g} an hour of a worker | " + " | ".join(f"{price:,.1f}" for price in prices) + " |")


if __name__ == "__main__":
    main()
