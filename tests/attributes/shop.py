"""A small shop in a folder, and a model at an endpoint that answers from the prompt alone."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from tests.chat_server import COLORS, Reply
from tests.tiny import photo

HEADER = ("id", "title", "description", "category", "image", "attr_color")


def make_shop(root: Path, products: int = 12, photos: bool = True) -> CatalogFolder:
    """`products` rows with a photo each."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(products):
        name = f"images/{i}.png" if photos else ""
        if photos:
            photo(i, 40, 30).save(root / name)
        category = "Clothing/Tops" if i % 2 else "Clothing/Shoes"
        rows.append((f"sku{i}", f"Item {i}", f"The item with number {i}", category, name, "secret"))
    write_catalog(root, rows)
    return CatalogFolder(root / "catalog.csv")


def write_catalog(root: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with (root / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def read_catalog(root: Path) -> list[tuple[str, ...]]:
    with (root / "catalog.csv").open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def answer(number: int, body: dict[str, Any]) -> Reply:
    """A colour that depends on what was asked, photos included, and on nothing else."""
    digest = hashlib.sha256(repr(body["messages"]).encode()).digest()
    return Reply(text=f"color: {COLORS[digest[0] % 3]}; code: {digest.hex()[:8]}")


def stored(folder: CatalogFolder) -> dict[str, StoredAttributes]:
    """All rows of the database by listing, as they are."""
    import sqlite3

    with Database(folder.database):
        pass
    connection = sqlite3.connect(folder.database)
    rows = connection.execute(
        "SELECT fingerprint, generator, prompt, listing, text, failure, created, viewed, confidence FROM attributes"
    ).fetchall()
    connection.close()
    return {row[3]: StoredAttributes(*row) for row in rows}


def texts(folder: CatalogFolder) -> dict[str, tuple[str, str | None]]:
    return {listing: (row.text, row.failure) for listing, row in stored(folder).items()}
