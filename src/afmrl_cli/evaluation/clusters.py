"""Do the vectors of one class lie together? Classification and clustering of the gallery, as papers report them.

    kNN accuracy     a listing takes the class that most of its k nearest have (cosine)
    probe accuracy   a listing takes the class that a logistic regression on the vectors gives
    NMI              mutual information of clusters and classes over the mean of their entropies
    ARI              agreement over pairs of listings, corrected for chance
    purity           share of listings whose class is the commonest in their cluster

k-means makes as many clusters as there are classes, several times with seeds of their own: means and standard
deviations over the seeds. Accuracy is over five folds by product: listings of one product are never on both sides, else
a kNN would only have to find the product's other listing. A class with a single product can't be learnt from others;
its listings are left out and counted. scikit-learn does the fitting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

FOLDS = 5
PROBE_STEPS = 1000


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one system; `deviations` are over the k-means seeds."""

    metrics: dict[str, float]
    deviations: dict[str, float]
    listings: int
    classes: int
    left_out: int


def purity(classes: NDArray[np.int64], clusters: NDArray[np.int64]) -> float:
    """Return the share [0, 1] of listings that are of the commonest class in their cluster."""
    table = np.zeros((int(clusters.max()) + 1, int(classes.max()) + 1), dtype=np.int64)
    np.add.at(table, (clusters, classes), 1)
    return float(table.max(axis=1).sum() / len(classes))


def learnable(classes: Sequence[str], identities: Sequence[str]) -> list[int]:
    """Return the positions of listings whose class has two products or more."""
    products: dict[str, set[str]] = {}
    for name, identity in zip(classes, identities, strict=True):
        products.setdefault(name, set()).add(identity)
    return [i for i, name in enumerate(classes) if name and len(products[name]) > 1]


def class_metrics(
    vectors: NDArray[np.float32],
    classes: Sequence[str],
    identities: Sequence[str],
    *,
    neighbors: int,
    clusterings: int,
    seed: int,
) -> ClassMetrics:
    """Return metrics of `vectors` [n, d], rows of length 1. DataError when fewer than two classes can be learnt."""
    kept = learnable(classes, identities)
    names = sorted({classes[i] for i in kept})
    if len(names) < 2:
        raise DataError(
            "classes: fewer than two classes have two products or more", "choose another --label, or a larger catalog"
        )
    numbers = np.array([names.index(classes[i]) for i in kept])
    products = np.array([identities[i] for i in kept], dtype=np.str_)
    matrix = vectors[kept]
    metrics = accuracies(matrix, numbers, products, neighbors, seed)
    by_seed = [_clustering(matrix, numbers, len(names), seed + i) for i in range(clusterings)]
    deviations = {}
    for name in by_seed[0]:
        values = [metrics_of[name] for metrics_of in by_seed]
        metrics[name] = float(np.mean(values))
        deviations[name] = float(np.std(values, ddof=1)) if clusterings > 1 else 0.0
    return ClassMetrics(metrics, deviations, len(kept), len(names), len(classes) - len(kept))


def accuracies(
    matrix: NDArray[np.float32], classes: NDArray[np.int64], products: NDArray[np.str_], neighbors: int, seed: int
) -> dict[str, float]:
    """Return kNN and probe accuracy of `matrix` [n, d] over folds by product."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.neighbors import KNeighborsClassifier

    folds = GroupKFold(min(FOLDS, len(np.unique(products))), shuffle=True, random_state=seed)
    right = {"knn_accuracy": 0, "probe_accuracy": 0}
    for train, test in folds.split(matrix, classes, products):
        if len(np.unique(classes[train])) < 2:
            continue  # nothing to tell apart: these listings count as wrong
        models = {
            "knn_accuracy": KNeighborsClassifier(min(neighbors, len(train)), metric="cosine", algorithm="brute"),
            "probe_accuracy": LogisticRegression(max_iter=PROBE_STEPS),
        }
        for name, model in models.items():
            right[name] += int((model.fit(matrix[train], classes[train]).predict(matrix[test]) == classes[test]).sum())
    return {name: count / len(classes) for name, count in right.items()}


def _clustering(matrix: NDArray[np.float32], classes: NDArray[np.int64], number: int, seed: int) -> dict[str, float]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    clusters = KMeans(number, n_init=1, random_state=seed).fit_predict(matrix).astype(np.int64)
    return {
        "nmi": float(normalized_mutual_info_score(classes, clusters)),
        "ari": float(adjusted_rand_score(classes, clusters)),
        "purity": purity(classes, clusters),
    }
