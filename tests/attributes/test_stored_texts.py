"""Fifteen stored pairs, more than the default allows, reach every reader of stored attributes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.attributes.export import export_attributes
from afmrl_cli.attributes.parse import write_attributes
from afmrl_cli.attributes.task import load_task
from afmrl_cli.attributes.views import AttributeSource, StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.cli.app import app
from afmrl_cli.cycle.report import _Shop
from afmrl_cli.listener import Silent
from afmrl_cli.models.backends import generator_id
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.attributes.shop import write_catalog

FIFTEEN = {f"key {i}": f"value {i}" for i in range(15)}
OTHER = {key: f"other {value}" for key, value in FIFTEEN.items()}


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """Four listings, the first two with equal words and attributes, the others with other ones."""
    titles = ["quiet zebra lamp", "zebra lamp, quiet", "tall heron table", "heron table, tall"]
    write_catalog(tmp_path, [(f"s{i}", title, title, "", "", "") for i, title in enumerate(titles)])
    (tmp_path / "afmrl.toml").write_text("[attributes]\nmax_pairs = 20\n")
    folder = CatalogFolder(tmp_path / "catalog.csv")
    settings = load_settings(folder.root, {}, NANO)
    task, generator = (
        load_task(settings.attributes, folder.root),
        generator_id(settings, Checkpoints(folder.checkpoints)),
    )
    with Database(folder.database) as database, Fingerprinter(database) as fingerprinter:
        products = list(read_products(folder, settings.catalog, Problems()))
        database.put_attributes(
            [
                StoredAttributes(
                    fingerprinter.of(product), generator, task.id, product.id, write_attributes(pairs), None, 0.0
                )
                for product, pairs in zip(products, [FIFTEEN, FIFTEEN, OTHER, OTHER], strict=True)
            ]
        )
        views = StoredViews(database, fingerprinter, AttributeSource(generator, task.id))
        export_attributes(products, task, views, tmp_path / "out.csv")
    return folder


def test_in_an_export(shop: CatalogFolder) -> None:
    with (shop.root / "out.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert {key.removeprefix("attr_"): value for key, value in row.items() if key.startswith("attr_")} == FIFTEEN


def test_in_the_report_of_a_cycle(shop: CatalogFolder) -> None:
    settings = load_settings(shop.root, {}, NANO)
    task, generator = load_task(settings.attributes, shop.root), generator_id(settings, Checkpoints(shop.checkpoints))
    found = _Shop(Workspace(shop, settings, Silent()), {"generator": generator, "prompt": task.id})
    assert found.attributes("s0") == FIFTEEN


def test_in_dedupe(shop: CatalogFolder) -> None:
    (shop.root / "out.csv").unlink()
    result = CliRunner().invoke(app, ["dedupe", str(shop.root), "--threshold", "0", "--json"])
    assert result.exit_code == 0, result.output
    pairs = {(pair["id"], pair["other_id"]): pair for pair in json.loads(result.stdout)["pairs"]}
    shared = pairs["s0", "s1"]["shared_attributes"]
    assert {key.replace("_", " "): value for key, value in shared.items()} == FIFTEEN
