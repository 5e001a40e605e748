"""A catalog whose store holds, for every view of every listing, a text that tells what it was written from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import strategies as st

from afmrl_cli.attributes.views import VIEWS, AttributeSource, first_photos, listing_views
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product, product_text
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.report import task_views
from afmrl_cli.listener import Silent
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.files import hash_file
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Side
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.tiny import photo

GENERATOR, PROMPT = "g", "p"
COLUMNS = ("id", "title", "category", "image", "product_id", "group_id", "attr_colour", "attr_material")
POOL = 6
EARLIER = "seen: not known"

Row = dict[str, str]


def write_photos(root: Path, number: int) -> Path:
    """`root` with so many photos."""
    (root / "images").mkdir()
    for seed in range(number):
        photo(seed, 28, 28).save(root / f"images/{seed}.png")
    return root


@st.composite
def catalogs(draw: st.DrawFn) -> list[Row]:
    """A few listings, with titles and photos of their own or shared, of products and styles of their own or shared."""
    rows = []
    for i in range(draw(st.integers(6, 9))):
        photos = draw(st.lists(st.integers(0, POOL - 1), max_size=3))
        title = draw(st.sampled_from(["", "red shirt", "blue shirt", f"shirt number {i}"]))
        rows.append(
            {
                "id": f"s{i}",
                "title": title,
                "category": draw(st.sampled_from(["", "shirts", "tops"])),
                "image": "|".join(f"images/{number}.png" for number in photos),
                "product_id": draw(st.sampled_from([f"p{i}", f"p{i // 2}"])),
                "group_id": f"g{i // 3}",
                "attr_colour": draw(st.sampled_from(["red", "blue"])),
                "attr_material": draw(st.sampled_from(["", "cotton", "wool"])),
            }
        )
    rows[0]["title"] = "shirt number 0"
    return [row for row in rows if row["title"] or row["image"] or row["attr_material"]]


@dataclass
class Shop:
    """A written catalog whose store holds a text for every view of every listing; a text tells what it was made of."""

    folder: CatalogFolder
    settings: Settings

    @property
    def source(self) -> AttributeSource:
        return AttributeSource(GENERATOR, PROMPT, self.settings.model.generator_images)

    def seen(self, text: str, contents: Sequence[str]) -> str:
        """The attribute text that a generator writes from this view."""
        most = self.settings.model.generator_images or len(contents)
        return f"text: {' '.join(text.split()) or '-'}; photos: {' '.join(contents[:most]) or '-'}".lower()

    def fits(self, attributes: str, text: str, contents: Sequence[str]) -> None:
        assert attributes in ("", self.seen(text, contents)), "attributes that saw more, or less, than this side shows"

    def side_fits(self, side: Side) -> None:
        self.fits(side.attributes, side.text, [each.content for each in side.photos])

    def store(self, views: Sequence[Product], earlier: bool) -> None:
        with Database(self.folder.database) as database, Fingerprinter(database) as prints:
            rows = {}
            for view in views:
                shown = first_photos(view, self.source.photos)
                text = self.seen(product_text(view), [prints.hash_of(path) for path in view.images])
                key = prints.of(shown)
                rows[key] = StoredAttributes(key, GENERATOR, PROMPT, view.id, text, None, 0.0)
            if earlier:
                for number, product in enumerate(read_products(self.folder, self.settings.catalog, Problems())):
                    key, text = prints.of(product), f"{EARLIER} {number % 2}"
                    rows[key] = StoredAttributes(key, GENERATOR, PROMPT, product.id, text, None, 0.0, False)
            database.put_attributes(list(rows.values()))


def write(place: Path, rows: list[Row], earlier: bool, **changes: object) -> Shop:
    shutil.rmtree(place / ".afmrl", ignore_errors=True)
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    flags = {
        "split.validation": 0.0,
        "split.test": 0.0,
        "agcl.loss": "infonce",
        "catalog.columns.text": ["material"],
        "search.known_attributes": False,  # those of a reference are of all of its listing, on purpose
    } | changes
    shop = Shop(CatalogFolder(place / "catalog.csv"), load_settings(None, flags, NANO))
    views: list[Product] = []
    for product in read_products(shop.folder, shop.settings.catalog, Problems()):
        views += listing_views(product, VIEWS, [hash_file(path) for path in product.images]).values()
        views.append(Product(product.id, title=product.title))
    for protocol in ("photo", "composed", "coarse", "queries"):
        views += eval_views(shop, protocol)
    views += eval_views(labelled(shop, "material"), "coarse")
    shop.store(views, earlier)
    return shop


def labelled(shop: Shop, label: str) -> Shop:
    """`shop` whose coarse queries are about listings of the same `label`."""
    chosen = shop.settings.eval.model_copy(update={"label": label})
    return replace(shop, settings=shop.settings.model_copy(update={"eval": chosen}))


def eval_views(shop: Shop, protocol: str) -> list[Product]:
    try:
        return task_views(Workspace(shop.folder, shop.settings, Silent()), TaskSpec(protocol))
    except (DataError, UsageError):
        return []


def everything() -> list[Row]:
    return [
        {
            "id": f"s{i}",
            "title": f"shirt number {i}",
            "category": "tops" if i % 4 < 2 else "shirts",
            "image": f"images/{i % POOL}.png|images/{(i + 1) % POOL}.png",
            "product_id": f"p{i // 2}",
            "group_id": f"g{i // 4}",
            "attr_colour": ("red", "blue")[i // 2 % 2],
            "attr_material": ("cotton", "wool")[i // 2 % 2],
        }
        for i in range(16)
    ]
