"""The fit finds the weights by which choices were made, and the fused ranking follows them."""

from __future__ import annotations

import numpy as np
import pytest

from afmrl_cli.next_item.fused import PRIOR, Fused, Weights, feature, fit_weights
from afmrl_cli.next_item.logit import Choice, fit_logit
from afmrl_cli.next_item.retrieval import learnt_from_all, make_retrieval
from afmrl_cli.recommend.split import TEST, TRAIN, VALIDATION
from tests.next_item.cases import Row, histories, question

PLANTED = np.array([1.5, -2.0])


def chosen_by(weights: np.ndarray, questions: int, listings: int, seed: int = 1) -> list[tuple[np.ndarray, int]]:
    """Features of listings, and the one that was chosen with the probabilities of the logit."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(questions):
        features = rng.normal(size=(listings, len(weights))).astype(np.float32)
        utility = features @ weights + rng.gumbel(size=listings)
        found.append((features, int(utility.argmax())))
    return found


def test_the_fit_finds_planted_weights() -> None:
    choices = [Choice(features, np.ones(20), chosen) for features, chosen in chosen_by(PLANTED, 1_500, 20)]

    assert fit_logit(choices, np.zeros(2)) == pytest.approx(PLANTED, abs=0.15)


def test_a_sample_of_alternatives_finds_the_same_weights() -> None:
    """What has a high first feature is always among them, others by one chance in ten."""
    rng = np.random.default_rng(2)
    choices = []
    for features, chosen in chosen_by(PLANTED, 1_500, 200):
        chance = np.where(features[:, 0] > 1.5, 1.0, 0.1)
        kept = np.flatnonzero((rng.random(200) < chance) | (np.arange(200) == chosen))
        choices.append(Choice(features[kept], chance[kept], int(np.searchsorted(kept, chosen))))

    assert fit_logit(choices, np.zeros(2)) == pytest.approx(PLANTED, abs=0.2)
    wrong = [Choice(each.features, np.ones(len(each.chance)), each.chosen) for each in choices]
    assert abs(fit_logit(wrong, np.zeros(2))[0] - PLANTED[0]) > 0.5, "without the chances the weights are others"


def test_without_questions_the_weights_are_the_constant_ones() -> None:
    before = np.array([0.5, -1.0])

    assert fit_logit([], before).tolist() == [0.5, -1.0]
    few = [Choice(features, np.ones(20), chosen) for features, chosen in chosen_by(PLANTED, 2, 20)]
    assert np.abs(fit_logit(few, before) - before).max() < 0.9


def test_no_weight_is_below_its_bound() -> None:
    choices = [Choice(features, np.ones(20), chosen) for features, chosen in chosen_by(PLANTED, 300, 20)]

    bounded = fit_logit(choices, np.zeros(2), np.array([0.0, 0.0]))

    assert bounded[1] == 0
    assert bounded[0] > 0.8


def customers(repeating: bool) -> list[Row]:
    """Customers who take the same again in the validation part, or always something else."""
    rng = np.random.default_rng(3)
    rows: list[Row] = []
    for customer in range(60):
        first, other = (int(each) for each in rng.choice(30, 2, replace=False))
        rows += [(customer, first, customer), (customer, first if repeating else other, 100 + customer, VALIDATION)]
    return rows


@pytest.mark.parametrize("repeating", [True, False])
def test_had_is_learnt_from_what_customers_do(repeating: bool) -> None:
    known = histories(customers(repeating), 30)
    retrieval = make_retrieval(known, None)
    best = int(retrieval.fused.scores([question(7)])[0].argmax())

    assert retrieval.fused.weights.questions == 60
    assert (retrieval.fused.weights.by_source["had"] > 0.5) is repeating
    assert all(weight >= 0 for name, weight in retrieval.fused.weights.by_source.items() if name != "had")
    assert (best == 7) is repeating


def test_the_test_part_changes_no_weight() -> None:
    rows = customers(True)
    tested = [*rows, *((customer, customer % 30, 300, TEST) for customer in range(60))]

    plain = make_retrieval(histories(rows, 30), None).fused.weights
    with_test = make_retrieval(histories(tested, 30), None).fused.weights

    assert plain.by_source == with_test.by_source


def test_without_a_validation_part_the_weights_are_constants() -> None:
    rows: list[Row] = [(0, 1, 1, TRAIN), (0, 2, 5, TEST)]

    weights = make_retrieval(histories(rows, 5), None).fused.weights

    assert weights.questions == 0
    assert weights.by_source == {name: PRIOR[name] for name in weights.by_source}
    assert "history" not in weights.by_source, "there are no vectors"


def test_a_large_catalog_is_fitted_on_a_sample_and_the_same_each_time() -> None:
    known = histories(customers(True), 5_000)
    sources = make_retrieval(known, None, Weights(PRIOR, 0)).recommenders

    first, second = fit_weights(known, sources), fit_weights(known, sources)

    assert first == second
    assert first.by_source["had"] > 0.5


def test_the_fused_score_is_the_weighted_sum_of_what_sources_say() -> None:
    known = learnt_from_all(histories(customers(True), 30))
    retrieval = make_retrieval(known, None, Weights({**PRIOR, "had": 2.0}, 0))
    asked = [question(3), question(4, 5)]
    parts = retrieval.fused.parts(asked)

    assert retrieval.fused.scores(asked) == pytest.approx(sum(parts.values()))
    assert parts["had"][1, 4] == 2 and parts["had"][1, 3] == 0
    counts = retrieval.recommenders[0].scores(asked)
    assert parts["popularity"] == pytest.approx(PRIOR["popularity"] * np.log1p(counts))


def test_likeness_counts_in_spreads_so_that_the_embedder_makes_no_difference() -> None:
    scores = np.array([[0.9, 0.7, 0.8, -np.inf]], dtype=np.float32)

    found = feature("history", scores)

    assert found == pytest.approx(feature("history", 10 * scores - 3), abs=1e-5)
    assert found[0, 3] == 0 and found[0, :3].std() == pytest.approx(1)
    assert not feature("last item", np.zeros((1, 3), dtype=np.float32)).any()


def test_a_fused_ranking_has_scores_for_no_questions() -> None:
    assert Fused([], Weights({}, 0), 7).scores([]).shape == (0, 7)
