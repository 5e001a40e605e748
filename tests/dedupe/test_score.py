"""The two looks of the score: rivals on either side, weights, and first scores that did not see their own pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from afmrl_cli.dedupe import score as module
from afmrl_cli.dedupe.features import NAMES
from afmrl_cli.dedupe.score import Scorer, fit_scorer

Blocks = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]]


def features_of(strength: NDArray[np.float64]) -> NDArray[np.float32]:
    made = np.zeros((len(strength), len(NAMES)), dtype=np.float32)
    made[:, NAMES.index("text")] = strength
    return made


def blocks(same: Callable[[bool, bool], bool], count: int = 600) -> Blocks:
    """`count` pairs a-b, some of which have a better partner for a, for b or for both; `same` says when a-b is right.

    Returns features, pairs, labels, the row of each a-b, and which partners it has (0 none, 1 a, 2 b, 3 both). Rows are
    shuffled: the better partner stands before or after.
    """
    rng = np.random.default_rng(3)
    name = iter(rng.permutation(4 * count))
    pairs: list[tuple[int, int]] = []
    labels, strength, rows, kinds = [], [], [], []
    for block in range(count):
        a, b, c, d = (int(next(name)) for _ in range(4))
        kind = block % 4
        rows.append(len(pairs))
        kinds.append(kind)
        pairs.append((a, b))
        strength.append(0.6)
        labels.append(same(kind in (1, 3), kind in (2, 3)))
        for own, partner in ((a, c),) * (kind in (1, 3)) + ((b, d),) * (kind in (2, 3)):
            pairs.append((own, partner))
            strength.append(0.9)
            labels.append(True)
        pairs.append((c, d))
        strength.append(0.1)
        labels.append(False)
    noise = rng.normal(0, 0.02, len(pairs))
    made = np.sort(np.array(pairs), axis=1)
    return (
        features_of(np.array(strength) + noise),
        made,
        np.array(labels, dtype=np.int8),
        np.array(rows),
        np.array(kinds),
    )


def fitted(features: NDArray[np.float32], pairs: NDArray[np.int64], labels: NDArray[np.int8]) -> Scorer:
    listings = int(pairs.max()) + 1
    scorer = fit_scorer(features, pairs, labels, np.ones(len(pairs)), [f"p{row}" for row in range(listings)])
    assert scorer.fitted
    return scorer


@pytest.mark.parametrize(
    ("same", "right"),
    [(lambda a, b: not (a or b), {0}), (lambda a, b: not (a and b), {0, 1, 2})],
    ids=["one better partner is enough", "both must have a better partner"],
)
def test_a_better_partner_of_either_listing_counts(same: Callable[[bool, bool], bool], right: set[int]) -> None:
    features, pairs, labels, rows, kinds = blocks(same)
    scorer = fitted(features, pairs, labels)
    scores = scorer.scores(features, pairs, scorer.of_candidates)[rows]
    for kind in range(4):
        of_kind = scores[kinds == kind]
        assert ((of_kind > 0.5) == (kind in right)).mean() > 0.95, kind


def test_what_a_sample_leaves_out_is_weighted_up_and_weights_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the mean score is the share of the same pairs, each by its weight."""
    monkeypatch.setattr(module, "MOST_PAIRS", 1000)
    rng = np.random.default_rng(0)
    count = 8000
    strength = rng.random(count)
    labels = (rng.random(count) < 0.3 * strength).astype(np.int8)
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    features = features_of(strength)
    for of_different in (1.0, 4.0):
        weights = np.where(labels == 1, 1.0, of_different)
        scorer = fit_scorer(features, pairs, labels, weights, [f"p{i}" for i in range(2 * count)])
        scores = scorer.scores(features, pairs, scorer.of_candidates)
        expected = np.average(labels, weights=weights)
        assert np.average(scores, weights=weights) == pytest.approx(expected, rel=0.15)


def test_first_scores_of_known_pairs_are_of_looks_that_did_not_see_them() -> None:
    """Of noise nothing can be learnt: in sample it looks as if it could."""
    rng = np.random.default_rng(1)
    count = 300
    features = rng.random((count, len(NAMES))).astype(np.float32)
    labels = (np.arange(count) % 2).astype(np.int8)
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    scorer = fitted(features, pairs, labels)

    def right(scores: NDArray[np.float64]) -> float:
        return float((scores[labels == 1][:, None] > scores[labels == 0][None]).mean())

    assert right(scorer.first.decision_function(features)) > 0.6
    assert right(scorer.of_candidates) < 0.55


def test_pairs_of_one_identity_are_never_split_over_folds() -> None:
    """Each product's own features: known only to who has seen another of its pairs."""
    rng = np.random.default_rng(2)
    products, each = 60, 8
    code = rng.normal(size=(products, len(NAMES)))
    of_product = (np.arange(products) % 2).astype(np.int8)
    features = (np.repeat(code, each, axis=0) + rng.normal(0, 0.01, (products * each, len(NAMES)))).astype(np.float32)
    labels = np.repeat(of_product, each)
    rows = np.arange(products * each)
    pairs = np.stack([rows, rows + products * each], axis=1)
    identities = [f"p{row // each}" for row in rows] * 2
    scorer = fit_scorer(features, pairs, labels, np.ones(len(pairs)), identities)
    agree = ((scorer.of_candidates > 0) == (labels == 1)).mean()
    assert agree < 0.75
    assert ((scorer.first.decision_function(features) > 0) == (labels == 1)).mean() > agree + 0.1


def test_pairs_without_weight_are_not_known() -> None:
    """200 pairs, all with a label: that of 29 of the same counts, then that of 30."""
    pairs = np.stack([np.arange(200), np.arange(200) + 200], axis=1)
    labels = (np.arange(200) < 100).astype(np.int8)
    features = features_of(np.linspace(1, 0, 200))
    for known, fitted_by in ((29, False), (30, True)):
        weights = np.where((labels == 0) | (np.arange(200) < known), 1.0, 0.0)
        scorer = fit_scorer(features, pairs, labels, weights, [f"p{row}" for row in range(400)])
        assert scorer.fitted == fitted_by, known


def test_of_one_kind_of_pairs_alone_nothing_is_fitted() -> None:
    pairs = np.stack([np.arange(200), np.arange(200) + 200], axis=1)
    features = features_of(np.linspace(1, 0, 200))
    for few in (29, 171):
        labels = (np.arange(200) < few).astype(np.int8)
        scorer = fit_scorer(features, pairs, labels, np.ones(200), [f"p{row}" for row in range(400)])
        assert not scorer.fitted, few


def test_only_the_ratio_of_weights_counts() -> None:
    features, pairs, labels, _, _ = blocks(lambda a, b: not (a or b), 100)
    identities = [f"p{row}" for row in range(int(pairs.max()) + 1)]
    weights = np.where(labels == 1, 1.0, 3.0)
    once, tenfold = (fit_scorer(features, pairs, labels, factor * weights, identities) for factor in (1.0, 10.0))
    np.testing.assert_allclose(once.of_candidates, tenfold.of_candidates, rtol=1e-6)


def test_the_first_look_is_fitted_once_a_fold_however_many_products_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    fitted_on: list[int] = []
    fit = LogisticRegression.fit

    def counted(self: LogisticRegression, columns: NDArray[np.float64], *args: object, **named: object) -> object:
        fitted_on.append(len(columns))
        return fit(self, columns, *args, **named)

    monkeypatch.setattr(LogisticRegression, "fit", counted)
    features, pairs, labels, _, _ = blocks(lambda a, b: not (a or b), 100)
    fitted(features, pairs, labels)
    *folds, first, second = fitted_on
    assert len(folds) == module.FOLDS and first == second == len(pairs)
    assert sum(folds) == (module.FOLDS - 1) * len(pairs) and min(folds) > 0.7 * len(pairs)


def test_one_known_product_is_too_few() -> None:
    pairs = np.stack([np.arange(200), np.arange(200) + 200], axis=1)
    labels = (np.arange(200) < 40).astype(np.int8)
    identities = ["one" if row < 40 else f"p{row}" for row in range(400)]
    features = features_of(np.linspace(1, 0, 200))
    assert not fit_scorer(features, pairs, labels, np.ones(200), identities).fitted
