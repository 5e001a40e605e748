"""How long `afmrl check` takes: a million rows without photos, and ten thousand photos.

    python -m benchmarks.check_scale [--rows 1000000] [--photos 10000] [--side 1000]

Writes a catalog of each kind into a temporary folder and times the command as a process of its own, with its peak
memory. The photos are JPEG of side x side pixels, a smooth picture with noise on it (180 kB at 1,000).
"""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from .figures import record

WORDS = "soft cotton blouse navy red shirt wool summer winter linen classic fit long sleeve röd blå".split()  # noqa: SIM905
DRAWN = 50
"""Different pictures among the photos."""


def write_rows(folder: Path, rows: int) -> None:
    rng = random.Random(0)
    with (folder / "catalog.csv").open("w", encoding="utf-8") as file:
        file.write("id,title,description,category,brand,price,ean,color\n")
        for i in range(rows):
            title, text = " ".join(rng.choices(WORDS, k=5)), " ".join(rng.choices(WORDS, k=15))
            file.write(
                f"SKU-{i},{title},{text},Tops/{i % 50},Brand{i % 99},{i % 100}.50,{i // 2:013},{WORDS[i % 14]}\n"
            )


def write_photos(folder: Path, photos: int, side: int) -> None:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    ramp = np.linspace(0, 255, side)
    noise = rng.normal(0, 8, (side, side, 3))
    drawn: list[bytes] = []
    for i in range(DRAWN):
        shade = np.add.outer(ramp, np.roll(ramp, 17 * i))[:, :, None] / 2 + np.roll(noise, i, axis=0)
        out = io.BytesIO()
        Image.fromarray(shade.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
        drawn.append(out.getvalue())
    with (folder / "catalog.csv").open("w", encoding="utf-8") as file:
        file.write("id,title,image\n")
        for i in range(photos):
            photo = drawn[i % DRAWN]
            # A comment after the first marker makes each file one of its own.
            comment = b"\xff\xfe\x00\x0a" + i.to_bytes(8)
            (folder / "images" / f"{i}.jpg").write_bytes(photo[:2] + comment + photo[2:])
            file.write(f"{i},thing {i},images/{i}.jpg\n")


def measure(what: str, folder: Path, *flags: str) -> str:
    command = [sys.executable, "-m", "afmrl_cli", "check", str(folder), "--quiet", *flags]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    seconds = time.perf_counter() - start
    cpu = usage.ru_utime + usage.ru_stime
    record(f"check {what}, s", seconds, aim="<= 60", processor_s=cpu, peak_mib=usage.ru_maxrss / 1024)
    return f"{seconds:6.1f} s by the clock  {cpu:6.1f} s of CPU  {usage.ru_maxrss / 1024:5.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=1000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if wanted.rows:
            write_rows(folder, wanted.rows)
            print(f"{wanted.rows:,} rows      {measure(f'{wanted.rows:,} rows', folder, '--no-images')}", flush=True)
        if wanted.photos:
            write_photos(folder, wanted.photos, wanted.side)
            size = sum(path.stat().st_size for path in (folder / "images").iterdir()) / wanted.photos / 1000
            took = measure(f"{wanted.photos:,} photos", folder)
            print(f"{wanted.photos:,} photos ({size:.0f} kB each)  {took}", flush=True)


if __name__ == "__main__":
    main()
