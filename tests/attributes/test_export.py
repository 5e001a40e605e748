"""Stored attributes as CSV, JSONL and Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.attributes import export as module
from afmrl_cli.attributes.export import check_export_path, export_attributes
from afmrl_cli.attributes.task import load_task
from afmrl_cli.attributes.views import AttributeSource, StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import read_products
from afmrl_cli.errors import UsageError
from afmrl_cli.settings import Settings
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from tests.attributes.shop import make_shop

ANSWERS: list[tuple[Any, ...] | None] = [
    ("color: navy; id: 7", None, 0.0, True, "color: 0.9000; id: 0.5000; fit: 0.2000"),
    ("fit: slim; color: röd; ratio: 16:9", None, 0.0),
    ("chatter", "unparsable", 0.0),
    None,
]


def export(root: Path, name: str, keys: dict[str, dict[str, str]] | None = None):
    """A shop of four products with `ANSWERS` stored, exported to `name`."""
    folder = make_shop(root, len(ANSWERS), photos=False)
    settings = Settings.model_validate({"attributes": {"keys": keys or {}}})
    task = load_task(settings.attributes, root)
    with Database(folder.database) as database, Fingerprinter(database) as fingerprinter:
        products = list(read_products(folder, settings.catalog, Problems()))
        database.put_attributes(
            [
                StoredAttributes(fingerprinter.of(product), "g", task.id, product.id, *stored)
                for product, stored in zip(products, ANSWERS, strict=True)
                if stored
            ]
            + [StoredAttributes("gone", "g", task.id, "gone", "color: x", None, 0.0)]
        )
        views = StoredViews(database, fingerprinter, AttributeSource("g", task.id))
        return export_attributes(products, task, views, root / name)


def test_csv(tmp_path):
    summary = export(tmp_path, "out.csv")
    assert (summary.rows, summary.missing, summary.keys_left_out) == (3, 1, 0)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "attributes", "attr_color", "attr_fit", "attr_id", "attr_ratio", "failure", "confidence"],
        ["sku0", "color: navy; id: 7", "navy", "", "7", "", "", "color: 0.9000; id: 0.5000; fit: 0.2000"],
        ["sku1", "fit: slim; color: röd; ratio: 16:9", "röd", "slim", "", "16:9", "", ""],
        ["sku2", "", "", "", "", "", "unparsable", ""],
    ]


def test_jsonl(tmp_path):
    export(tmp_path, "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert rows[1] == {
        "id": "sku1",
        "attributes": "fit: slim; color: röd; ratio: 16:9",
        "pairs": {"fit": "slim", "color": "röd", "ratio": "16:9"},
        "failure": "",
        "confidence": {},
    }
    assert rows[0]["confidence"] == {"color": 0.9, "id": 0.5, "fit": 0.2}
    assert [row["failure"] for row in rows] == ["", "", "unparsable"]


def test_parquet(tmp_path):
    from pyarrow.parquet import read_table

    export(tmp_path, "out.parquet")
    table = read_table(tmp_path / "out.parquet").to_pydict()
    assert list(table) == [
        "id",
        "attributes",
        "attr_color",
        "attr_fit",
        "attr_id",
        "attr_ratio",
        "failure",
        "confidence",
    ]
    assert table["attr_color"] == ["navy", "röd", ""]


def test_the_schema_gives_the_columns_and_their_order(tmp_path):
    export(tmp_path, "out.csv", {"Size": {}, "color": {}})
    assert (tmp_path / "out.csv").read_text("utf-8").startswith("id,attributes,attr_size,attr_color,attr_fit,")


def test_rare_keys_beyond_the_columns_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEY_COLUMNS", 1)
    assert export(tmp_path, "out.csv").keys_left_out == 3
    assert (tmp_path / "out.csv").read_text("utf-8").startswith("id,attributes,attr_color,failure")
    assert export(tmp_path, "out.jsonl").keys_left_out == 0


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr(module, "_columns", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(tmp_path, "out.csv")
    assert (tmp_path / "out.csv").read_text() == "old"
    assert not list(tmp_path.glob(".writing-*"))


def test_paths_that_are_refused(tmp_path):
    folder = make_shop(tmp_path, 1)
    (tmp_path / "link.csv").symlink_to(tmp_path / "catalog.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "catalog.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, message in [
        ("out.xlsx", "must end in"),
        ("out", "must end in"),
        ("catalog.csv", "own file"),
        ("link.csv", "own file"),
        ("hard.csv", "own file"),
        ("images/../catalog.csv", "own file"),
        ("folder.csv", "is a folder"),
        (".afmrl/out.csv", "inside"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_export_path(tmp_path / name, CatalogFolder(folder.catalog))
    assert not check_export_path(tmp_path / "out.CSV", folder)
    (tmp_path / "prices.csv").write_text("sku,price\n1,2\n")
    with pytest.raises(UsageError, match="afmrl did not write it"):
        check_export_path(tmp_path / "prices.csv", folder)
    (tmp_path / "out.csv").write_text("id,attributes,attr_colour,failure\n")
    assert check_export_path(tmp_path / "out.csv", folder)
