"""A drawn shop with shoppers, without most of its photos, and its vectors by nano."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from afmrl_cli.nano.shop import ShopPlan, catalog_text, plan_listings
from afmrl_cli.nano.shoppers import interactions_text, plan_shoppers
from tests.cli.calls import call

PHOTOS = 3


def text_shop(root: Path, products: int, shoppers: int, seed: int) -> Path:
    """A shop whose first listings alone have a photo."""
    root.mkdir()
    listings = plan_listings(ShopPlan(products, seed))
    rows = list(csv.DictReader(io.StringIO(catalog_text(listings))))
    for number, row in enumerate(rows):
        row["image"] = "photo.png" if number < PHOTOS else ""
    with (root / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    Image.new("RGB", (32, 32), "teal").save(root / "photo.png")
    events, _ = plan_shoppers(listings, shoppers, seed)
    (root / "interactions.csv").write_text(interactions_text(events), "utf-8")
    (root / "afmrl.toml").write_text('[model]\npreset = "nano"\n', "utf-8")
    return root


@pytest.fixture(scope="session")
def embedded_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = text_shop(tmp_path_factory.mktemp("drawn") / "shop", 60, 80, 3)
    assert call("embed", str(root), "--quiet").exit_code == 0
    assert call("interactions", str(root), "--quiet").exit_code == 0
    return root


@pytest.fixture
def shop(embedded_shop: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(embedded_shop, tmp_path / "shop", copy_function=shutil.copy2))


@pytest.fixture
def recommend(embedded_shop: Path) -> Callable[..., list[str]]:
    """The words of a call on the shop that no test changes."""
    return lambda *words: ["recommend", "--catalog", str(embedded_shop), *words]
