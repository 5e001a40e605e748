"""Classification and clustering: by hand, and equal to scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics.cluster import contingency_matrix
from sklearn.model_selection import GroupKFold

from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.clusters import accuracies, class_metrics, learnable, purity

OPTIONS = {"neighbors": 3, "clusterings": 3, "seed": 0}


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def blobs(spread: float, seed: int = 0) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Ninety listings of thirty products in three classes."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.eye(3, 8), 30, axis=0)
    names = [name for name in "abc" for _ in range(30)]
    return unit(centres + rng.normal(0, spread, (90, 8))), names, [f"p{i // 3}" for i in range(90)]


def test_purity_by_hand() -> None:
    # Cluster 0 holds classes 0, 0, 1; cluster 1 holds 1, 2: two and one are of the commonest class.
    assert purity(np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1])) == pytest.approx(3 / 5)


@pytest.mark.parametrize("seed", range(5))
def test_purity_equals_scikit_learns_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, clusters = rng.integers(0, 5, 80), rng.integers(0, 7, 80)
    assert purity(classes, clusters) == pytest.approx(contingency_matrix(classes, clusters).max(axis=0).sum() / 80)


def test_classes_that_lie_apart_are_all_right() -> None:
    vectors, names, products = blobs(0.02)
    figures = class_metrics(vectors, names, products, **OPTIONS)
    assert figures.metrics["knn_accuracy"] == figures.metrics["probe_accuracy"] == 1.0
    assert (figures.listings, figures.classes, figures.left_out) == (90, 3, 0)
    assert set(figures.metrics) == {"knn_accuracy", "probe_accuracy", "nmi", "ari", "purity"}
    assert set(figures.deviations) == {"nmi", "ari", "purity"}


def test_knn_equals_counting_by_hand() -> None:
    vectors, names, products = blobs(0.9, seed=2)
    numbers = np.array(["abc".index(name) for name in names])
    groups = np.array(products)
    right = 0
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(vectors, numbers, groups):
        for row in test:
            nearest = train[np.argsort(-(vectors[train] @ vectors[row]), kind="stable")[:3]]
            right += np.bincount(numbers[nearest], minlength=3).argmax() == numbers[row]
    found = accuracies(vectors, numbers, groups, 3, 0)
    assert 0.3 < found["knn_accuracy"] < 0.95
    assert found["knn_accuracy"] == pytest.approx(right / 90)


def test_listings_of_one_product_do_not_teach_each_other() -> None:
    # Every product is a random point with three listings on it, and a random class: without folds by product, a kNN
    # would find the other listings and be right every time.
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(rng.normal(size=(60, 8)), 3, axis=0))
    names = [name for name in rng.choice(["a", "b"], 60) for _ in range(3)]
    products = [f"p{i // 3}" for i in range(180)]
    assert class_metrics(vectors, names, products, **OPTIONS).metrics["knn_accuracy"] < 0.75


def test_classes_of_one_product_are_left_out() -> None:
    vectors, names, products = blobs(0.02)
    names[0] = names[1] = names[2] = "alone"
    assert learnable(names, products) == list(range(3, 90))
    assert class_metrics(vectors, names, products, **OPTIONS).left_out == 3
    with pytest.raises(DataError, match="fewer than two classes"):
        class_metrics(vectors, ["a"] * 90, products, **OPTIONS)
