"""Embedding a catalog with a tiny real model: incremental, resumable, safe against kills; opening what it wrote."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from afmrl_cli.attributes.views import AttributeSource
from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.models.embed_input import Encoder
from afmrl_cli.retrieval.vectors import load_vectors, stale_products, vectors_folder
from afmrl_cli.settings import Settings
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from tests.conftest import kill_once
from tests.retrieval.shop import counting, embed, embedder_id, settings_of, shop_rows, work_of, write_shop

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def settings(model: Path) -> Settings:
    return settings_of(model)


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop", shop_rows())


def must_not_load() -> Encoder:
    raise AssertionError("a model was loaded although nothing had to be encoded")


def matrix_by_id(folder: CatalogFolder, settings: Settings) -> dict[str, np.ndarray]:
    vectors = load_vectors(work_of(folder, settings))
    return dict(zip(vectors.ids, np.array(vectors.matrix), strict=True))


def test_first_run_then_nothing_to_do(folder: CatalogFolder, settings: Settings) -> None:
    first = embed(folder, settings)
    assert (first.products, first.encoded, first.left_out, first.changed) == (12, 12, 0, True)
    vectors = load_vectors(work_of(folder, settings))
    assert vectors.ids == [f"s{i}" for i in range(12)]
    np.testing.assert_allclose(np.linalg.norm(vectors.matrix, axis=1), 1, atol=1e-5)
    assert isinstance(vectors.matrix, np.memmap)
    assert vectors.manifest["embedder"] == first.embedder
    assert vectors.manifest["count"] == 12
    assert vectors.index_kind == "flat" and not (vectors.folder / "index.faiss").exists(), "nobody would read it"
    assert vectors.listings.row_of("s7") == 7
    assert vectors.listings.row_of("none") is None
    assert vectors.listings.listing(3).images == ["images/3.png", "images/3b.png"]
    (vectors.folder / "index.faiss").write_bytes(b"written by an older version, and read by none")
    again = embed(folder, settings, must_not_load)
    assert (again.encoded, again.changed) == (0, False)
    assert load_vectors(work_of(folder, settings)).ids == vectors.ids


def test_only_what_is_new_or_changed_is_encoded(folder: CatalogFolder, settings: Settings) -> None:
    embed(folder, settings)
    before = matrix_by_id(folder, settings)
    rows = shop_rows(14)
    rows[4]["title"] = "Another shirt"
    del rows[9]
    write_shop(folder.root, rows)
    load = counting(folder, settings)
    summary = embed(folder, settings, load)
    assert (load.encoded, summary.encoded, summary.removed, summary.products) == (3, 3, 1, 13)
    after = matrix_by_id(folder, settings)
    assert "s9" not in after
    assert all((after[id] == before[id]).all() == (id != "s4") for id in before if id != "s9")


def test_a_changed_photo_is_encoded_again_and_a_changed_price_is_not(folder: CatalogFolder, settings: Settings) -> None:
    embed(folder, settings)
    shutil.copy(folder.root / "images/5.png", folder.root / "images/2.png")
    load = counting(folder, settings)
    assert embed(folder, settings, load).encoded == load.encoded == 1
    rows = shop_rows()
    rows[0]["price"] = "99"
    write_shop(folder.root, rows)
    summary = embed(folder, settings, must_not_load)
    assert (summary.encoded, summary.changed) == (0, True)
    vectors = load_vectors(work_of(folder, settings))
    assert json.loads(vectors.listings.listing(0).fields)["price"] == "99"


def test_a_reader_of_the_old_version_keeps_it(folder: CatalogFolder, settings: Settings) -> None:
    embed(folder, settings)
    vectors = load_vectors(work_of(folder, settings))
    row = np.array(vectors.matrix[0])
    rows = shop_rows()
    rows[0]["title"] = "Changed"
    write_shop(folder.root, rows)
    embed(folder, settings)
    assert not vectors.folder.exists()
    assert (vectors.matrix[0] == row).all()
    assert vectors.listings.listing(0).title == "Red shirt 0"


def test_killed_and_resumed_gives_the_same_vectors(tmp_path: Path, model: Path) -> None:
    rows = shop_rows(40)
    killed, whole = (write_shop(tmp_path / name, rows) for name in ("killed", "whole"))
    settings = settings_of(model, **{"embed.batch_size": 1})  # chunks of four
    embed(whole, settings)
    pending = vectors_folder(work_of(killed, settings)) / "pending"
    kill_once(lambda: len(list(pending.glob("*.json"))) >= 3, lambda: embed(killed, settings))
    with pytest.raises(ModelError, match="no vectors yet"):
        load_vectors(work_of(killed, settings))
    load = counting(killed, settings)
    summary = embed(killed, settings, load)
    assert 0 < load.encoded < 40
    assert summary.products == 40
    assert not list(pending.glob("*"))
    expected = matrix_by_id(whole, settings)
    for id, vector in matrix_by_id(killed, settings).items():
        np.testing.assert_allclose(vector, expected[id], atol=1e-5)
    leftovers = [p.name for p in pending.parent.iterdir() if p.name.startswith(".writing")]
    assert leftovers == []


def test_half_a_chunk_and_a_version_without_pointer_are_no_trouble(folder: CatalogFolder, settings: Settings) -> None:
    place = vectors_folder(work_of(folder, settings))
    (place / "pending").mkdir(parents=True)
    (place / "pending" / "a.json").write_text('["k1", "k2"]')
    (place / "pending" / "a.npy").write_bytes(b"\x93NUMPY cut")
    (place / "v3").mkdir()
    embed(folder, settings)
    assert sorted(p.name for p in place.iterdir()) == ["current", "pending", "v4"]


def test_photos_that_cannot_be_opened(folder: CatalogFolder, settings: Settings) -> None:
    rows = shop_rows()
    rows.append(dict.fromkeys(rows[0], "") | {"id": "bare", "image": "images/bad.png"})
    (folder.root / "images/bad.png").write_text("not a photo")
    (folder.root / "images/4.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    write_shop(folder.root, rows)
    summary = embed(folder, settings)
    assert (summary.products, summary.left_out) == (12, 1)
    assert summary.problems["unreadable image"] == 2
    assert "bare" not in matrix_by_id(folder, settings)
    # A product of which nothing remains is no reason to load a model the next time.
    assert embed(folder, settings, must_not_load).changed is False


def test_nothing_to_embed_at_all(tmp_path: Path, settings: Settings) -> None:
    rows = [dict.fromkeys(shop_rows()[0], "") | {"id": "bare", "image": "images/bad.png"}]
    (tmp_path / "images").mkdir()
    (tmp_path / "images/bad.png").write_text("not a photo")
    with pytest.raises(DataError, match="text or a readable photo"):
        embed(write_shop(tmp_path, rows), settings, must_not_load)


def test_duplicates_are_encoded_once(tmp_path: Path, settings: Settings) -> None:
    row = shop_rows()[0]
    folder = write_shop(tmp_path / "twins", [row, row | {"id": "twin"}])
    load = counting(folder, settings)
    assert embed(folder, settings, load).products == 2
    assert load.encoded == 1


def test_attribute_text_goes_in_with_enrich_both(folder: CatalogFolder, model: Path) -> None:
    settings = settings_of(model, **{"embed.enrich": "both"})
    source = AttributeSource("generator", "prompt")
    assert embed(folder, settings, source=source).without_attributes == 12
    plain = matrix_by_id(folder, settings)
    vectors = load_vectors(work_of(folder, settings))
    fingerprint = vectors.listings.listing(2).fingerprint
    with Database(folder.database) as database:
        stored = StoredAttributes(fingerprint, "generator", "prompt", "s2", "color: green", None, 0.0)
        database.put_attributes([stored])
    load = counting(folder, settings)
    summary = embed(folder, settings, load, source=source)
    assert (load.encoded, summary.without_attributes) == (1, 11)
    enriched = matrix_by_id(folder, settings)
    assert [id for id in plain if (plain[id] != enriched[id]).any()] == ["s2"]


def test_vectors_of_another_embedder_or_instruction(folder: CatalogFolder, settings: Settings, model: Path) -> None:
    embed(folder, settings)
    other = settings_of(model, **{"model.embedder_images": 1})
    with pytest.raises(ModelError) as caught:
        load_vectors(work_of(folder, other))
    assert embedder_id(folder, settings) in str(caught.value)
    assert embedder_id(folder, other) in str(caught.value)
    assert "afmrl embed" in caught.value.hint
    changed = settings_of(model, **{"embed.target_instruction": "Sell this:"})
    with pytest.raises(ModelError, match="the settings name"):
        load_vectors(work_of(folder, changed))


def test_a_folder_renamed_to_another_embedder(folder: CatalogFolder, settings: Settings) -> None:
    embed(folder, settings)
    place = vectors_folder(work_of(folder, settings))
    place.rename(vectors_folder(work_of(folder, settings, "other")))
    with pytest.raises(ModelError, match="the settings name other"):
        load_vectors(work_of(folder, settings, "other"))


@pytest.mark.parametrize("file", ["vectors.npy", "listings.arrow", "manifest.json"])
def test_damaged_files_are_named(folder: CatalogFolder, settings: Settings, file: str) -> None:
    summary = embed(folder, settings)
    (summary.folder / file).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="stored vectors"):
        load_vectors(work_of(folder, settings, summary.embedder))
    assert embed(folder, settings, force=True).encoded == 12
    load_vectors(work_of(folder, settings, summary.embedder))


def header_of(matrix: NDArray[np.float32], dtype: str) -> bytes:
    """The same bytes under a header that calls them something else."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": dtype, "fortran_order": False, "shape": matrix.view(dtype).shape}
    )
    return out.getvalue() + matrix.tobytes()


def test_vectors_that_are_not_what_was_written_are_reported_and_never_searched(
    folder: CatalogFolder, settings: Settings
) -> None:
    summary = embed(folder, settings)
    place, pointer = summary.folder, summary.folder.parent / "current"
    file, manifest = place / "vectors.npy", place / "manifest.json"
    whole, written, matrix = file.read_bytes(), manifest.read_text(), np.load(file)
    flipped = bytearray(whole)
    flipped[-1] ^= 0x40  # the exponent of the last number: 1e36
    sign = bytearray(whole)
    sign[-1] ^= 0x80
    other = matrix.copy()
    other[3] *= 3
    damages: list[tuple[Path, bytes]] = [
        (file, bytes(flipped)),
        (file, bytes(sign)),
        (file, header_of(matrix, "<i4")),
        (file, header_of(matrix, ">f4")),
        (file, header_of(matrix, "<f8")),
        (file, header_of(other, "<f4")),
        (file, header_of(matrix[:-1], "<f4")),
        (file, b"\x93NUMPY\x01\x00\xff\xff{"),
        (file, pickle.dumps([1])),
        (manifest, b"[]"),
        (manifest, b"[" * 100_000),
        (manifest, written.replace('"recall": 1.0', '"recall": 0.5').encode()),
        (manifest, written.replace('"flat"', '"pickle"').encode()),
        (pointer, b"\xff\xfe"),
        (pointer, b""),
        (pointer, b"../../../../outside"),
        (pointer, b"v1/../v1"),
    ]
    for path, content in damages:
        before = path.read_bytes()
        assert content != before
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"damaged.*") as caught:
            load_vectors(work_of(folder, settings, summary.embedder))
        assert "embed --force" in caught.value.hint and str(folder.root) in str(caught.value), content[:40]
        path.write_bytes(before)
    load_vectors(work_of(folder, settings, summary.embedder))


def test_vectors_of_an_earlier_version_are_checked_by_their_length(folder: CatalogFolder, settings: Settings) -> None:
    summary = embed(folder, settings)
    manifest, file = summary.folder / "manifest.json", summary.folder / "vectors.npy"
    content = json.loads(manifest.read_text()) | {"schema": "afmrl.vectors/1"}
    manifest.write_text(json.dumps({key: value for key, value in content.items() if key not in ("files", "seal")}))
    load_vectors(work_of(folder, settings, summary.embedder))
    for bad in (np.nan, np.inf, 3.0):
        matrix = np.load(file)
        matrix[5, 2] = bad
        file.write_bytes(header_of(matrix, "<f4"))
        with pytest.raises(ModelError, match="row 5 is no vector of length 1"):
            load_vectors(work_of(folder, settings, summary.embedder))


def test_stale_products_are_counted(folder: CatalogFolder, settings: Settings) -> None:
    embed(folder, settings)
    vectors = load_vectors(work_of(folder, settings))
    assert stale_products(work_of(folder, settings), vectors) == 0
    rows = shop_rows(13)
    rows[1]["title"] = "Changed"
    del rows[2]
    write_shop(folder.root, rows)
    assert stale_products(work_of(folder, settings), vectors) == 3


def test_another_index_needs_no_model(folder: CatalogFolder, settings: Settings, model: Path) -> None:
    embed(folder, settings)
    summary = embed(folder, settings_of(model, **{"embed.index": "hnsw"}), must_not_load)
    assert (summary.index, summary.changed, summary.encoded) == ("hnsw", True, 0)
    assert summary.index_recall == 1.0
    assert load_vectors(work_of(folder, settings)).index().faiss.ntotal == 12


def test_a_second_writer_is_refused(folder: CatalogFolder, settings: Settings) -> None:
    with writer_lock(folder.store, "afmrl embed"), pytest.raises(DataError, match="afmrl embed"):
        embed(folder, settings)
