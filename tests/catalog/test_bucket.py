"""A catalog in a bucket is read where it lies, and only where the user's own settings name the bucket.

The file system is fsspec's own in memory, and S3 by s3fs against a server on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet
from s3fs import S3FileSystem

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import count_rows, read_products
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.own import own_file
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder, find_folder
from afmrl_cli.store.source import hash_of, state_of
from tests.cli.calls import call, document

NAME = "catalog.parquet.url"


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://shop/catalog"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def allowed() -> None:
    own_file().parent.mkdir(parents=True, exist_ok=True)
    own_file().write_text('allowed_hosts = ["memory://shop"]\n')


def write_part(address: str, ids: list[str]) -> None:
    with fsspec.open(address, "wb") as file:
        parquet.write_table(pa.table({"id": ids, "title": [f"Item {id}" for id in ids]}), file)


@pytest.fixture
def folder(tmp_path: Path, bucket: str) -> CatalogFolder:
    write_part(f"{bucket}/category=Shoes/part-0.parquet", ["a", "b"])
    write_part(f"{bucket}/category=Tops/part-1.parquet", ["c"])
    write_part(f"{bucket}/_temporary/part-9.parquet", ["never"])
    (tmp_path / NAME).write_text(f"{bucket}\n")
    return find_folder(tmp_path)


@pytest.mark.usefixtures("allowed")
def test_products_come_from_the_bucket_and_the_store_lies_beside_the_address(folder: CatalogFolder) -> None:
    found = [(each.id, each.category, each.row) for each in read_products(folder, CatalogSettings(), Problems())]
    assert found == [("a", "Shoes", 1), ("b", "Shoes", 2), ("c", "Tops", 3)]
    assert count_rows(folder, CatalogSettings()) == 3
    assert folder.catalog.name == NAME and folder.store == folder.root / ".afmrl"
    assert document("check", str(folder.root), "--no-images")["products"] == 3


@pytest.mark.usefixtures("allowed")
def test_one_file_can_be_named_too(tmp_path: Path, bucket: str) -> None:
    write_part(f"{bucket}.parquet", ["x", "y"])
    (tmp_path / NAME).write_text(f"{bucket}.parquet")
    folder = find_folder(tmp_path)
    assert [each.id for each in read_products(folder, CatalogSettings(), Problems())] == ["x", "y"]


@pytest.mark.usefixtures("allowed")
def test_a_changed_object_is_another_content(folder: CatalogFolder, bucket: str) -> None:
    before = hash_of(folder.catalog), state_of(folder.catalog)
    assert (hash_of(folder.catalog), state_of(folder.catalog)) == before
    write_part(f"{bucket}/category=Tops/part-1.parquet", ["d"])
    assert hash_of(folder.catalog) != before[0] and state_of(folder.catalog) != before[1]


def test_a_folder_can_not_name_a_bucket_by_itself(folder: CatalogFolder) -> None:
    with pytest.raises(UsageError, match="memory://shop with your access"):
        list(read_products(folder, CatalogSettings(), Problems()))
    done = call("check", str(folder.root))
    assert done.exit_code == 2 and str(own_file()) in done.stderr.replace("\n", "")
    own_file().parent.mkdir(parents=True, exist_ok=True)
    own_file().write_text(f'trusted_folders = ["{folder.root}"]\n')
    assert document("check", str(folder.root), "--no-images")["products"] == 3


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "no address of a bucket"),
        ("file:///etc", "'file:///etc' is no address of a bucket"),
        ("https://example.com/catalog.parquet", "no address of a bucket"),
        ("simplecache::s3://shop/catalog", "no address of a bucket"),
        ("s3://", "no address of a bucket"),
        ("memory://shop/nothing", "can't be read|without Parquet files"),
        ("memory://other/catalog", "with your access"),
    ],
)
def test_other_addresses_are_refused(tmp_path: Path, address: str, message: str) -> None:
    (tmp_path / NAME).write_text(address)
    with pytest.raises((DataError, UsageError), match=message):
        list(read_products(find_folder(tmp_path), CatalogSettings(), Problems()))


@pytest.mark.usefixtures("allowed")
def test_a_damaged_object_and_one_that_is_gone_are_named(folder: CatalogFolder, bucket: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe(f"{bucket}/category=Tops/part-1.parquet".removeprefix("memory:/"), b"PAR1 and no more")
    with pytest.raises(DataError, match=r"part-1.parquet: not a Parquet file"):
        list(read_products(folder, CatalogSettings(), Problems()))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """S3 on this machine."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (keys | {"AWS_ENDPOINT_URL": "http://{}:{}".format(*running.get_host_and_port())}).items():
        monkeypatch.setenv(name, value)
    yield running
    running.stop()
    S3FileSystem.clear_instance_cache()


def test_s3_tells_contents_apart_by_etag_and_what_it_refuses_is_one_line(
    tmp_path: Path, server: ThreadedMotoServer
) -> None:
    own_file().parent.mkdir(parents=True, exist_ok=True)
    own_file().write_text('allowed_hosts = ["s3://shop", "s3://other"]\n')
    S3FileSystem().mkdir("shop")
    write_part("s3://shop/catalog/category=Tops/part-0.parquet", ["a", "b"])
    (tmp_path / NAME).write_text("s3://shop/catalog/")
    folder = find_folder(tmp_path)
    assert [each.category for each in read_products(folder, CatalogSettings(), Problems())] == ["Tops", "Tops"]
    before = hash_of(folder.catalog)
    write_part("s3://shop/catalog/category=Tops/part-0.parquet", ["a", "c"])  # as many bytes
    assert hash_of(folder.catalog) != before
    (tmp_path / NAME).write_text("s3://other/catalog")
    refused = call("check", str(tmp_path))
    assert refused.exit_code == 3 and "bucket can't be read" in refused.stderr and "Traceback" not in refused.stderr
