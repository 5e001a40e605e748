"""The teacher's attention and the loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afmrl_cli.saga.anchoring import anchoring_loss, teacher_attention
from afmrl_cli.saga.pooler import Pooler

HEADS = torch.tensor(
    [
        [[0.2, 0.6, 0.2], [0.9, 0.1, 0.0]],
        [[0.9, 0.05, 0.05], [0.5, 0.1, 0.4]],
    ],
    dtype=torch.float64,
)
"""Two heads, two tokens, three columns, of which the last two are the photo's patches."""
PATCHES = torch.tensor([1, 2])


def test_heads_are_averaged_then_patches_renormalised_then_tokens_averaged() -> None:
    # token 1: heads (0.6 + 0.05) / 2, (0.2 + 0.05) / 2 = 0.325, 0.125  ->  0.722222, 0.277778
    # token 2: heads (0.1 + 0.1) / 2, (0 + 0.4) / 2     = 0.1, 0.2      ->  0.333333, 0.666667
    found = teacher_attention(HEADS, PATCHES)
    assert found.tolist() == pytest.approx([0.527778, 0.472222], abs=1e-6)
    seen = HEADS[:, :, PATCHES]
    heads_last = (seen / seen.sum(-1, keepdim=True)).mean((0, 1))
    renormalised_last = seen.mean((0, 1)) / seen.mean((0, 1)).sum()
    assert heads_last.tolist() == pytest.approx([0.6125, 0.3875], abs=1e-6)
    assert renormalised_last.tolist() == pytest.approx([0.566667, 0.433333], abs=1e-6)


def test_the_columns_are_taken_as_they_are_named() -> None:
    assert teacher_attention(HEADS, torch.tensor([2, 1])).tolist() == pytest.approx([0.472222, 0.527778], abs=1e-6)
    assert teacher_attention(HEADS[:, [1, 0]], PATCHES).tolist() == pytest.approx([0.527778, 0.472222], abs=1e-6)
    assert teacher_attention(HEADS[[1, 0]], PATCHES).tolist() == pytest.approx([0.527778, 0.472222], abs=1e-6)


def test_a_token_that_does_not_look_at_the_photo_is_left_out() -> None:
    blind = torch.cat([HEADS, torch.tensor([[[1.0, 0.0, 0.0]]] * 2, dtype=torch.float64)], dim=1)
    assert teacher_attention(blind, PATCHES).tolist() == pytest.approx([0.527778, 0.472222], abs=1e-6)
    assert teacher_attention(blind[:, 2:], PATCHES).tolist() == [0.0, 0.0]
    assert teacher_attention(HEADS[:, :0], PATCHES).tolist() == [0.0, 0.0]


def test_attention_in_half_precision_is_summed_in_single() -> None:
    found = teacher_attention(torch.full((3, 4, 1000), 0.001, dtype=torch.bfloat16), torch.arange(500))
    assert found.dtype == torch.float32 and found.sum().item() == pytest.approx(1, abs=1e-5)
    assert found.tolist() == pytest.approx([1 / 500] * 500, rel=1e-5)


def test_the_loss_is_the_mean_over_photos_of_any_size_in_any_order() -> None:
    # 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25) = 0.143841;  1 ln(1 / 0.5) + 0 = 0.693147;  the mean 0.418494
    # three patches: 0.2 ln 0.4 + 0.3 ln 1.2 + 0.5 ln 2 = -0.183258 + 0.054696 + 0.346574 = 0.218012; the mean 0.351667
    alpha = [torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), torch.tensor([0.2, 0.3, 0.5])]
    beta = [torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.25, 0.25])]
    assert anchoring_loss(alpha[:2], beta[:2]).item() == pytest.approx(0.418494, abs=1e-6)
    assert anchoring_loss(alpha, beta).item() == pytest.approx(0.351667, abs=1e-6)
    assert anchoring_loss(alpha[::-1], beta[::-1]).item() == pytest.approx(0.351667, abs=1e-6)
    assert anchoring_loss(alpha, alpha).item() == pytest.approx(0, abs=1e-6), "nothing is left to learn"


def test_a_photo_that_no_token_looked_at_teaches_nothing() -> None:
    beta = torch.tensor([0.75, 0.25], requires_grad=True)
    loss = anchoring_loss([torch.zeros(2)], [beta])
    loss.backward()
    assert loss.item() == 0 and beta.grad is not None and beta.grad.tolist() == [0.0, 0.0]


def test_zeros_on_either_side_leave_loss_and_gradient_finite() -> None:
    logits = torch.tensor([0.0, -300.0, -1.0], requires_grad=True)
    loss = anchoring_loss([torch.tensor([0.5, 0.5, 0.0])], [torch.softmax(logits, 0)])
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 10
    assert logits.grad is not None and bool(logits.grad.isfinite().all()) and logits.grad[2] > 0


def test_the_gradient_reaches_beta_and_neither_the_teacher_nor_the_tower() -> None:
    torch.manual_seed(0)
    tokens, weights = torch.randn(3, 4, requires_grad=True), torch.rand(2, 5, 6, requires_grad=True)
    alpha, pooler = torch.softmax(torch.randn(3, requires_grad=True), 0), Pooler(4, 4, "attention")
    teacher = teacher_attention(weights, torch.tensor([1, 3, 5]))
    alpha.retain_grad()
    anchoring_loss([alpha, teacher], pooler([tokens.detach()] * 2).beta).backward()
    assert weights.grad is None and alpha.grad is None and tokens.grad is None
    assert pooler.query.grad is not None and bool(pooler.query.grad.any())
    assert pooler.key.weight.grad is not None and bool(pooler.key.weight.grad.any())
    assert pooler.out.weight.grad is None


def test_the_gradient_is_that_of_the_formula() -> None:
    torch.manual_seed(1)
    first, second = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    alpha = [torch.softmax(torch.randn(3), 0), torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0])]

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return anchoring_loss(alpha, [torch.softmax(a, 0), torch.softmax(b, 0)])

    assert torch.autograd.gradcheck(loss, (first, second))
