from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.catalog.column_names import COMMON
from afmrl_cli.catalog.columns import ColumnMap, map_columns
from afmrl_cli.catalog.name_forms import plain
from afmrl_cli.errors import DataError
from afmrl_cli.settings import Columns

FILE = Path("shop/catalog.csv")


def roles(names: str, **columns: object) -> dict[str, list[str]]:
    mapped = map_columns(names.split(","), Columns.model_validate(columns), FILE)
    return {role: mapped.read_as(role) for role in mapped.roles}


def given(names: str) -> list[str]:
    mapped: ColumnMap = map_columns(names.split(","), Columns(), FILE)
    return [key for _, key in mapped.given]


def test_common_names_are_written_as_they_are_compared() -> None:
    assert all(plain(name) == name for names in COMMON.values() for name in names)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Artikelnummer,Bezeichnung,Beschreibung,Kategorie,Marke,Bild", "title=Bezeichnung brand=Marke image=Bild"),
        ("Référence,Désignation,Catégorie,Marque,Photo", "id=Référence title=Désignation category=Catégorie"),
        ("Referencia,Título,Descripción,Categoría,Marca,Imagen", "title=Título brand=Marca image=Imagen"),
        ("Artikelnummer,Produktnamn,Beskrivning,Varumärke,Bild", "title=Produktnamn brand=Varumärke"),
        ("SKU,Product Name,Item-Group-ID,EAN", "id=SKU title=Product Name group_id=Item-Group-ID product_id=EAN"),
        ("g:id,g:title,g:image_link,g:gtin", "id=g:id title=g:title image=g:image_link product_id=g:gtin"),
    ],
)
def test_common_names(header: str, expected: str) -> None:
    found = roles(header)
    for pair in expected.replace("Product Name", "Product_Name").split():
        role, column = pair.split("=")
        assert found[role] == [column.replace("Product_Name", "Product Name")]


def test_the_identity_stands_in_for_a_missing_id_and_is_then_no_identity() -> None:
    assert roles("product_id,name,ean") == {"id": ["product_id"], "title": ["name"], "product_id": ["ean"]}
    assert roles("ean,name") == {"id": ["ean"], "title": ["name"]}


def test_a_path_wins_over_a_link_and_further_photos_are_all_read() -> None:
    assert roles("id,image_url,image,image_2,image_10,additional_images")["image"] == [
        "image",
        "image_2",
        "image_10",
        "additional_images",
    ]
    assert roles("id,image_url")["image"] == ["image_url"]
    assert roles("id,image1,image2")["image"] == ["image1", "image2"]


def test_of_two_columns_of_one_name_the_first_counts() -> None:
    assert roles("id,Title,title,TITLE") == {"id": ["id"], "title": ["Title"]}
    assert roles("id,Name (EN),name_en")["title"] == ["Name (EN)"]


def test_settings_win_and_may_join_columns() -> None:
    assert roles("id,title,name,sub", title=["name", "sub"])["title"] == ["name", "sub"]
    assert roles("nr,title", id="NR ")["id"] == ["nr"]


def test_other_columns_are_given_without_their_prefix_unless_it_collides() -> None:
    assert given("id,brand,attr_brand,attr_color,attr_size,size,price,attr_") == [
        "attr_brand",
        "color",
        "attr_size",
        "size",
        "price",
        "attr_",
    ]


@pytest.mark.parametrize(
    ("names", "columns", "words"),
    [
        ("titel,preis", {}, "no id column; the columns are: titel, preis"),
        ("id,colour,titles", {"title": "titel"}, "catalog.columns.title names 'titel'"),
        ("id,name,name", {}, "row 1: column 'name' stands twice (columns 2 and 3)"),
    ],
)
def test_what_can_not_be_mapped_is_reported(names: str, columns: dict[str, str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        roles(names, **columns)
    assert words in str(caught.value) and "catalog.csv" in str(caught.value) and caught.value.hint


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        roles("id,Colour,Titles", title="titel")
    assert caught.value.hint == "did you mean Titles?"
