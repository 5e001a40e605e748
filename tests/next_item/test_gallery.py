"""The listings with their attributes: which source counts, and what is a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.attributes.views import open_views
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.listener import Silent
from afmrl_cli.next_item.gallery import Gallery, read_gallery
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

CATALOG = """id,title,category,brand,group_id,price,link,attr_color,attr_size,attr_features
A,Shirt,Wear > Shirts,Luma,S1,19.90,https://shop.example/a,Navy,XL,Two-Way Zip|Hood
B,Blouse,Wear > Shirts,Luma,S1,,javascript:alert(1),navy,M,
C,Hat,Wear > Hats,,,5,,,,42
"""


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    (tmp_path / "catalog.csv").write_text(CATALOG, "utf-8")
    settings = load_settings(tmp_path, {"model.preset": "nano"}, environment={})
    return Workspace(CatalogFolder(tmp_path / "catalog.csv"), settings, Silent())


def store(work: Workspace, texts: dict[str, str]) -> None:
    """Store attribute texts as the generator of the settings would."""
    source = work.source
    with open_views(work, source) as views:
        products = {each.id: each for each in read_products(work.folder, work.settings.catalog, Problems())}
        prints = views.fingerprints([products[name] for name in texts])
        rows = zip(prints, texts.items(), strict=True)
        views.database.put_attributes(
            [StoredAttributes(each, source.generator, source.prompt, *pair, None, 0.0) for each, pair in rows]
        )


def values(gallery: Gallery) -> list[list[str]]:
    return [[f"{key}={gallery.spelled[key, value]}" for key, value in each.values] for each in gallery.listings]


def test_the_shops_columns_are_values_without_sizes_and_numbers(work: Workspace) -> None:
    gallery = read_gallery(work)

    assert gallery.made_by == "given"
    assert values(gallery) == [
        ["color=Navy", "features=Two-Way Zip", "features=Hood", "category=Shirts", "brand=Luma"],
        ["color=Navy", "category=Shirts", "brand=Luma"],
        ["category=Hats"],
    ]
    assert [each.group for each in gallery.listings] == ["S1", "S1", "C"]
    assert [each.link for each in gallery.listings] == ["https://shop.example/a", "", ""]
    assert [each.price for each in gallery.listings] == ["19.90", "", "5"]
    assert not work.folder.database.exists(), "reading makes no database"


def test_what_a_generator_has_written_counts_where_it_covers_as_much(work: Workspace) -> None:
    store(work, {"A": "color: navy; fit: boxy, loose", "B": "color: navy", "C": "color: red; fit: unknown"})

    gallery = read_gallery(work)

    assert gallery.made_by == "generated"
    assert values(gallery) == [
        ["color=navy", "fit=boxy", "fit=loose", "category=Shirts", "brand=Luma"],
        ["color=navy", "category=Shirts", "brand=Luma"],
        ["color=red", "category=Hats"],
    ]


def test_what_a_generator_has_written_counts_where_the_shop_has_only_categories(work: Workspace) -> None:
    file = work.folder.catalog
    file.write_text("\n".join(row.rsplit(",", 3)[0] for row in CATALOG.splitlines()) + "\n", "utf-8")
    store(work, {"A": "colour: marine"})

    gallery = read_gallery(work)

    assert gallery.made_by == "generated"
    assert values(gallery)[0] == ["colour=marine", "category=Shirts", "brand=Luma"]
    assert values(gallery)[2] == ["category=Hats"]


def test_what_a_generator_has_written_of_few_listings_does_not_count(work: Workspace) -> None:
    store(work, {"A": "colour: marine"})

    gallery = read_gallery(work)

    assert gallery.made_by == "given"
    assert values(gallery)[0][0] == "color=Navy"
