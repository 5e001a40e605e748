"""The built-in model is for drawn shops; on any other catalog a command says so, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.catalog.rendered import built_in_warning
from afmrl_cli.cli.app import app
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.settings import ModelSettings, Settings
from afmrl_cli.store.checkpoints import Role
from afmrl_cli.store.folder import CatalogFolder

NANO = Settings(model=ModelSettings(preset="nano"))
BOTH: tuple[Role, ...] = ("generator", "embedder")


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 40), "navy").save(tmp_path / "images" / "a.jpg", comment="holiday")
    (tmp_path / "catalog.csv").write_text("id,title,image\n1,Bag,images/a.jpg\n2,Hat,images/gone.jpg\n")
    return CatalogFolder(tmp_path / "catalog.csv")


def test_a_photographed_shop_is_no_drawn_one(shop: CatalogFolder) -> None:
    line = built_in_warning(shop, NANO, BOTH)
    assert "only seen drawn clothes" in line and 'model.preset = "auto"' in line and "\n" not in line


def test_a_shop_without_photos_is_none_either(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,Bag\n")
    assert built_in_warning(CatalogFolder(tmp_path / "catalog.csv"), NANO, ("embedder",))


def test_nothing_is_said_of_the_shops_that_it_knows(tmp_path: Path) -> None:
    write_shop(tmp_path, ShopPlan(2, text_queries=0, photo_queries=0, size=32))
    assert built_in_warning(CatalogFolder(tmp_path / "catalog.csv"), NANO, BOTH) == ""


@pytest.mark.parametrize(
    ("changes", "roles", "said"),
    [
        ({"model": {"preset": "qwen3"}}, BOTH, False),
        ({"model": {"preset": "nano", "embedder": "Qwen/Qwen2-VL-2B-Instruct"}}, ("embedder",), False),
        ({"model": {"preset": "nano", "embedder": "Qwen/Qwen2-VL-2B-Instruct"}}, BOTH, True),
        ({"model": {"preset": "nano"}, "attributes": {"endpoint": "http://127.0.0.1:1"}}, ("generator",), False),
        ({"model": {"preset": "nano"}, "attributes": {"endpoint": "http://127.0.0.1:1"}}, BOTH, True),
    ],
)
def test_it_is_about_the_models_that_work(
    shop: CatalogFolder, changes: dict[str, object], roles: tuple[str, ...], said: bool
) -> None:
    assert bool(built_in_warning(shop, Settings.model_validate(changes), roles)) is said  # type: ignore[arg-type]


def test_check_says_it(shop: CatalogFolder) -> None:
    done = CliRunner().invoke(app, ["check", str(shop.root)])
    assert done.stderr.count("only seen drawn clothes") == 1


def test_one_drawing_among_photos_makes_no_drawn_shop(tmp_path: Path) -> None:
    write_shop(tmp_path, ShopPlan(6, 3, text_queries=0, photo_queries=0))
    photos = sorted((tmp_path / "images").iterdir())
    for photo in photos[1:]:
        Image.new("RGB", (32, 32), "navy").save(photo)
    assert built_in_warning(CatalogFolder(tmp_path / "catalog.csv"), NANO, BOTH)
