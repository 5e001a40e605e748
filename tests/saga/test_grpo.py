"""Advantages and loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from afmrl_cli.saga.grpo import advantages, grpo_loss, has_spread


def test_five_of_eight_right_are_the_papers_figure() -> None:
    # mean 5/8; sum of squares 5 (3/8)^2 + 3 (5/8)^2 = 15/8; std sqrt(15/56) = 0.517549
    # right: 0.375 / 0.517649 = 0.724429, wrong: -0.625 / 0.517649 = -1.207381
    (found,) = advantages([[1, 0, 1, 1, 0, 1, 0, 1]])
    assert found == pytest.approx([0.724429, -1.207381, 0.724429, 0.724429, -1.207381, 0.724429, -1.207381, 0.724429])
    assert [round(value, 2) for value in sorted(set(found))] == [-1.21, 0.72]


def test_groups_are_compared_each_with_its_own_mean() -> None:
    first, second = advantages([[0.0, 1.0], [5.0, 5.0, 8.0]])
    assert first == pytest.approx([-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4)])
    assert second == pytest.approx([-1 / (math.sqrt(3) + 1e-4)] * 2 + [2 / (math.sqrt(3) + 1e-4)])
    assert sum(second) == pytest.approx(0, abs=1e-12)


def test_a_group_without_spread_teaches_exactly_nothing() -> None:
    assert advantages([[0.1] * 3, [1.0], []]) == [[0.0] * 3, [0.0], []]
    assert has_spread([0.0, 1.0, 0.0]) and not has_spread([0.1] * 3) and not has_spread([1.0]) and not has_spread([])


def test_the_loss_is_divided_by_all_tokens_and_not_by_answers() -> None:
    # - ( 2 (-1 - 3) + (-1) (-5) ) / 3 = (8 - 5) / 3 = 1
    logps = torch.tensor([[-1.0, -3.0], [-5.0, -7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    found = grpo_loss(logps, mask, torch.tensor([2.0, -1.0]), 3)
    assert found.item() == pytest.approx(1.0, abs=1e-12)
    assert grpo_loss(logps, mask.long(), torch.tensor([2.0, -1.0]), 6).item() == pytest.approx(0.5, abs=1e-12)


def test_the_losses_of_the_chunks_of_a_step_add_up_to_its_own_in_any_order() -> None:
    torch.manual_seed(0)
    logps, scale = -torch.rand(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    mask = torch.rand(6, 4) < 0.7
    whole, tokens = grpo_loss(logps, mask, scale, int(mask.sum())), int(mask.sum())
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    chunks = [grpo_loss(logps[rows], mask[rows], scale[rows], tokens) for rows in order.split(2)]
    assert sum(chunk.item() for chunk in chunks) == pytest.approx(whole.item(), abs=1e-12)


def test_what_stands_beside_an_answer_has_no_effect_and_no_gradient() -> None:
    logps = torch.tensor([[-1.0, -math.inf], [-2.0, math.nan]], requires_grad=True)
    scale = torch.tensor([1.5, -0.5], requires_grad=True)
    loss = grpo_loss(logps, torch.tensor([[True, False], [True, False]]), scale, 2)
    loss.backward()
    assert loss.item() == pytest.approx(-(1.5 * -1 + -0.5 * -2) / 2)
    assert logps.grad is not None and logps.grad.tolist() == [[-0.75, 0.0], [0.25, 0.0]]
    assert scale.grad is None, "advantages are numbers that nothing is learnt by"


def test_the_gradient_is_that_of_the_formula() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    mask, scale = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]), torch.tensor([0.7, -1.2, 0.5])
    assert torch.autograd.gradcheck(lambda x: grpo_loss(x.log_softmax(-1)[..., 0], mask, scale, 8), logits)
