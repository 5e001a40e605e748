"""How long `afmrl serve` takes to answer: text, photo, both, filtered, likeness, one client and many; and the command.

    python -m benchmarks.serve_load [--sizes 10000,100000] [--preset nano|light] [--clients 1,16] [--queries 200]
                                    [--cold 3] [--keep FOLDER] [--set search.hybrid=no]

Every size is a catalog of so many listings in words. Their vectors are drawn as search_latency draws them (what is
measured is serving, not embedding), stored as those of the preset's model, which reads the queries: words, and photos
of a drawn shop that no client sends twice. The service is a process of its own, and so are the clients, on the same
machine: on two cores they take time from it. Milliseconds are a client's, from the first byte sent to the last one
read; refused (503) are tried again after the second that the service asks for, and counted. `CPU` is what the service
computed for an answer, on average, which no other job on the machine makes longer. `cold` is `afmrl search` as a
process of its own (median of --cold runs).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from .figures import record
from .search_latency import Drawn, drawn

PHOTOS = 40
"""Or as many as there are listings."""
COLOURS = ("navy", "red", "beige", "green", "black", "white", "purple", "orange")
KINDS = ("dress", "blouse", "skirt", "coat", "hoodie", "trousers", "shorts", "cardigan")
MORE = ("with long sleeves", "with a zip", "sleeveless", "with buttons", "maxi", "mini", "with a belt", "v-neck")
AIMS = {"text": 60, "photo": 120}
"""Milliseconds of one client's median, at 100,000 listings."""


@dataclass(frozen=True)
class Times:
    """What clients saw: milliseconds of every answer, how often they had to try again, answers a second."""

    milliseconds: list[float]
    refused: int
    rate: float

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


def write_catalog(root: Path, base: Sequence[dict[str, str]], count: int) -> None:
    """A catalog of `count` listings: those of the drawn shop again and again, in other words, without photos."""
    rng = Random(count)
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        columns = ["id", "title", "description", "brand", "category", "price", "colour"]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for i in range(count):
            row = base[i % len(base)]
            words = f"{rng.choice(COLOURS)} {rng.choice(KINDS)} {rng.choice(MORE)} {i}"
            text = {"title": words, "description": row["description"], "colour": words.split()[0]}
            own = {"brand": row["brand"], "category": row["category"], "price": f"{10 + i % 190}.90"}
            writer.writerow({"id": f"s{i}", **text, **own})


def make_catalog(root: Path, count: int, preset: str) -> None:
    """Write the catalog and its vectors: with `light` a fit to the drawn shop first, whose model reads the queries."""
    write_shop(
        root, ShopPlan(products=min(PHOTOS, count), duplicates=0, variants=0, size=224, text_queries=0, photo_queries=0)
    )
    with (root / "catalog.csv").open(newline="", encoding="utf-8") as file:
        base = list(csv.DictReader(file))
    settings = load_settings(None, {"model.preset": preset, "embed.batch_size": 2048}, {})
    folder = CatalogFolder(root / "catalog.csv")
    if preset == "light":
        embed_catalog(Workspace(folder, settings, Silent()))
    dimension = Workspace(folder, settings, Silent()).embedder().encode([_item()], instruction="").shape[1]
    write_catalog(root, base, count)
    vectors = np.empty((count, dimension), np.float32)
    drawn(vectors)
    encoder = Drawn(vectors)
    embed_catalog(Workspace(folder, settings, Silent(), load_encoder=lambda: encoder))


def _item() -> Any:
    from afmrl_cli.models.embed_input import Item

    return Item("navy dress")


@contextlib.contextmanager
def serving(root: Path, preset: str, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service as a process, and its port."""
    command = [sys.executable, "-m", "afmrl_cli", "serve", str(root), "--json", "--quiet", "--port", "0", *flags]
    environment = {**os.environ, "AFMRL_MODEL_PRESET": preset}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            address: str = json.loads(process.stdout.readline())["address"]
            yield process, int(address.rstrip("/").rpartition(":")[2])
        finally:
            process.terminate()


Request = tuple[str, bytes]
"""Content type and body of one search."""


def requests_of(kind: str, root: Path, count: int, listings: int) -> list[Request]:
    """`count` searches of a kind, each of its own."""
    rng = Random(kind)
    made: list[Request] = []
    photos = sorted((root / "images").iterdir())
    for i in range(count):
        words = f"{rng.choice(COLOURS)} {rng.choice(KINDS)} {rng.choice(MORE)} {i}"
        if kind == "like":
            made.append(_json({"like": f"s{rng.randrange(listings)}"}))
        elif kind == "photo":
            made.append(_form(_another(photos[i % len(photos)], i)))
        elif kind == "both":
            made.append(_form(_another(photos[i % len(photos)], i), words))
        else:
            filters = [f"colour={rng.choice(COLOURS)}"] if kind == "filtered" else []
            made.append(_json({"text": words, "filters": filters}))
    return made


def _json(fields: dict[str, Any]) -> Request:
    return "application/json", json.dumps(fields).encode()


def _form(photo: bytes, words: str = "") -> Request:
    edge = "photo-of-a-client"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="text"\r\n\r\n{words}\r\n' if words else ""
    head += f'--{edge}\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    return f"multipart/form-data; boundary={edge}", head.encode() + photo + f"\r\n--{edge}--\r\n".encode()


def _another(file: Path, number: int) -> bytes:
    """A photo that nobody has sent yet."""
    with Image.open(file) as opened:
        changed = ImageEnhance.Brightness(opened.convert("RGB")).enhance(0.8 + 0.4 * (number % 97) / 97)
    buffer = io.BytesIO()
    changed.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def _client(port: int, requests: list[Request], times: list[float], refused: list[int]) -> None:
    """Send what is left of `requests` over one connection, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while requests:
        kind, body = requests.pop()
        head = (
            f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        while True:
            began = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in answer.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            content = await reader.readexactly(length)
            status = int(answer.split()[1])
            if status == 200:
                times.append(1000 * (time.perf_counter() - began))
                break
            if status != 503:
                raise SystemExit(f"{status}: {content[:300].decode()}")
            refused.append(status)
            await asyncio.sleep(1)
    writer.close()


async def load(port: int, requests: Sequence[Request], clients: int) -> Times:
    """Send all `requests` from so many clients at once."""
    left, times, refused = list(requests), list[float](), list[int]()
    began = time.perf_counter()
    await asyncio.gather(*(_client(port, left, times, refused) for _ in range(clients)))
    return Times(times, len(refused), len(times) / (time.perf_counter() - began))


def measure(root: Path, count: int, preset: str, clients: Sequence[int], queries: int, flags: Sequence[str]) -> None:
    with serving(root, preset, *flags) as (process, port):
        began = memory(process.pid)
        for kind in ("text", "photo", "both", "filtered", "like"):
            asyncio.run(load(port, requests_of(kind, root, 5, count), 1))
            for number in clients:
                before = computed(process.pid)
                times = asyncio.run(load(port, requests_of(kind, root, queries, count), number))
                cpu = 1000 * (computed(process.pid) - before) / len(times.milliseconds)
                p50, p95 = times.percentile(50), times.percentile(95)
                print(
                    f"  {kind:<9} {number:>3} clients   p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   CPU {cpu:6.1f} ms"
                    f"   {times.rate:6.1f}/s   tried again {times.refused}",
                    flush=True,
                )
                aim = f"<= {AIMS[kind]} ms" if kind in AIMS and number == 1 and count == 100_000 else ""
                name = f"serve, {kind}, {preset}, {count:,} listings, {number} clients, p50 ms"
                record(name, p50, aim=aim, p95_ms=p95, cpu_ms=cpu, per_second=times.rate)
        print(f"  memory {began / 2**20:,.0f} MiB at the start, {memory(process.pid) / 2**20:,.0f} MiB afterwards")


def computed(pid: int) -> float:
    """Seconds for which the threads of a process have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def cold(root: Path, preset: str, runs: int, flags: Sequence[str]) -> None:
    """The same question by the command, which starts Python and loads the model each time."""
    photo = next((root / "images").iterdir())
    environment = {**os.environ, "AFMRL_MODEL_PRESET": preset}
    for kind, words in (("text", ["navy dress with long sleeves"]), ("photo", ["--image", str(photo)])):
        command = [sys.executable, "-m", "afmrl_cli", "search", *words, "--catalog", str(root), "--json", *flags]
        seconds, cpu = [], []
        for _ in range(runs):
            began, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = os.times()
            seconds.append(time.perf_counter() - began)
            cpu.append(after[2] - before[2] + after[3] - before[3])
        middle, computing = 1000 * float(np.median(seconds)), 1000 * float(np.median(cpu))
        print(f"  {kind:<9} afmrl search, cold   {middle:7.0f} ms   CPU {computing:6.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--preset", choices=("nano", "light"), default="nano")
    parser.add_argument("--clients", default="1,16")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--cold", type=int, default=0, metavar="RUNS", help="time the command, too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="use the catalogs there, or make them there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the service")
    given = parser.parse_args()
    flags = [word for pair in given.set for word in ("--set", pair)]
    for count in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            root = (given.keep or Path(folder)) / f"{given.preset}-{count}"
            if not root.is_dir():
                root.mkdir(parents=True)
                make_catalog(root, count, given.preset)
            print(f"{count:,} listings, {given.preset}, {given.queries} queries of each kind", flush=True)
            if given.cold:
                cold(root, given.preset, given.cold, flags)
            measure(root, count, given.preset, [int(each) for each in given.clients.split(",")], given.queries, flags)


if __name__ == "__main__":
    main()
