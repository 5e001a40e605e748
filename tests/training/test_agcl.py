"""The loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from afmrl_cli.training.agcl import contrastive_loss, false_negatives, log_weights

TAU = 0.5


def unit(angles: list[float]) -> torch.Tensor:
    """Unit vectors in the plane, so that cosines are those of differences of angles."""
    a = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([torch.cos(a), torch.sin(a)], dim=1)


def two() -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines [[1, 0], [0.5, cos 30°]]."""
    return unit([0.0, math.pi / 3]), unit([0.0, math.pi / 2])


def test_two_by_two_by_hand() -> None:
    q, c = two()
    bm25 = torch.tensor([[2.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    w = [[math.exp(1 + math.tanh(b)) for b in row] for row in bm25.tolist()]
    s = [[1.0, 0.0], [0.5, math.sqrt(3) / 2]]
    e = [[w[i][j] * math.exp(s[i][j] / TAU) for j in range(2)] for i in range(2)]
    expected = -(math.log(e[0][0] / (e[0][0] + e[0][1])) + math.log(e[1][1] / (e[1][1] + e[1][0]))) / 2
    loss = contrastive_loss(q, c, temperature=TAU, log_weight=log_weights(bm25, "paper"))
    assert loss.value.item() == pytest.approx(expected, abs=1e-12)
    # the same with numbers instead of a formula: w = e^1.9640, e^1.4621, e^1, e^1.7616
    assert loss.value.item() == pytest.approx((0.078746 + 0.202574) / 2, abs=2e-6)


def test_positive_unweighted_by_hand() -> None:
    q, c = two()
    bm25 = torch.tensor([[2.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    loss = contrastive_loss(q, c, temperature=TAU, log_weight=log_weights(bm25, "negatives"))
    first = math.log(1 + math.exp(1 + math.tanh(0.5)) * math.exp((0.0 - 1.0) / TAU))
    second = math.log(1 + math.exp(1) * math.exp((0.5 - math.sqrt(3) / 2) / TAU))
    assert loss.value.item() == pytest.approx((first + second) / 2, abs=1e-12)


def test_graded_weights_by_hand() -> None:
    """The negative that shares most weighs e^3, the others by their share of that; a known one is no measure."""
    bm25 = torch.tensor([[9.0, 4.0, 1.0, 0.0], [2.0, 9.0, 2.0, 8.0], [0.0, 0.0, 9.0, 0.0], [1.0, 2.0, 3.0, 9.0]])
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[1, 3] = True
    expected = [[0.0, 3.0, 0.75, 0.0], [3.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 0.0]]
    assert log_weights(bm25, "graded", known).tolist() == expected
    assert log_weights(bm25, "graded")[1].tolist() == [0.75, 0.0, 0.75, 3.0], "a duplicate that nobody knows of"


def test_a_constant_margin_needs_no_attributes() -> None:
    for bm25 in (torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])):
        assert log_weights(bm25, "constant").tolist() == [[0.0, 1.5], [1.5, 0.0]]


def test_three_by_three_with_a_masked_negative() -> None:
    # Row 0: positive at 60° (0.5), a negative at 0° (1.0 > 0.5 + 0.1: masked), one at 90° (0).
    q, c = unit([0.0, 0.0, math.pi / 2]), unit([math.pi / 3, 0.0, math.pi / 2])
    bm25 = torch.tensor([[1.0, 3.0, 0.2], [0.1, 2.0, 0.0], [0.4, 0.0, 1.0]], dtype=torch.float64)
    loss = contrastive_loss(q, c, temperature=TAU, log_weight=log_weights(bm25, "paper"), delta=0.1)
    assert loss.too_similar.tolist() == [[False, True, False], [False, False, False], [False, False, False]]
    rows = []
    cosine = [[0.5, 1.0, 0.0], [0.5, 1.0, 0.0], [math.sqrt(3) / 2, 0.0, 1.0]]
    for i, kept in enumerate([[0, 2], [0, 1, 2], [0, 1, 2]]):
        terms = {j: math.exp(cosine[i][j] / TAU + 1 + math.tanh(bm25[i, j].item())) for j in kept}
        rows.append(-math.log(terms[i] / sum(terms.values())))
    assert loss.value.item() == pytest.approx(sum(rows) / 3, abs=1e-12)


def test_margin_is_measured_from_the_positive_and_is_strict() -> None:
    cosines = torch.tensor([[0.5, 0.6, 0.61], [0.2, 0.9, 0.99]], dtype=torch.float64)
    assert false_negatives(cosines, 0.1).tolist() == [[False, False, True], [False, False, False]]
    assert false_negatives(cosines, -1.0)[0, 0].item() is False, "the positive is never masked"


def test_a_rejected_pair_is_never_masked() -> None:
    torch.manual_seed(5)
    q, c = (torch.nn.functional.normalize(torch.randn(6, 3, dtype=torch.float64), dim=1) for _ in range(2))
    masked = contrastive_loss(q, c, temperature=TAU, delta=0.0)
    i, j = (int(x[0]) for x in torch.nonzero(masked.too_similar, as_tuple=True))
    no = torch.zeros(6, 6, dtype=torch.bool)
    assert contrastive_loss(q, c, temperature=TAU, delta=0.0, rejected=no).value == masked.value
    no[i, j] = True
    kept = contrastive_loss(q, c, temperature=TAU, delta=0.0, rejected=no)
    assert not kept.too_similar[i, j] and kept.too_similar.sum() == masked.too_similar.sum() - 1
    assert kept.value > masked.value, "one negative more in the denominator"
    everything = contrastive_loss(q, c, temperature=TAU, delta=0.0, rejected=~no | no)
    assert everything.value.item() == contrastive_loss(q, c, temperature=TAU).value.item()


def test_equal_weights_and_no_mask_are_infonce() -> None:
    torch.manual_seed(0)
    q, c = (torch.nn.functional.normalize(torch.randn(8, 5, dtype=torch.float64), dim=1) for _ in range(2))
    plain = torch.nn.functional.cross_entropy(q @ c.T / 0.02, torch.arange(8))
    for bm25 in (torch.zeros(8, 8, dtype=torch.float64), torch.full((8, 8), 3.0, dtype=torch.float64)):
        weighted = contrastive_loss(q, c, temperature=0.02, log_weight=log_weights(bm25, "paper"))
        assert weighted.value.item() == pytest.approx(plain.item(), rel=1e-12)
    assert contrastive_loss(q, c, temperature=0.02).value.item() == pytest.approx(plain.item(), rel=1e-12)


def test_known_positives_are_masked_and_the_positive_is_not() -> None:
    q, c = two()
    everything = torch.ones(2, 2, dtype=torch.bool)
    loss = contrastive_loss(q, c, temperature=TAU, known=everything)
    assert loss.known.tolist() == [[False, True], [True, False]]
    assert loss.value.item() == 0.0, "with every negative masked the loss is 0, not infinite"


def test_finite_loss_and_gradient_when_all_is_masked() -> None:
    q, c = unit([0.0, 0.0]).requires_grad_(), unit([math.pi, math.pi / 2])
    loss = contrastive_loss(q, c, temperature=0.02, delta=-10.0)
    loss.value.backward()
    assert loss.value.item() == 0.0
    assert q.grad is not None and torch.isfinite(q.grad).all()


def test_weights_and_mask_carry_no_gradient() -> None:
    q, c = unit([0.0, 0.4, 1.0]).requires_grad_(), unit([0.3, 0.5, 1.4])
    bm25 = torch.tensor([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1], [0.0, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    contrastive_loss(q, c, temperature=TAU, log_weight=log_weights(bm25, "paper"), delta=0.01).value.backward()
    assert bm25.grad is None
    # d/dq of the loss with constant weights, from the softmax
    with torch.no_grad():
        cosines = q @ c.T
        logits = cosines / TAU + 1 + torch.tanh(bm25)
        logits = logits.masked_fill(false_negatives(cosines, 0.01), -math.inf)
        expected = (logits.softmax(1) - torch.eye(3)) @ c / TAU / 3
    assert torch.allclose(q.grad, expected, atol=1e-12)  # type: ignore[arg-type]


def test_more_candidates_than_queries() -> None:
    q, c = unit([0.0, 1.0]), unit([0.1, 1.1, 2.0])
    expected = torch.nn.functional.cross_entropy(q @ c.T / TAU, torch.arange(2))
    assert contrastive_loss(q, c, temperature=TAU).value.item() == pytest.approx(expected.item(), rel=1e-12)
