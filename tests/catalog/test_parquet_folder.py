"""A folder of Parquet files is a catalog like a file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import count_rows, read_products
from afmrl_cli.errors import DataError
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder, find_folder
from afmrl_cli.store.source import hash_of, state_of
from tests.cli.calls import call, document


def part(root: Path, name: str, ids: Sequence[str], **columns: Sequence[str]) -> Path:
    file = root / "catalog.parquet" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"id": ids, "title": [f"Item {id}" for id in ids], **columns}), file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    part(tmp_path, "category=Shoes/part-0.parquet", ["a", "b"])
    part(tmp_path, "category=Tops%20%26%20Shirts/part-0.parquet", ["c", ""], brand=["Luma", "Acme"])
    part(tmp_path, "category=__HIVE_DEFAULT_PARTITION__/part-0.parquet", ["d"])
    (tmp_path / "catalog.parquet" / "_SUCCESS").touch()
    part(tmp_path, "_temporary/part-9.parquet", ["never"])
    return find_folder(tmp_path)


def test_partitions_are_a_column_and_rows_are_numbered_through(folder: CatalogFolder) -> None:
    problems = Problems()
    products = list(read_products(folder, CatalogSettings(), problems))
    assert folder.catalog.name == "catalog.parquet" and folder.store.parent == folder.catalog.parent
    assert [(p.id, p.title, p.category, p.brand) for p in products] == [
        ("a", "Item a", "Shoes", ""),
        ("b", "Item b", "Shoes", ""),
        ("c", "Item c", "Tops & Shirts", "Luma"),
        ("d", "Item d", "", ""),
    ]
    assert [p.row for p in products] == [1, 2, 3, 5]
    assert [(found.row, found.kind) for found in problems.first("no id")] == [(4, "no id")]
    assert count_rows(folder, CatalogSettings()) == 5


def test_it_is_read_by_the_commands_by_its_folder_or_by_its_name(folder: CatalogFolder) -> None:
    for words in (str(folder.root), str(folder.catalog)):
        found = document("check", words, "--no-images", code=1)
        assert (found["products"], found["columns"]["category"]) == (4, ["category"])
    assert call("init", str(folder.root), "--yes").exit_code == 0


def test_a_file_more_is_another_catalog(folder: CatalogFolder) -> None:
    state, content = state_of(folder.catalog), hash_of(folder.catalog)
    file = part(folder.root, "category=Shoes/part-1.parquet", ["e"])
    assert state_of(folder.catalog) != state and hash_of(folder.catalog) != content
    file.unlink()
    assert hash_of(folder.catalog) == content


def test_a_folder_that_can_not_be_read_is_named_in_a_line(folder: CatalogFolder, tmp_path: Path) -> None:
    bad = folder.catalog / "category=Shoes" / "part-1.parquet"
    bad.write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match="not a Parquet file, or damaged"):
        list(read_products(folder, CatalogSettings(), Problems()))
    bad.unlink()
    secret = part(tmp_path / "elsewhere", "part.parquet", ["secret"])
    bad.symlink_to(secret)
    with pytest.raises(DataError, match="is a link that leads out"):
        list(read_products(folder, CatalogSettings(), Problems()))
    shutil.rmtree(folder.catalog)
    folder.catalog.mkdir()
    done = call("check", str(folder.catalog))
    assert done.exit_code == 3 and "a folder without Parquet files" in done.stderr
