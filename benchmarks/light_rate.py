"""Time and memory of `afmrl embed --preset light`, fit included.

    python -m benchmarks.light_rate [--products 1000] [--side 1200]

Makes a catalog of JPEGs of `side` x `side` pixels, and texts of 8 to 40 words, and embeds it in a process of its own.
Printed are products a second, by the clock and by processor time (all threads; other work on the machine changes it
less), and the most memory that the process had at a time.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .embed_rate import products


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1200, help="of the photos, in pixels")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "title", "description", "image"])
            for i, (text, photo) in enumerate(products(folder, given.products, given.side)):
                words = text.split()
                writer.writerow([i, " ".join(words[:6]), " ".join(words[6:]), photo.name])
        command = [sys.executable, "-m", "afmrl_cli", "embed", "--preset", "light", "--quiet"]
        started = time.monotonic()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        clock = time.monotonic() - started
        disk = sum(path.stat().st_size for path in (folder / ".afmrl").rglob("*") if path.is_file())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    n = given.products
    print(f"{n:,} products with a photo of {given.side} x {given.side} pixels, {os.cpu_count()} cores")
    print(f"by the clock         {clock:8.1f} s   {n / clock:6.1f} products/s")
    print(f"processor time       {processor:8.1f} s   {n / processor:6.1f} products/s and core")
    print(f"20,000 at this rate, two cores at work: {20_000 * processor / n / 2 / 60:.1f} min")
    print(f"peak memory          {used.ru_maxrss / 2**10:8.0f} MiB;  on disk {disk / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
