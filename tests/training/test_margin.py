"""How far a loss is from a constant margin, against gradients that autograd gives."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch

from afmrl_cli.training.agcl import MARGIN, Loss, contrastive_loss, log_weights
from afmrl_cli.training.margin import ALIKE, CONSTANTS, Margin, compare, message

TAU = 0.2


def batch(form: str | None, seed: int = 0, *, delta: float | None = None, known: bool = False) -> Loss:
    torch.manual_seed(seed)
    q, c = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    bm25 = torch.rand(6, 6) * torch.tensor([0.0, 1.0, 8.0, 1.0, 0.0, 3.0]) + 9 * torch.eye(6)
    same = torch.zeros(6, 6, dtype=torch.bool)
    same[0, 1] = same[1, 0] = same[5, 2] = known
    weights = None if form is None else log_weights(bm25, form, same)  # type: ignore[arg-type]
    return contrastive_loss(q, c, temperature=TAU, log_weight=weights, delta=delta, known=same)


def test_a_constant_margin_is_found_as_what_it_is() -> None:
    margin = Margin()
    for seed in range(3):
        margin.add(batch("constant", seed, known=True), TAU)
    found = margin.summary()
    assert found is not None and found["constant"] == MARGIN and found["cosine"] == pytest.approx(1.0, abs=1e-9)
    assert "nearly the same loss" in message(found)


def test_graded_weights_and_the_mask_are_no_constant_margin() -> None:
    for made in (batch("graded"), batch(None, delta=0.0)):
        margin = Margin()
        margin.add(made, TAU)
        found = margin.summary()
        assert found is not None and found["cosine"] < ALIKE, "the same logits but for weights or mask"
        assert "nearly" not in message(found)


def test_the_comparison_is_that_of_gradients_by_autograd() -> None:
    loss = batch("graded", known=True)
    logits = loss.cosines.double() / TAU

    def gradient(weights: torch.Tensor) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        shifted = (leaf + weights.double()).masked_fill(loss.known, -math.inf)
        torch.nn.functional.cross_entropy(shifted, torch.arange(6), reduction="sum").backward()
        assert leaf.grad is not None
        return leaf.grad

    assert loss.log_weight is not None
    own = gradient(loss.log_weight)
    products, lengths, length = compare(loss, TAU)
    assert float(length) == pytest.approx(float(own.square().sum()), rel=1e-6)
    for i in (0, 20, 35, len(CONSTANTS) - 1):
        other = gradient(CONSTANTS[i] * (1 - torch.eye(6)))
        assert float(products[i]) == pytest.approx(float((own * other).sum()), rel=1e-6)
        assert float(lengths[i]) == pytest.approx(float(other.square().sum()), rel=1e-6)


def test_rows_without_a_negative_push_nothing_and_a_kill_loses_no_sum() -> None:
    q = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    nothing = contrastive_loss(q, q, temperature=TAU, known=torch.ones(3, 3, dtype=torch.bool))
    margin = Margin()
    margin.add(nothing, TAU)
    assert margin.summary() is None
    margin.add(batch("graded"), TAU)
    again = Margin(**asdict(margin))
    for each in (margin, again):
        each.add(batch("graded", 1), TAU)
    assert again == margin and math.isfinite(margin.own)
