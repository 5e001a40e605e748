"""Which photos the vision encoder learns from, in which classes, and what is left out."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.errors import AfmrlError, DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.saga.photos import ALONE, MORE, NO_PHOTO, REPEATED, SHARED, UNREADABLE, LoadedPhotos, load_photos
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.tiny import photo

MakeSettings = Callable[..., Settings]


def load(folder: CatalogFolder, settings: Settings) -> LoadedPhotos:
    return load_photos(Workspace(folder, settings, Silent()), Problems())


def rewrite(folder: CatalogFolder, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    with folder.catalog.open(newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with folder.catalog.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def draw(folder: CatalogFolder) -> None:
    """Give every photo a content of its own."""
    for i, path in enumerate(sorted((folder.root / "images").iterdir())):
        photo(i).save(path)


def test_classes_by_identity(shop: CatalogFolder, settings: MakeSettings) -> None:
    draw(shop)
    found = load(shop, settings())
    products = {product.id: product for product in read_products(shop, settings().catalog, Problems())}
    for side, photos in (("train", found.train), ("validation", found.validation)):
        assert {split_of(products[each.listing], settings().split) for each in photos.photos} == {side}
        sizes = Counter(each.label for each in photos.photos)
        assert sorted(sizes) == list(range(len(photos.classes))) and set(sizes.values()) == {4}
        for each in photos.photos:
            assert photos.classes[each.label] == each.identity == products[each.listing].product_id
            assert each.pairs["colour"] == products[each.listing].given["colour"]
    assert list(found.keys) == ["colour", "neckline", "series"] and found.source == "columns colour, neckline, series"
    assert not found.left_out and not found.unknown


def test_classes_by_columns_and_keys(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Values are compared folded, a field of the product counts too, and a listing without one of them is left out."""
    draw(shop)
    changed = {"red": "RED", "blue": ""}
    rewrite(
        shop,
        lambda row: (
            row | {"attr_colour": changed.get(row["attr_colour"], row["attr_colour"])}
            if row["id"].endswith("-1")
            else row
        ),
    )
    found = load(shop, settings(**{"vision.classes": ["attr_colour", "category"]}))
    names = {photo.listing: found.train.classes[photo.label] for photo in found.train.photos}
    assert {"red, tops", "blue, shirts"} <= set(names.values()) and "RED, tops" not in names.values()
    assert found.left_out["listings without attr_colour"] == sum(
        row.endswith("-0") and found_name == "blue, shirts"
        for part in (found.train, found.validation)
        for row, found_name in {p.listing: part.classes[p.label] for p in part.photos}.items()
    )
    with_schema = load(shop, settings(**{"vision.classes": "Colour", "attributes.keys.colour.values": COLOURS}))
    assert with_schema.keys == {"colour": tuple(COLOURS)}
    by_category = load(shop, settings(**{"vision.classes": "category", "attributes.keys.category.values": []}))
    assert set(by_category.keys) == {"category"}, "a key of the schema that no column but the category answers"
    assert all(photo.pairs["category"] for photo in by_category.train.photos)


COLOURS = ["red", "blue", "green", "black", "white", "grey", "pink", "brown"]


def test_what_is_left_out_is_counted(shop: CatalogFolder, settings: MakeSettings) -> None:
    draw(shop)
    train = sorted({each.listing for each in load(shop, settings()).train.photos})
    (one, other, third), images = train[:6:2], shop.root / "images"

    def file(listing: str, number: int) -> Path:
        return images / f"{listing[1:]}-{number}.png"

    file(one, 0).write_bytes(b"no photo")
    shutil.copy(file(one, 1), file(other, 0))
    shutil.copy(file(third, 0), file(third, 1))
    alone = train[6:8]
    rewrite(
        shop,
        lambda row: (
            row
            | ({"image": row["image"].split("|")[0]} if row["id"] == alone[0] else {})
            | ({"image": ""} if row["id"] == alone[1] else {})
        ),
    )
    found = load(shop, settings())
    assert found.left_out == {UNREADABLE: 1, SHARED: 2, REPEATED: 1, NO_PHOTO: 1, ALONE: 1}
    assert alone[0] not in {each.listing for each in found.train.photos}


def test_a_sample_of_the_validation_photos_keeps_pairs(shop: CatalogFolder, settings: MakeSettings) -> None:
    draw(shop)
    whole = load(shop, settings())
    most = 2 * len(whole.validation.classes)
    sample = load(shop, settings(**{"vision.validation_photos": most}))
    assert set(Counter(each.label for each in sample.validation.photos).values()) == {2}
    assert sample.validation.classes == whole.validation.classes and sample.left_out == {MORE: most}
    few = load(shop, settings(**{"vision.validation_photos": 6}))
    assert len(few.validation.classes) == 3 and len(few.validation.photos) == 6
    assert few.train == whole.train and few.fingerprint != whole.fingerprint


def test_verdicts_make_and_part_identities(shop: CatalogFolder, settings: MakeSettings) -> None:
    draw(shop)
    one, same, other, *_ = sorted({each.listing for each in load(shop, settings()).train.photos})
    (shop.root / "verdicts.csv").write_text(
        f"id,other_id,verdict\n{one},{other},same\n" + "".join(f"{each}-0,{each}-1,different\n" for each in ["S9"])
    )
    assert one.endswith("-0") and same.endswith("-1")
    found = load(shop, settings(**{"dedupe.verdicts": "verdicts.csv"}))
    label = {each.listing: each.label for part in (found.train, found.validation) for each in part.photos}
    assert label[one] == label[other] == label[same]
    assert label.get("S9-0") != label.get("S9-1")


def test_the_fingerprint_is_of_all_that_is_seen(shop: CatalogFolder, settings: MakeSettings) -> None:
    draw(shop)
    first = load(shop, settings()).fingerprint
    assert load(shop, settings()).fingerprint == first
    rewrite(shop, lambda row: row | {"title": "another"})
    assert load(shop, settings()).fingerprint == first, "no text is seen"
    rewrite(shop, lambda row: row | {"attr_colour": "teal" if row["attr_colour"] == "red" else row["attr_colour"]})
    assert load(shop, settings()).fingerprint != first


def test_without_known_attributes_photos_are_there(shop: CatalogFolder, settings: MakeSettings) -> None:
    rewrite(shop, lambda row: {key: value for key, value in row.items() if not key.startswith("attr_")})
    draw(shop)
    found = load(shop, settings(**{"vision.classes": "category"}))
    assert found.train.classes == ("tops", "shirts") or sorted(found.train.classes) == ["shirts", "tops"]
    assert list(found.keys) == ["category"] and not found.source
    assert {each.pairs["category"] for each in found.train.photos} == {"tops", "shirts"}
    by_product = load(shop, settings())
    assert not any(each.pairs for each in by_product.train.photos) and not by_product.keys
    assert found.unknown["no source"] > 0


BAD: list[tuple[dict[str, object], type[AfmrlError], str]] = [
    ({"vision.classes": "colr"}, UsageError, "'colr' is no column and no key"),
    ({"vision.classes": "title"}, UsageError, "'title' is no column and no key"),
    ({"vision.classes": "id"}, UsageError, "'id' is no column and no key"),
    ({"vision.classes": "kind"}, DataError, "1 of the training classes .by kind. has two photos"),
    (
        {"vision.classes": "attr_colour", "attributes.keys.kind.values": ["shirt"]},
        DataError,
        "no verdict depends on this schema: classes .by attr_colour. are alike in each of its keys .kind.",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(
    shop: CatalogFolder, settings: MakeSettings, changes: dict[str, object], kind: type[AfmrlError], message: str
) -> None:
    rewrite(shop, lambda row: row | {"attr_kind": "shirt"})
    with pytest.raises(kind, match=message) as error:
        load(shop, settings(**changes))
    assert error.value.hint and "\n" not in str(error.value)
