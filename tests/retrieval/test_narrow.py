"""Vectors in fewer numbers and fewer bytes: what is stored, what is found, what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import ModelError
from afmrl_cli.models.embed_input import Encoder
from afmrl_cli.retrieval.index import build_index, exact_search, recall_between, search_index
from afmrl_cli.retrieval.narrow import Form, open_form, unit, write_form
from afmrl_cli.retrieval.search import Query, Searcher
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.store.folder import CatalogFolder
from tests.retrieval.shop import counting, embed, settings_of, shop_rows, work_of, write_shop


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop", shop_rows())


def must_not_load() -> Encoder:
    raise AssertionError("a model was loaded although nothing had to be encoded")


def some_vectors(count: int = 400, dimension: int = 64) -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32))


@pytest.mark.parametrize(("form", "bytes_each", "off"), [("fp16", 2, 1e-3), ("int8", 1, 1e-2)])
def test_narrow_rows_are_close_of_length_one_and_narrowing_them_again_changes_nothing(
    form: Form, bytes_each: int, off: float, tmp_path: Path
) -> None:
    exact = some_vectors()
    write_form(exact, form, tmp_path / "a.npy")
    stored = open_form(tmp_path / "a.npy", form)
    np.testing.assert_allclose(np.linalg.norm(stored[:], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(stored[:], exact, atol=off)
    assert (tmp_path / "a.npy").stat().st_size == 128 + exact.size * bytes_each
    assert stored[3].shape == (64,) and stored[np.array([5, -1])].shape == (2, 64)
    write_form(np.asarray(stored), form, tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_every_index_searches_int8_rows(kind, tmp_path: Path) -> None:
    exact = some_vectors()
    write_form(exact, "int8", tmp_path / "a.npy")
    stored = open_form(tmp_path / "a.npy", "int8")
    scores, found = search_index(build_index(stored, kind), exact[:20], 5)
    assert found[:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(scores[:, 0], exact_search(stored, exact[:20], 1)[0][:, 0], atol=0.02)


def test_recall_between_forms_is_measured_not_said(tmp_path: Path) -> None:
    exact = some_vectors()
    write_form(exact, "int8", tmp_path / "a.npy")
    assert 0.9 < recall_between(open_form(tmp_path / "a.npy", "int8"), exact) <= 1
    assert recall_between(exact, exact) == 1
    assert recall_between(some_vectors()[::-1], exact) < 0.2, "other vectors, other neighbours"
    assert recall_between(exact[:1], exact[:1]) == 1
    halves, few = (recall_between(unit(exact[:, :most]), exact) for most in (32, 4))
    assert few < halves < 1, "of vectors without an order of their numbers, every number that is cut is missed"


def test_stored_vectors_become_narrower_without_a_model_and_wider_with_one(folder: CatalogFolder, model: Path) -> None:
    embed(folder, settings_of(model))
    exact = np.array(load_vectors(work_of(folder, settings_of(model))).matrix)
    small = settings_of(model, **{"embed.vectors": "int8"})
    summary = embed(folder, small, must_not_load)
    assert (summary.encoded, summary.changed, summary.vectors) == (0, True, "int8")
    vectors = load_vectors(work_of(folder, settings_of(model)))
    assert vectors.form == "int8", "what is stored is found whatever the setting says"
    np.testing.assert_allclose(vectors.matrix[:], exact, atol=0.02)
    file = vectors.folder / "vectors.npy"
    assert np.load(file).dtype == np.int8 and file.stat().st_size == 128 + exact.size
    assert vectors.manifest["vectors_recall"] == summary.vectors_recall > 0.8
    assert not embed(folder, small, must_not_load).changed
    load = counting(folder, settings_of(model))
    wider = embed(folder, settings_of(model), load)
    assert (load.encoded, wider.vectors) == (12, "fp32")
    assert (np.array(load_vectors(work_of(folder, settings_of(model))).matrix) == exact).all()


def test_a_new_product_leaves_the_narrow_rows_of_the_others_as_they_are(folder: CatalogFolder, model: Path) -> None:
    settings = settings_of(model, **{"embed.vectors": "int8"})
    first = embed(folder, settings)
    before = np.load(load_vectors(work_of(folder, settings)).folder / "vectors.npy")
    write_shop(folder.root, shop_rows(13))
    second = embed(folder, settings)
    after = np.load(load_vectors(work_of(folder, settings)).folder / "vectors.npy")
    assert second.encoded == 1 and (after[:12] == before).all()
    assert second.vectors_recall == first.vectors_recall, "most are there in int8 only: nothing to compare them with"


def test_search_goes_through_int8_vectors(folder: CatalogFolder, model: Path) -> None:
    settings = settings_of(model, **{"embed.vectors": "int8", "search.k": 3})
    embed(folder, settings)
    work = work_of(folder, settings)
    vectors = load_vectors(work)
    by_text = Searcher(work, vectors).search(Query("Red shirt 0"))
    assert [hit.rank for hit in by_text.hits] == [1, 2, 3]
    liked = Searcher(work, vectors).search(Query(like="s0"))
    assert "s0" not in [hit.id for hit in liked.hits] and all(hit.score <= 1 for hit in liked.hits)


@pytest.mark.parametrize("form", ["fp16", "int8"])
def test_eval_and_dedupe_go_through_narrow_vectors_and_find_nearly_the_same(
    folder: CatalogFolder, model: Path, form: str
) -> None:
    (folder.root / "afmrl.toml").write_text(f'[model]\nembedder = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n')

    def told(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [words[0], str(folder.root), *words[1:], "--json"])
        assert done.exit_code == 0, done.output
        content: dict[str, Any] = json.loads(done.stdout)
        return content

    def read() -> tuple[dict[str, float], dict[str, Any]]:
        judged = told("eval", "--protocol", "identity", "--split", "all")
        return judged["systems"][0]["metrics"], told("dedupe", "--set", "dedupe.threshold=0.01")

    told("embed")
    exact, pairs = read()
    narrowed = told("embed", "--vectors", form)
    assert narrowed["encoded"] == 0 and load_vectors(work_of(folder, settings_of(model))).form == form
    found, again = read()
    assert found == pytest.approx(exact, abs=0.1) and again["candidates"] == pairs["candidates"]
    assert again["embedder"] == pairs["embedder"] is not None


def test_fewer_dimensions_are_the_first_numbers_and_another_store(folder: CatalogFolder, model: Path) -> None:
    embed(folder, settings_of(model))
    whole = load_vectors(work_of(folder, settings_of(model)))
    short = settings_of(model, **{"embed.dimensions": 8})
    with pytest.raises(ModelError, match="the settings name"):
        load_vectors(work_of(folder, short))
    summary = embed(folder, short)
    vectors = load_vectors(work_of(folder, short))
    assert (summary.dimension, summary.encoded) == (8, 12) and summary.embedder != whole.manifest["embedder"]
    # Of 12 products 10 are the nearest ones, so that nearly all are right.
    assert summary.dimensions_recall == recall_between(vectors.matrix, np.array(whole.matrix)) > 0.8
    np.testing.assert_allclose(vectors.matrix[:], unit(np.array(whole.matrix[:, :8])), atol=1e-6)
    assert len(Searcher(work_of(folder, short), vectors).search(Query("Red shirt")).hits) == 10
    assert load_vectors(work_of(folder, settings_of(model))).folder == whole.folder
    narrower = embed(folder, settings_of(model, **{"embed.dimensions": 8, "embed.vectors": "fp16"}), must_not_load)
    assert narrower.dimensions_recall == summary.dimensions_recall, "kept, where nothing is computed again"


def test_more_dimensions_than_the_model_has_are_refused_and_nothing_is_stored(
    folder: CatalogFolder, model: Path
) -> None:
    settings = settings_of(model, **{"embed.dimensions": 100_000})
    with pytest.raises(ModelError, match=r"embed\.dimensions = 100000: vectors of .* have \d+ numbers"):
        embed(folder, settings)
    assert not list(folder.embeddings.glob("*/current")) and not list(folder.embeddings.glob("*/pending/*"))


def test_a_manifest_that_names_no_known_form_is_damaged(folder: CatalogFolder, model: Path) -> None:
    settings = settings_of(model)
    embed(folder, settings)
    vectors = load_vectors(work_of(folder, settings))
    manifest = json.loads((vectors.folder / "manifest.json").read_text())
    (vectors.folder / "manifest.json").write_text(json.dumps({**manifest, "vectors": "int3"}))
    with pytest.raises(ModelError, match="damaged"):
        load_vectors(work_of(folder, settings))
