"""Nested records of JSON and XML as rows: columns, attributes, photos and variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afmrl_cli.catalog.photo_cells import image_cells
from afmrl_cli.errors import DataError

from .shop import read, write
from .test_shops import photos_of

PRODUCT = {
    "itemId": "J1",
    "productName": "Felt hat",
    "longDescription": "Grey felt",
    "brand": {"name": "Umbra"},
    "category": {"id": 3, "name": "Hats"},
    "imageUrl": "https://i.test/1.jpg",
    "images": [{"url": "https://i.test/1.jpg"}, {"url": "https://i.test/2.jpg", "alt": "back"}],
    "attributes": [{"name": "Color", "value": "Grey"}, {"name": "Size", "value": ["S", "M"]}],
    "specs": {"Material": "Felt", "note": None},
    "gtin": 4006381333931,
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PRODUCT),
        json.dumps([PRODUCT], indent=1),
        json.dumps({"total": 1, "products": [PRODUCT]}),
        json.dumps({"status": {"code": 0}, "data": [PRODUCT]}, indent=2),
        "\ufeff" + json.dumps([PRODUCT]),
    ],
)
def test_json_in_lines_in_a_list_and_in_an_object(text: str, tmp_path: Path) -> None:
    (product,), problems = read(write(tmp_path / "a.json", text))
    assert (product.id, product.title, product.brand, product.category) == ("J1", "Felt hat", "Umbra", "Hats")
    assert product.given == {"category.id": "3", "Color": "Grey", "Size": "S|M", "Material": "Felt"}
    assert photos_of(problems) == {"J1": "1.jpg 2.jpg"} and product.product_id == "4006381333931"


def test_a_long_list_is_read_a_piece_at_a_time(tmp_path: Path) -> None:
    records = [{"id": i, "title": f"Hat {i}", "description": "x" * 500} for i in range(2000)]
    products, problems = read(write(tmp_path / "a.json", json.dumps(records)))
    assert [product.id for product in products] == [str(i) for i in range(2000)] and not problems.counts


@pytest.mark.parametrize("text", ['[{"id": 1}, {"id": 2', '[{"id": 1} {"id"}]', "[" * 100_000])
def test_a_list_that_breaks_off_is_one_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"after record|nested too deeply"):
        read(write(tmp_path / "a.json", text))


def test_what_is_no_object_in_a_list_is_reported(tmp_path: Path) -> None:
    products, problems = read(write(tmp_path / "a.json", '[{"id": 1, "title": "a"}, 7, {"id": 2, "title": "\\ud800"}]'))
    assert [product.id for product in products] == ["1"] and problems.counts == {"broken row": 2}


def test_variants_inside_of_a_product_are_listings(tmp_path: Path) -> None:
    record = {
        "id": 9,
        "title": "Pod",
        "vendor": "Lumo",
        "options": [{"name": "Color", "values": ["Pink", "Red"]}],
        "images": [{"src": "https://i.test/1.jpg"}],
        "variants": [{"id": 91, "title": "Pink", "sku": "P-P"}, {"id": 92, "title": "Red", "sku": "P-R"}],
    }
    products, problems = read(write(tmp_path / "a.json", json.dumps({"products": [record]})))
    assert [(p.id, p.title, p.brand, p.group_id) for p in products] == [
        ("91", "Pod Pink", "Lumo", "9"),
        ("92", "Pod Red", "Lumo", "9"),
    ]
    assert [p.given["Color"] for p in products] == ["Pink", "Red"]
    assert photos_of(problems) == {"91": "1.jpg", "92": "1.jpg"}


IMAGE = "https://i.test/"
RECORDS: dict[str, tuple[dict[str, object], list[tuple[str, str, str, str, dict[str, str]]]]] = {
    "JSON:API": (
        {
            "data": [
                {
                    "type": "products",
                    "id": id,
                    "attributes": {"productName": name, "imageUrls": [f"{IMAGE}{id}.jpg"], "colorName": "Red"},
                    "relationships": {"category": {"data": {"type": "categories", "id": "9"}}},
                }
                for id, name in (("J1", "Shirt"), ("J2", "Mug"))
            ]
        },
        [("J1", "Shirt", "", "J1.jpg", {"colorName": "Red"}), ("J2", "Mug", "", "J2.jpg", {"colorName": "Red"})],
    ),
    "variants whose photos are known": (
        {
            "products": [
                {
                    "id": 7,
                    "title": "Tee",
                    "variants": [{"id": 1, "title": "Red"}, {"id": 2, "title": "Blue"}],
                    "images": [
                        {"id": 11, "src": f"{IMAGE}all.jpg", "variant_ids": []},
                        {"id": 12, "src": f"{IMAGE}red.jpg", "variant_ids": [1]},
                        {"id": 13, "src": f"{IMAGE}blue.jpg", "variant_ids": [2]},
                    ],
                }
            ]
        },
        [("1", "Tee Red", "7", "red.jpg all.jpg", {}), ("2", "Tee Blue", "7", "blue.jpg all.jpg", {})],
    ),
    "commercetools": (
        {
            "results": [
                {
                    "id": uuid,
                    "masterData": {
                        "current": {
                            "name": {"en": name, "de": "-"},
                            "masterVariant": {"id": 1, "sku": f"{uuid}-R", "images": [{"url": f"{IMAGE}r.jpg"}],
                                              "attributes": [{"name": "color", "value": {"key": "r", "label": "Red"}}]},
                            "variants": [{"id": 2, "sku": f"{uuid}-B", "images": [{"url": f"{IMAGE}b.jpg"}],
                                          "attributes": [{"name": "color", "value": {"key": "b", "label": "Blue"}}]}],
                        }
                    },
                }
                for uuid, name in (("u1", "Shirt"), ("u2", "Mug"))
            ]
        },
        [
            ("u1-R", "Shirt", "u1", "r.jpg", {"color": "Red"}),
            ("u1-B", "Shirt", "u1", "b.jpg", {"color": "Blue"}),
            ("u2-R", "Mug", "u2", "r.jpg", {"color": "Red"}),
            ("u2-B", "Mug", "u2", "b.jpg", {"color": "Blue"}),
        ],
    ),
    "variants of variants": (
        {
            "items": [
                {
                    "product_model_attributes": {"name": "Shirt", "description": {"de": "Hemd", "en": "A shirt"}},
                    "product_configs": [
                        {
                            "merchant_product_config_id": "LS-W",
                            "media": [{"media_path": f"{IMAGE}1.jpg"}, {"media_path": f"{IMAGE}2.jpg"}],
                            "product_simples": [
                                {"merchant_product_simple_id": f"LS-{size}", "ean": ean, "size": size}
                                for size, ean in (("S", "4006381333931"), ("M", "4006381333948"))
                            ],
                        }
                    ],
                }
            ]
        },
        [
            ("4006381333931", "Shirt", "LS-W", "1.jpg 2.jpg", {"size": "S"}),
            ("4006381333948", "Shirt", "LS-W", "1.jpg 2.jpg", {"size": "M"}),
        ],
    ),
    "a description around other columns, and assets of several kinds": (
        {
            "productVariations": [
                {
                    "productReference": "LS",
                    "sku": f"LS-{size}",
                    "productDescription": {"category": "Hemd", "brand": "Lumo", "productLine": "Leinenhemd",
                                           "attributes": [{"name": "Material", "values": ["Leinen", "Wolle"]}]},
                    "mediaAssets": [{"type": "IMAGE", "location": f"{IMAGE}1.jpg"},
                                    {"type": "MANUAL", "location": f"{IMAGE}media/1.pdf"}],
                }
                for size in ("S", "M")
            ]
        },
        [
            ("LS-S", "Leinenhemd", "LS", "1.jpg", {"Material": "Leinen|Wolle"}),
            ("LS-M", "Leinenhemd", "LS", "1.jpg", {"Material": "Leinen|Wolle"}),
        ],
    ),
    "texts that say their language": (
        {
            "listings": [
                {
                    "item_id": "B1",
                    "item_name": [
                        {"language_tag": "de_DE", "value": "Hemd"},
                        {"language_tag": "en_US", "value": "Shirt"},
                    ],
                    "color": [{"language_tag": "en_US", "value": "Red", "standardized_values": ["Red"]}],
                },
                {"item_id": "B2", "item_name": [{"language_tag": "en_US", "value": "Mug"}]},
            ]
        },
        [("B1", "Shirt", "", "", {"color": "Red"}), ("B2", "Mug", "", "", {})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_nested_records_give_the_shops_listings(name: str, tmp_path: Path) -> None:
    document, listings = RECORDS[name]
    products, problems = read(write(tmp_path / "a.json", json.dumps(document)))
    photos = photos_of(problems)
    assert [(p.id, p.title, p.group_id or "", photos.get(p.id, "")) for p in products] == [
        each[:4] for each in listings
    ]
    for product, listing in zip(products, listings, strict=True):
        assert listing[4].items() <= dict(product.given).items()
    assert not problems.errors


def test_a_list_may_hold_an_object_around_the_products(tmp_path: Path) -> None:
    assets = [{"salsify:id": "a1", "salsify:url": "https://i.test/1.jpg"}]
    records = [{"salsify:id": "S1", "Product Name": "Shirt", "salsify:digital_assets": assets}]
    text = json.dumps([{"header": {"version": "3.0"}}, {"products": records}])
    products, problems = read(write(tmp_path / "a.json", text))
    assert [(p.id, p.title) for p in products] == [("S1", "Shirt")] and photos_of(problems) == {"S1": "1.jpg"}


FEEDS = {
    "a list of products": (
        '<products><product id="A-1"><name>Pot</name><images><image>https://i.test/1.jpg</image><image '
        'url="https://i.test/2.jpg"/></images></product></products>',
        ("A-1", "Pot", "1.jpg 2.jpg", {}),
    ),
    "Yandex": (
        '<yml_catalog><shop><name>S</name><offers><offer id="158" group_id="7"><name>Tee</name><vendor>Lumo</vendor>'
        "<picture>https://i.test/1.jpg</picture><picture>https://i.test/2.jpg</picture>"
        '<param name="Color">Red</param><param name="Size" unit="INT">M</param></offer></offers></shop></yml_catalog>',
        ("158", "Tee", "1.jpg 2.jpg", {"Color": "Red", "Size": "M"}),
    ),
    "Heureka": (
        "<SHOP><SHOPITEM><ITEM_ID>AB</ITEM_ID><PRODUCTNAME>Boty</PRODUCTNAME><IMGURL>https://i.test/1.jpg</IMGURL>"
        "<IMGURL_ALTERNATIVE>https://i.test/2.jpg</IMGURL_ALTERNATIVE><PARAM><PARAM_NAME>Barva</PARAM_NAME><VAL>bílá"
        "</VAL></PARAM></SHOPITEM></SHOP>",
        ("AB", "Boty", "1.jpg 2.jpg", {"Barva": "bílá"}),
    ),
    "Ceneo": (
        '<offers><o id="1" price="10"><name>Kubek</name><imgs><main url="https://i.test/1.jpg"/>'
        '<i url="https://i.test/2.jpg"/></imgs><attrs><a name="Kolor">biały</a></attrs></o><o id="2"><name>x</name></o>'
        "</offers>",
        ("1", "Kubek", "1.jpg 2.jpg", {"Kolor": "biały", "price": "10"}),
    ),
    "Salesforce": (
        '<catalog xmlns="http://x.test/1"><product product-id="P1"><display-name xml:lang="de">Hemd</display-name>'
        '<display-name xml:lang="x-default">Shirt</display-name><images><image-group view-type="large"><image '
        'path="https://i.test/1.jpg"/></image-group><image-group view-type="small"><image path="https://i.test/s.jpg"/>'
        '</image-group></images><custom-attributes><custom-attribute attribute-id="color">blue</custom-attribute>'
        "</custom-attributes></product></catalog>",
        ("P1", "Shirt", "1.jpg", {"color": "blue"}),
    ),
    "Salesforce, whose masters list their variants": (
        '<catalog><product product-id="M"><display-name>Shirt</display-name><images><image path="https://i.test/1.jpg"/>'
        '</images><variations><variants><variant product-id="V1"/><variant product-id="V2"/></variants></variations>'
        '</product><product product-id="V1"><ean>4006381333931</ean></product><product product-id="V2"><ean/></product>'
        "</catalog>",
        ("V1", "Shirt", "1.jpg", {}),
    ),
    "BMEcat": (
        '<BMECAT><T_NEW_CATALOG><PRODUCT><SUPPLIER_PID type="x">B1</SUPPLIER_PID><PRODUCT_DETAILS><DESCRIPTION_SHORT>'
        "Hammer</DESCRIPTION_SHORT><MANUFACTURER_NAME>Lumo</MANUFACTURER_NAME></PRODUCT_DETAILS><PRODUCT_FEATURES>"
        "<FEATURE><FNAME>Farbe</FNAME><FVALUE>rot</FVALUE></FEATURE></PRODUCT_FEATURES><MIME_INFO><MIME><MIME_SOURCE>"
        "https://i.test/1.jpg</MIME_SOURCE></MIME><MIME><MIME_SOURCE>d.pdf</MIME_SOURCE></MIME></MIME_INFO></PRODUCT>"
        '<PRODUCT><SUPPLIER_PID type="x">B2</SUPPLIER_PID></PRODUCT></T_NEW_CATALOG></BMECAT>',
        ("B1", "Hammer", "1.jpg", {"Farbe": "rot"}),
    ),
}


@pytest.mark.parametrize("name", FEEDS)
def test_feeds_in_xml(name: str, tmp_path: Path) -> None:
    text, (id, title, names, attributes) = FEEDS[name]
    products, problems = read(write(tmp_path / "a.xml", '<?xml version="1.0" encoding="UTF-8"?>' + text))
    assert (products[0].id, products[0].title, photos_of(problems)[id]) == (id, title, names)
    assert attributes.items() <= dict(products[0].given).items()


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['a.jpg', 'b.jpg']", ["a.jpg", "b.jpg"]),
        ('["a.jpg"]', ["a.jpg"]),
        ('[{"src": "a.jpg"}, {"url": "b.jpg", "alt": "x"}]', ["a.jpg", "b.jpg"]),
        ("{a.jpg,b.jpg}", ["a.jpg", "b.jpg"]),
        ('<img src="https://i.test/a.jpg" alt="x"><br><img src=b.jpg>', ["https://i.test/a.jpg", "b.jpg"]),
        ("//i.test/a.jpg,//i.test/b.jpg", ["//i.test/a.jpg", "//i.test/b.jpg"]),
        ("https://i.test/1,https://i.test/2 https://i.test/3", [f"https://i.test/{i}" for i in (1, 2, 3)]),
        ("https://i.test/c_fill,w_400/a.jpg", ["https://i.test/c_fill,w_400/a.jpg"]),
        ("https://i.test/a.jpg?w=1&amp;h=2", ["https://i.test/a.jpg?w=1&h=2"]),
        ("www.i.test/a.jpg", ["https://www.i.test/a.jpg"]),
        ('=HYPERLINK("https://i.test/a.jpg", "photo")', ["https://i.test/a.jpg"]),
        ("a.jpg b.jpg", ["a.jpg", "b.jpg"]),
        ("my photo.jpg", ["my photo.jpg"]),
        ("'a.jpg'", ["a.jpg"]),
        ("a.jpg::Front view", ["a.jpg"]),
        ("a.jpg ! alt : Front", ["a.jpg"]),
        ("[broken", ["[broken"]),
    ],
)
def test_the_photos_of_a_cell(cell: str, names: list[str]) -> None:
    assert image_cells(cell, "") == names
