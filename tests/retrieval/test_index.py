"""Real FAISS indexes against exact search."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from afmrl_cli.errors import ModelError
from afmrl_cli.retrieval.index import (
    Kind,
    build_index,
    choose_kind,
    exact_search,
    load_index,
    save_index,
    search_index,
)
from afmrl_cli.scores import TIE


def clustered(count: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(1, count // 8), dimension))
    matrix = centers[np.arange(count) % len(centers)] + 0.3 * rng.standard_normal((count, dimension))
    unit: NDArray[np.float32] = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_built_saved_loaded_and_searched(kind: Kind, tmp_path: Path) -> None:
    matrix = clustered(3000)
    built = build_index(matrix, kind)
    assert built.recall >= 0.99
    save_index(built, tmp_path / "index.faiss")
    loaded = load_index(tmp_path / "index.faiss", kind, built.effort, built.recall, matrix)
    scores, rows = search_index(loaded, matrix[:50], 10)
    exact_scores, exact_rows = exact_search(matrix, matrix[:50], 10)
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)])
    assert overlap >= 0.95
    np.testing.assert_allclose(scores[:, 0], exact_scores[:, 0], atol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("count", [1, 2, 45])
def test_tiny_catalogs_and_k_above_them(kind: Kind, count: int) -> None:
    matrix = clustered(count)
    scores, rows = search_index(build_index(matrix, kind), matrix[:1], 500)
    assert rows.shape == scores.shape == (1, count)
    assert rows[0, 0] == 0
    assert build_index(matrix, kind).recall == 1.0  # of one row, too: there is nothing to miss


def test_hnsw_returns_as_many_as_requested() -> None:
    matrix = clustered(2000)
    index = build_index(matrix, "hnsw")
    assert (search_index(index, matrix[:1], 1500)[1] >= 0).mean() > 0.95


def test_exact_search_over_chosen_rows_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afmrl_cli.retrieval.index.ADD_ROWS", 64)
    monkeypatch.setattr("afmrl_cli.retrieval.index.SCORES", 300)
    matrix = clustered(500)
    chosen = np.arange(7, 500, 5)
    scores, rows = exact_search(matrix, matrix[:10], 9, chosen)
    full = matrix[:10] @ matrix[chosen].T
    expected = np.argsort(-full, axis=1, kind="stable")[:, :9]
    assert (rows == chosen[expected]).all()
    np.testing.assert_allclose(scores, np.take_along_axis(full, expected, 1), atol=1e-6)
    assert exact_search(matrix, matrix[:2], 5, np.array([], dtype=np.int64))[1].shape == (2, 0)


def test_equal_vectors_are_ordered_by_row() -> None:
    matrix = np.repeat(clustered(1), 20, axis=0)
    assert exact_search(matrix, matrix[:1], 20)[1][0].tolist() == list(range(20))


def test_equal_vectors_are_ordered_by_row_at_the_cut_too() -> None:
    matrix = clustered(1001)
    equal = np.arange(3, 1001, 7)
    matrix[equal] = matrix[3]
    assert exact_search(matrix, matrix[3:4], 5)[1][0].tolist() == [3, 10, 17, 24, 31]
    assert exact_search(matrix, matrix[3:4], 5, equal[2:])[1][0].tolist() == [17, 24, 31, 38, 45]
    scores, rows = exact_search(matrix, matrix[3:4], 150)
    assert rows[0, : len(equal)].tolist() == equal.tolist() and len(set(scores[0, : len(equal)].tolist())) == 1


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_an_index_orders_what_it_finds_by_row_where_scores_are_tied(kind: Kind) -> None:
    matrix = np.concatenate([clustered(2000), np.repeat(clustered(1, seed=5), 4, axis=0)])
    matrix = matrix[np.random.default_rng(0).permutation(len(matrix))]
    rows = search_index(build_index(matrix, kind), clustered(1, seed=5), 4)[1][0]
    assert rows.tolist() == np.flatnonzero((matrix == clustered(1, seed=5)).all(1)).tolist()


def test_queries_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="queries of 16 numbers, the vectors have 32"):
        exact_search(clustered(50), clustered(2)[:, :16], 5)


def test_auto_is_flat_up_to_the_limit() -> None:
    assert choose_kind("auto", 100, 256, 100) == "flat"
    assert choose_kind("auto", 101, 256, 100) == "ivf"
    assert choose_kind("auto", 34, 768, 100) == "ivf"
    assert choose_kind("hnsw", 5, 256, 100) == "hnsw"


def test_cells_are_ranked_by_the_stored_vectors() -> None:
    """Vectors that 8 bits a number can't tell apart stand in their true order, with their true scores."""
    rng = np.random.default_rng(3)
    matrix = np.repeat(clustered(400), 8, axis=0) + 3e-3 * rng.standard_normal((3200, 32)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    index = build_index(matrix, "ivf")
    scores, rows = search_index(index, matrix[:40], 5)
    true, expected = exact_search(matrix, matrix[:40], 5)
    assert (rows == expected).mean() > 0.98
    np.testing.assert_allclose(scores, true, atol=1.1 * TIE)  # a group of tied ones may begin elsewhere
    raw = index.faiss.search(matrix[:40], 5)[1]
    assert (raw == expected).mean() < 0.9


def test_cells_give_as_many_as_requested() -> None:
    matrix = clustered(2000)
    _, rows = search_index(build_index(matrix, "ivf"), matrix[:3], 1500)
    assert rows.shape == (3, 1500)
    assert (rows >= 0).mean() > 0.95
    assert all(len(set(found[found >= 0])) == (found >= 0).sum() for found in rows)


def test_missing_damaged_or_foreign_index(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    with pytest.raises(ModelError, match="missing"):
        load_index(path, "flat", 0, 1.0, clustered(5))
    path.write_bytes(b"not an index")
    with pytest.raises(ModelError, match="damaged"):
        load_index(path, "flat", 0, 1.0, clustered(5))
    save_index(build_index(clustered(4), "flat"), path)
    with pytest.raises(ModelError, match="4 x 32"):
        load_index(path, "flat", 0, 1.0, clustered(5))
    with pytest.raises(ModelError, match="4 x 32 numbers, the vectors are 4 x 16"):
        load_index(path, "flat", 0, 1.0, clustered(4, dimension=16))
