"""A small catalog of our own, and its embedding with a tiny real model."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afmrl_cli.attributes.views import AttributeSource, open_views
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Encoder, Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.presets import model_id
from afmrl_cli.retrieval.embed import EmbedSummary, embed_catalog
from afmrl_cli.retrieval.vectors import RowMaker
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO

COLORS = ("red", "green", "blue", "black", "orange", "purple")
COLUMNS = ("id", "product_id", "title", "description", "category", "brand", "image", "attr_color", "price")
Row = dict[str, str]


def draw(path: Path, color: str, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (56, 56), "white")
    ImageDraw.Draw(image).rectangle((8 + seed % 5, 8, 44, 40 + seed % 7), fill=color)
    image.save(path)


def shop_rows(count: int = 12) -> list[Row]:
    """Listings in pairs of one product: same colour, other words and photos; every third has two photos."""
    rows = []
    for i in range(count):
        color = COLORS[i // 2 % len(COLORS)]
        images = [f"images/{i}.png"] + ([f"images/{i}b.png"] if i % 3 == 0 else [])
        rows.append(
            {
                "id": f"s{i}",
                "product_id": f"p{i // 2}",
                "title": f"{color.title()} shirt {i}",
                "description": "Cotton" if i % 2 else "Linen, short sleeves",
                "category": "Women/Tops" if i % 4 < 2 else "Men/Tops",
                "brand": "Luma" if i < 6 else "Acme",
                "image": "|".join(images),
                "attr_color": color,
                "price": str(10 + i),
            }
        )
    return rows


def write_catalog(root: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """catalog.csv alone."""
    with (root / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_shop(root: Path, rows: Sequence[Row]) -> CatalogFolder:
    """catalog.csv and every photo that the rows name and that is not there yet."""
    root.mkdir(parents=True, exist_ok=True)
    write_catalog(root, rows, COLUMNS)
    for i, row in enumerate(rows):
        for name in filter(None, row["image"].split("|")):
            if not (root / name).exists():
                draw(root / name, row["attr_color"] or "gray", i + 3 * name.count("b."))
    return CatalogFolder(root / "catalog.csv")


def settings_of(model: Path, **flags: object) -> Settings:
    base = {"model.embedder": str(model), "model.device": "cpu", "model.max_pixels": 56 * 56}
    return load_settings(None, {**base, **flags}, NANO)


class Counting:
    """A real embedder that notes what it was asked for."""

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self.loads = 0
        self.encoded = 0

    def __call__(self) -> Encoder:
        if not self.loads:
            self.loads, self._inner = 1, self._load()
        return self

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def texts_cut(self) -> int:
        return self._inner.texts_cut

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        self.encoded += len(items)
        return self._inner.encode(items, instruction=instruction)


def counting(folder: CatalogFolder, settings: Settings) -> Counting:
    checkpoints = Checkpoints(folder.checkpoints)
    return Counting(lambda: load_embedder(settings.model, settings.embed, checkpoints))


def embedder_id(folder: CatalogFolder, settings: Settings) -> str:
    return model_id(settings.model, "embedder", Checkpoints(folder.checkpoints))


def work_of(folder: CatalogFolder, settings: Settings | None = None, embedder_id: str = "") -> Workspace:
    work = Workspace(folder, settings or load_settings(None, {}, NANO), Silent())
    if embedder_id:
        work.embedder_id = embedder_id
    return work


def embed(
    folder: CatalogFolder,
    settings: Settings,
    load: Callable[[], Encoder] | None = None,
    source: AttributeSource | None = None,
    force: bool = False,
) -> EmbedSummary:
    work = Workspace(folder, settings, Silent(), load_encoder=load or counting(folder, settings))
    if source is not None:
        work.source = source  # of answers that the test stored
    return embed_catalog(work, force=force)


@contextlib.contextmanager
def rows_of(
    folder: CatalogFolder, settings: Settings | None = None, source: AttributeSource | None = None
) -> Iterator[RowMaker]:
    """What describes the catalog's products."""
    work = work_of(folder, settings)
    with open_views(work, source) as views:
        yield RowMaker(work, views)
