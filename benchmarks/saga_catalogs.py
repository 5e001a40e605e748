"""The catalogs of `benchmarks.saga`: whole classes are train, validation or test, so that those of the test split are
never trained on.

A split of the catalog goes by identity, so that here the class is written as the listing's `product_id`; what else the
listing is, text above all, is left out: photos only. Which classes are held out follows from the seed, by a salt under
which half of them are test and a sixth (three at least) validation.

    category+pattern, colour   drawn shops (`nano.shop`) of garments that have nothing else in common
    identity                   a drawn shop whose products are listed twice, the second time with photos taken by phone,
                               and whose styles come in several colours; the split is that of products
    luma, myntra, grocery      real catalogs: type and gender, type, type

`truth.json` beside the catalog holds of each photo its class and its group: photos of one group (a listing; of real
catalogs a style, whose colours are often one shot) must not find each other.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.nano.garment import Garment
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.settings import SplitSettings
from afmrl_cli.store.folder import CatalogFolder

KINDS: Mapping[str, tuple[str, ...]] = {
    "category+pattern": ("attr_category", "pattern"),
    "colour": ("colour",),
    "identity": (),
    "luma": ("garment", "gender"),
    "myntra": ("type",),
    "grocery": ("type",),
}
"""What makes a class: keys whose values do, none for the product's identity."""
DRAWN = ("category+pattern", "colour", "identity")
VALIDATION, LEAST = 1 / 6, 3
TEST, TEST_OF_FEW, FEW = 0.5, 0.4, 20
"""Share of the classes; and where there are no more than FEW, so that some are left to learn from."""
SHOWN = ("category", "colour", "pattern", "length")
"""The schema of the drawn shops: some of the eleven keys, so that an answer about two photos is short."""
TRUTH = "truth.json"
SIZE = 224
"""Side of a drawn photo in pixels: four times what nano reads."""


@dataclass(frozen=True)
class Row:
    """A listing: the photos (paths), its class, whom it must not find, and its known attributes."""

    id: str
    photos: tuple[str, ...]
    label: str
    group: str
    attributes: Mapping[str, str]


def catalog_of(work: Path, kind: str, seed: int, wanted: Sizes, data: Path | None) -> CatalogFolder:
    """Return the catalog of a kind of class and a seed, written where it is not there."""
    place = work / f"{kind}-{seed}"
    if not (place / "catalog.csv").is_file():
        if kind in DRAWN:
            rows, photos = _drawn(work, kind, seed, wanted)
        else:
            assert data is not None, "real catalogs need --data"
            rows, photos = READERS[kind](data / kind, seed, wanted), data / kind / "images"
        write_catalog(place, kind, rows, photos, seed)
    return CatalogFolder(place / "catalog.csv")


@dataclass(frozen=True)
class Sizes:
    """How large the catalogs are: products of a drawn shop, listings of a class of a real one."""

    products: int = 300
    listings: int = 20


def write_catalog(place: Path, kind: str, rows: Sequence[Row], photos: Path, seed: int) -> None:
    """Write catalog, schema, truth and the split's settings; the catalog last, by which it is known as complete."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "images").exists():
        (place / "images").symlink_to(photos.resolve())
    keys = {key for row in rows for key in row.attributes}
    lines = []
    # Without values, which would make the question twice as long.
    lines += [f'[attributes.keys."{key}"]\nvalues = []\n' for key in sorted(keys)]
    split = split_settings(kind, {row.label for row in rows}, seed)
    lines.append(f'[split]\nvalidation = {split.validation}\ntest = {split.test}\nsalt = "{split.salt}"\n')
    (place / "afmrl.toml").write_text("\n".join(lines), "utf-8")
    truth = {Path(photo).name: [row.label, row.group] for row in rows for photo in row.photos}
    (place / TRUTH).write_text(json.dumps(truth), "utf-8")
    names = ["id", "product_id", "image", *(f"attr_{key}" for key in sorted(keys))]
    part = place / "catalog.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            known = {f"attr_{key}": row.attributes.get(key, "") for key in sorted(keys)}
            writer.writerow({"id": row.id, "product_id": row.label, "image": "|".join(row.photos), **known})
    part.replace(place / "catalog.csv")


def split_settings(kind: str, labels: Iterable[str], seed: int) -> SplitSettings:
    """Return a split of whole classes with as many of each side as is wanted; that of products as it comes."""
    classes = sorted(labels)
    share = TEST if len(classes) > FEW else TEST_OF_FEW
    test, validation = round(share * len(classes)), max(LEAST, round(VALIDATION * len(classes)))
    for number in count():
        split = SplitSettings(test=share, validation=round(VALIDATION, 4), salt=f"saga {seed} {number}")
        sides = Counter(split_of(Product(each, product_id=each), split) for each in classes)
        if kind == "identity" or (sides["test"] == test and sides["validation"] == validation):
            return split
    raise AssertionError("there is no end of salts")


def _drawn(work: Path, kind: str, seed: int, wanted: Sizes) -> tuple[list[Row], Path]:
    """Return the listings of a drawn shop and where its photos are."""
    identity = kind == "identity"
    place = work / f"drawn-{'identity' if identity else 'attributes'}-{seed}"
    products = wanted.products // 2 if identity else wanted.products
    plan = ShopPlan(
        products,
        seed,
        variants=0.5 if identity else 0.0,
        duplicates=1.0 if identity else 0.0,
        phone=True,
        text_queries=0,
        photo_queries=0,
        size=SIZE,
    )
    rows = []
    for each in write_shop(place, plan).listings:
        known = known_attributes(each.garment)
        label = each.product_id if identity else " ".join(getattr(each.garment, key) for key in kind.split("+"))
        rows.append(Row(each.id, tuple(shot.name for shot in each.shots), label, each.id, known))
    return rows, place / "images"


def known_attributes(garment: Garment) -> dict[str, str]:
    """Return what is known of a garment: of the schema what applies."""
    return {key: value for key, value in garment.attributes().items() if key in SHOWN and value != "none"}


def _read(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalog.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _photos(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row["image"].replace("|", ";").split(";"))


def _sample(rows: Sequence[Row], seed: int, wanted: Sizes, least: int) -> list[Row]:
    """Return of each class with `least` groups some listings, by the seed."""
    rng = np.random.default_rng(seed)
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row.label, []).append(row)
    found = []
    for own in by_class.values():
        if len({row.group for row in own}) >= least:
            found += [own[i] for i in sorted(rng.permutation(len(own))[: wanted.listings].tolist())]
    return found


def _attributes(**pairs: str) -> dict[str, str]:
    return {key: value.lower() for key, value in pairs.items() if value}


def luma(folder: Path, seed: int, wanted: Sizes) -> list[Row]:
    """Read clothes by type and gender; photos of one style don't count as found."""
    rows = []
    for row in _read(folder):
        garment, gender = row["attr_garment"], row["attr_gender"]
        if garment and gender in ("Women", "Men"):
            known = _attributes(
                garment=garment, gender=gender, colour=row["attr_color"], pattern=row["attr_pattern"].split("|")[0]
            )
            label = f"{known['garment']} {known['gender']}"
            rows.append(Row(row["id"], _photos(row), label, row["style_id"], known))
    return _sample(rows, seed, wanted, 5)


def myntra(folder: Path, seed: int, wanted: Sizes) -> list[Row]:
    """Read fashion by type; photos of one style, or of byte-identical content, don't count as found."""
    rows, copies = [], dict[str, str]()
    for row in _read(folder):
        known = _attributes(type=row["attr_articleType"], colour=row["attr_baseColour"], gender=row["attr_gender"])
        group = copies.setdefault(row["sha1"], row["style_id"])
        rows.append(Row(row["id"], _photos(row), known["type"], group, known))
    return _sample(rows, seed, wanted, 20)


def grocery(folder: Path, seed: int, wanted: Sizes) -> list[Row]:
    """Read groceries by type: phone photos and packshots."""
    read = _read(folder)
    department = {row["style_id"]: row["attr_department"] for row in read if row["attr_department"]}
    rows = []
    for row in read:
        known = _attributes(type=row["style_id"], department=department.get(row["style_id"], ""))
        rows.append(Row(row["id"], _photos(row), known["type"], row["id"], known))
    return _sample(rows, seed, wanted, 4)


READERS = {"luma": luma, "myntra": myntra, "grocery": grocery}
