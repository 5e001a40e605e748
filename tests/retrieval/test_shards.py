"""Vectors made in shards and joined are those that one process makes, whatever happens meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.errors import DataError
from afmrl_cli.models.embed_input import Encoder
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.embed_shard import embed_group, embed_shard, join_vectors
from afmrl_cli.retrieval.vectors import load_vectors, vectors_folder
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.shards import parse_shard
from tests.conftest import kill_once
from tests.retrieval.shop import Row, settings_of, shop_rows, work_of, write_shop

COUNT = 24


@pytest.fixture
def settings(model: Path) -> Settings:
    return settings_of(model, **{"embed.batch_size": 1})


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop", rows_of(COUNT))


def rows_of(count: int) -> list[Row]:
    """Listings with a photo each: the last bits of a vector depend on what the model reads together with it."""
    return [row | {"image": row["image"].split("|")[0]} for row in shop_rows(count)]


def make(folder: CatalogFolder, settings: Settings, *shards: str) -> None:
    for shard in shards:
        embed_shard(work_of(folder, settings), parse_shard(shard))


def merge(folder: CatalogFolder, settings: Settings) -> int:
    work = work_of(folder, settings)
    work.load_encoder = must_not_load
    group = embed_group(work)
    assert group is not None
    summary = join_vectors(work, group)
    group.remove()
    return summary.products


def must_not_load() -> Encoder:
    raise AssertionError("a model was loaded although the shards have all vectors")


def chunks(folder: CatalogFolder) -> list[Path]:
    return list(folder.store.glob("shards/*/*/vectors/[!.]*.json"))


def test_a_killed_shard_goes_on_and_the_store_is_that_of_one_process_bit_for_bit(
    folder: CatalogFolder, settings: Settings, tmp_path: Path
) -> None:
    whole = write_shop(tmp_path / "whole", rows_of(COUNT))
    embed_catalog(work_of(whole, settings))
    kill_once(lambda: len(chunks(folder)) >= 1, lambda: make(folder, settings, "0/2"))
    done = len(chunks(folder))
    make(folder, settings, "1/2")
    with pytest.raises(DataError, match="shard 0/2 has not ended"):
        merge(folder, settings)
    summary = embed_shard(work_of(folder, settings), parse_shard("0/2"))
    assert 0 < summary.encoded <= summary.products - 4 * done  # four vectors a chunk, but for the last
    assert sum(len(VectorCache(each)) for each in folder.store.glob("shards/*/*/colors")) == COUNT
    assert merge(folder, settings) == COUNT
    joined, expected = (load_vectors(work_of(each, settings)) for each in (folder, whole))
    assert joined.ids == expected.ids
    for name in ("vectors.npy", "listings.arrow", "colors.npy"):
        assert (joined.folder / name).read_bytes() == (expected.folder / name).read_bytes(), name
    assert joined.manifest["data"] == expected.manifest["data"]
    assert not chunks(folder)


def test_a_merge_that_is_killed_leaves_the_old_version_or_the_new_and_can_be_run_again(
    folder: CatalogFolder, settings: Settings
) -> None:
    embed_catalog(work_of(write_shop(folder.root, rows_of(6)), settings))
    write_shop(folder.root, rows_of(COUNT))
    make(folder, settings, "0/2", "1/2")
    place = vectors_folder(work_of(folder, settings))
    kill_once(lambda: list(place.glob(".writing-*")), lambda: merge(folder, settings))
    assert len(load_vectors(work_of(folder, settings)).ids) in (6, COUNT)
    assert merge(folder, settings) == COUNT


def test_shards_compute_only_what_the_store_does_not_have(folder: CatalogFolder, settings: Settings) -> None:
    embed_catalog(work_of(folder, settings))
    rows = rows_of(COUNT + 2)
    del rows[3]
    rows[5]["title"] = "Another"
    write_shop(folder.root, rows)
    encoded = [embed_shard(work_of(folder, settings), parse_shard(each)).encoded for each in ("0/3", "1/3", "2/3")]
    assert sum(encoded) == 3
    assert merge(folder, settings) == COUNT + 1
    assert "s3" not in load_vectors(work_of(folder, settings)).ids


def test_a_photo_that_changed_since_its_shard_was_made_is_named(folder: CatalogFolder, settings: Settings) -> None:
    make(folder, settings, "0/2", "1/2")
    shutil.copy(folder.root / "images/5.png", folder.root / "images/2.png")
    with pytest.raises(DataError, match=r"shard [01]/2 has no vector of s2") as caught:
        merge(folder, settings)
    assert "afmrl embed --shard" in str(caught.value.hint)
    assert not list(folder.embeddings.glob("*/current"))
    make(folder, settings, "0/2", "1/2")
    assert merge(folder, settings) == COUNT


def test_a_damaged_chunk_is_made_again(folder: CatalogFolder, settings: Settings) -> None:
    make(folder, settings, "0/1")
    chunk = chunks(folder)[0].with_suffix(".npy")
    content = bytearray(chunk.read_bytes())
    content[-3] ^= 64
    chunk.write_bytes(content)
    with pytest.raises(DataError, match="shard 0/1 has no vector of"):
        merge(folder, settings)
    make(folder, settings, "0/1")
    assert merge(folder, settings) == COUNT
    assert np.isfinite(load_vectors(work_of(folder, settings)).matrix).all()


def test_shards_without_any_product_and_products_without_anything_to_read(settings: Settings, tmp_path: Path) -> None:
    rows = rows_of(12)
    rows.append(dict.fromkeys(rows[0], "") | {"id": "bare", "image": "images/bad.png"})
    folder = write_shop(tmp_path / "few", rows)
    (folder.root / "images/bad.png").write_text("not a photo")
    make(folder, settings, *(f"{i}/20" for i in range(20)))
    assert merge(folder, settings) == 12
