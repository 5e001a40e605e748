"""How long `afmrl dedupe` takes at 100,000 products, once they are embedded.

    python -m benchmarks.dedupe_scale [--count 100000] [--photos]

Listings are drawn: styles of eight variants that differ in colour, size or model number, every tenth product listed
twice with other words, identities known for nine tenths. Vectors are drawn around style and product (256 numbers). With
--photos each listing has a JPEG of 400 x 400 pixels of its own. Timed is the command as a process of its own, with its
peak memory; with --photos a second time too, when what was seen of the photos is kept.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .figures import record
from .search_latency import Drawn

DIMENSION, VARIANTS = 256, 8
COLOURS = ["navy", "black", "white", "red", "olive", "sand", "grey", "rose"]
KINDS = ["shirt", "trousers", "jacket", "lamp", "kettle", "speaker", "printer", "backpack", "boots", "blouse"]
OTHER_WORDS = ["new", "original", "sale", "with warranty", "free shipping", "boxed", "2024", "for men", "pack"]


def word(rng: random.Random) -> str:
    return "".join(rng.choice("bcdfgklmnprstv") + rng.choice("aeiou") for _ in range(3))


def write_catalog(root: Path, count: int, photos: bool) -> NDArray[np.int64]:
    """catalog.csv; returns each listing's product."""
    rng = random.Random(0)
    names = [word(rng) for _ in range(count // 10)]
    products: list[int] = []
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product_id", "title", "description", "brand", "category", "price", "color", "image"])
        product = 0
        while len(products) < count:
            style = product // VARIANTS
            of_style = random.Random(style)
            brand, kind = of_style.choice(names[:500]), of_style.choice(KINDS)
            line, code = of_style.choice(names), f"{of_style.choice(names)[:2]}{of_style.randrange(100, 999)}"
            colour, size = COLOURS[product % VARIANTS], of_style.choice([8, 16, 32])
            for copy in range(2 if product % 10 == 0 else 1):
                title = [brand, line, kind, colour, f"{code}-{product % VARIANTS}", f"{size}cm"]
                if copy:
                    title = [*rng.sample(title, k=5), rng.choice(OTHER_WORDS)]
                text = " ".join([*of_style.choices(names, k=12), *rng.choices(OTHER_WORDS, k=3)])
                price = round(of_style.randrange(10, 300) * rng.choice([1, 1, 1.1]), 2)
                known = f"p{product}" if rng.random() < 0.9 else ""
                image = f"images/{len(products)}.jpg" if photos else ""
                row = [f"s{len(products)}", known, " ".join(title), text, brand, kind, price, colour]
                writer.writerow([*row, image])
                products.append(product)
            product += 1
    return np.array(products[:count], dtype=np.int64)


def write_photos(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    drawn = root / "drawn"
    drawn.mkdir()
    for i in range(500):
        picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).resize((400, 400)).save(drawn / f"{i}.jpg", quality=85)
    for i in range(count):
        # A comment after the first marker makes each file one of its own.
        photo = (drawn / f"{i % 500}.jpg").read_bytes()
        (root / "images" / f"{i}.jpg").write_bytes(photo[:2] + b"\xff\xfe\x00\x0a" + i.to_bytes(8) + photo[2:])


def draw_vectors(products: NDArray[np.int64]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    styles = rng.standard_normal((int(products.max()) // VARIANTS + 1, DIMENSION), dtype=np.float32)
    own = rng.standard_normal((int(products.max()) + 1, DIMENSION), dtype=np.float32)
    noise = rng.standard_normal((len(products), DIMENSION), dtype=np.float32)
    matrix = styles[products // VARIANTS] + 0.3 * own[products] + 0.15 * noise
    made: NDArray[np.float32] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return made


def measure(root: Path, what: str) -> str:
    command = [sys.executable, "-m", "afmrl_cli", "dedupe", str(root)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    last = [line for line in process.stdout.read().splitlines() if "precision" in line or "; scores from" in line][-2:]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    record(f"dedupe, {what}, processor s", cpu, clock_s=seconds, peak_mib=usage.ru_maxrss / 1024)
    told = f"{seconds:6.1f} s by the clock  {cpu:6.1f} s of CPU  {usage.ru_maxrss / 1024:6.0f} MiB"
    return "\n".join([told, *last])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--photos", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        products = write_catalog(root, given.count, given.photos)
        if given.photos:
            write_photos(root, len(products))
        folder, settings = (
            CatalogFolder(root / "catalog.csv"),
            load_settings(root, {"embed.batch_size": 2048}, BUILT_IN),
        )
        encoder = Drawn(draw_vectors(products))
        embed_catalog(Workspace(folder, settings, Silent(), load_encoder=lambda: encoder))
        what = f"{len(products):,} listings{', a photo each' if given.photos else ''}"
        print(what, flush=True)
        print(measure(root, what), flush=True)
        if given.photos:
            print(f"again, photos known: {measure(root, f'{what}, known')}", flush=True)


if __name__ == "__main__":
    main()
