"""Malformed catalogs, feeds, photos, attribute texts, settings and query files, each made from a number.

For benchmarks.fuzz. Most are samples (tests/data, and small files of every format made here) with some of their bytes
changed; the others are built to hurt: nested a thousand deep, unpacking to hundreds of megabytes, naming files that
are none of theirs.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

from .hostile_tables import (
    WORDS,
    csv_bytes,
    damaged,
    jsonl_bytes,
    parquet_bytes,
    recoded,
    samples,
    xlsx_bytes,
    xml_bytes,
)

SECRET = "qpZ7-secret-of-another-folder"
"""What stands in a file outside of the catalog's folder; it must never be seen in what a command says."""
Files = dict[str, bytes]
Maker = Callable[[random.Random], Files]


SUFFIXES = ("csv", "tsv", "jsonl", "xml", "xlsx", "parquet", "csv.gz")


def _named(data: bytes, rng: random.Random, usual: str) -> Files:
    suffix = usual if rng.random() < 0.8 else rng.choice(SUFFIXES)
    return {f"catalog.{suffix}": data}


@lru_cache
def gzip_bomb() -> bytes:
    """400 kB that unpack to 400 MB."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(b"id,title\n"), *(packer.compress(bytes(1 << 20)) for _ in range(400)), packer.flush()]
    return b"".join(parts)


def catalog(rng: random.Random) -> Files:
    """A plain catalog of any format."""
    match rng.randrange(10):
        case 0 | 1 | 2:
            return _named(recoded(csv_bytes(rng), rng), rng, "csv")
        case 3:
            return _named(recoded(damaged(csv_bytes(rng), rng), rng), rng, "csv")
        case 4 | 5:
            return _named(recoded(damaged(jsonl_bytes(rng), rng, 2), rng), rng, "jsonl")
        case 6:
            return _named(xlsx_bytes(rng), rng, "xlsx")
        case 7:
            return _named(parquet_bytes(rng), rng, "parquet")
        case 8:
            size = rng.choice([100, 5_000, 300_000])
            return _named(rng.randbytes(size), rng, rng.choice(SUFFIXES))
    if rng.random() < 0.03:
        return {"catalog.csv.gz": gzip_bomb()}
    width = rng.choice([2, 3_000])
    line = ",".join(f"c{i}" for i in range(width))
    return _named(f"id,{line}\n{line}\n1,{line}\n".encode() + b'"' * rng.choice([0, 1, 9_999]), rng, "csv")


def feed(rng: random.Random) -> Files:
    """A shop's export: Google, Shopify, WooCommerce."""
    match rng.randrange(8):
        case 0:
            return _named(recoded(xml_bytes(rng), rng), rng, "xml")
        case 1 | 2 | 3:
            return _named(recoded(damaged(rng.choice(samples(".xml")), rng), rng), rng, "xml")
        case 4:
            one, other = rng.sample(samples(".csv", ".tsv", ".xml"), 2)
            return _named(one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :], rng, "csv")
    return _named(recoded(damaged(rng.choice(samples(".csv", ".tsv")), rng), rng), rng, "csv")


@lru_cache
def photos() -> list[bytes]:
    """Small photos of every format and odd mode."""
    from PIL import Image

    noise = Image.effect_noise((40, 30), 60)
    colour = Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)])
    made: list[bytes] = []
    for image, form, extra in (
        (colour, "JPEG", {}),
        (
            colour,
            "JPEG",
            {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"},
        ),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (noise.convert("I;16"), "PNG", {}),
        (noise.convert("1"), "PNG", {}),
        (colour, "WEBP", {}),
        (colour, "WEBP", {"save_all": True, "append_images": [colour.rotate(90)], "duration": 5}),
        (colour.convert("P"), "GIF", {"save_all": True, "append_images": [colour.rotate(9).convert("P")]}),
        (colour, "BMP", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (noise.convert("F"), "TIFF", {}),
        (colour.convert("YCbCr"), "TIFF", {}),
    ):
        out = io.BytesIO()
        image.save(out, form, **extra)
        made.append(out.getvalue())
    return made


def _png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def image(rng: random.Random) -> Files:
    """A photo that is none, or more than one can bear."""
    match rng.randrange(10):
        case 0:
            size = rng.choice([(50_000, 50_000), (2**31 - 1, 1), (7_000, 7_100), (1, 49_000_000)])
            data = _png(*size, zlib.compress(bytes(9_999)))
        case 1:
            one, other = rng.sample(photos(), 2)
            data = one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]
        case 2:
            data = rng.choice([b"", b"<svg/>", b"\0\0\0\x18ftypheic", b"%!PS-Adobe\n", b"GIF89a", rng.randbytes(500)])
        case _:
            data = damaged(rng.choice(photos()), rng, rng.choice([1, 2, 6]))
    name = rng.choice(["a.jpg", "a.png", "a.tif", "a"])
    return {"catalog.csv": f"id,title,image\n1,x,{name}\n".encode(), name: data}


def attributes(rng: random.Random) -> Files:
    """What a generator may answer."""
    parts = [
        "color",
        "neck",
        "Color ",
        "red",
        "navy",
        "v-neck",
        ": ",
        "; ",
        ":",
        ";",
        ".",
        ", ",
        "\n",
        "16:9",
        "  ",
        "，",
    ]
    text = "".join(rng.choice(parts if rng.random() < 0.8 else WORDS) for _ in range(rng.randrange(1, 14)))
    if rng.random() < 0.3:
        text = damaged(b"color: red; neck: v-neck; material: cotton", rng).decode("utf-8", "surrogateescape")
    return {"answer.txt": text.encode("utf-8", "surrogatepass")}


SETTINGS = """[catalog]
path = "catalog.csv"
encoding = "utf-8"
delimiter = ","
image_folder = "images"
[catalog.columns]
id = ["id"]
title = "title"
[model]
preset = "nano"
generator_images = 2
embedder_images = 2
[attributes]
language = "Swedish"
template = "template.txt"
[attributes.keys.color]
values = ["red", "navy"]
[eval]
systems = ["bm25", "run:earlier.trec"]
"""


def settings(rng: random.Random) -> Files:
    """An afmrl.toml beside a good catalog."""
    from afmrl_cli.earlier_settings import earlier_keys
    from afmrl_cli.reference import known_keys

    keys = [*known_keys(), *earlier_keys()]
    values = [
        *(
            "true",
            "-1",
            "1e999",
            "nan",
            '""',
            "[]",
            "{}",
            "9" * 400,
            '"x"',
            "'\\'",
            "[[[]]]",
            "1979-05-27T07:32:00Z",
            "0",
        ),
        *('"../outside/secret.csv"', '"/etc/passwd"', '["a", 1]', '"\\u0000"', '"utf-7"', '"idna"', '"hex"', '"zip"'),
        *('"rot13"', '"' + "a" * 5_000 + '"', "[" * 3_000, '"undefined"', '"raw_unicode_escape"', '"cp037"'),
    ]
    match rng.randrange(4):
        case 0:
            text = damaged(SETTINGS.encode(), rng)
        case 1:
            text = SETTINGS.encode() + f"\n{rng.choice(keys)} = {rng.choice(values)}\n".encode()
        case 2:
            chosen = rng.sample(keys, 3)
            text = "".join(f"{key} = {rng.choice(values)}\n" for key in chosen).encode()
        case _:
            text = (
                f"catalog.{rng.choice([k[8:] for k in keys if k[:8] == 'catalog.'])} = {rng.choice(values)}\n".encode()
            )
    files = {"afmrl.toml": recoded(text, rng) if rng.random() < 0.1 else text}
    return files | {"catalog.csv": b"id,title,image\n1,Red blouse,a.png\n2,Navy skirt,\n", "template.txt": b"{product}"}


def queries(rng: random.Random) -> Files:
    """Queries, judgements, a run and labels."""
    asked = b'{"qid": "q1", "text": "red blouse", "images": ["images/a.png"]}\n'
    asked += b'{"_id": "q2", "title": "x", "exclude": ["1"]}\n'
    good: Files = {
        "queries.jsonl": jsonl_bytes(rng).replace(b'"id"', b'"qid"') if rng.random() < 0.4 else asked,
        "qrels.trec": b"q1 0 1 1\nq2 0 2 2\n",
        "qrels.tsv": b"query-id\tcorpus-id\tscore\nq1\t1\t1\n",
        "run.trec": b"q1 Q0 1 1 0.5 bm25\nq1 Q0 2 2 0.25 bm25\n",
        "labels.csv": b"id,product_id,color\n1,p1,red\n2,p1,navy\n",
    }
    return {name: damaged(data, rng, 3) if rng.random() < 0.6 else data for name, data in good.items()}


MAKERS: dict[str, tuple[Maker, int]] = {
    "catalog": (catalog, 30),
    "feed": (feed, 25),
    "image": (image, 15),
    "attributes": (attributes, 10),
    "settings": (settings, 12),
    "queries": (queries, 8),
}
"""Kind -> what makes one, and how many of a hundred inputs are of that kind."""


def make(number: int, seed: int) -> tuple[str, Files]:
    """The kind and the files of input `number`: the same for the same number and seed."""
    kinds = [kind for kind, (_, share) in MAKERS.items() for _ in range(share)]
    kind = kinds[number % len(kinds)]
    return kind, MAKERS[kind][0](random.Random(f"{seed}/{kind}/{number}"))
