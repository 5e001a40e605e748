"""The losses against the same written out with numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from afmrl_cli.composed.loss import BatchVectors, bank_loss, batch_loss, perturbed_loss


def rows(number: int, seed: int, width: int = 6) -> torch.Tensor:
    torch.manual_seed(seed)
    return normalize(torch.randn(number, width, dtype=torch.float64), dim=1)


def cross_entropy(logits: np.ndarray, right: int, without: tuple[int, ...] = ()) -> float:
    kept = [value for i, value in enumerate(logits) if i not in without]
    return float(np.log(np.exp(kept).sum()) - logits[right])


def batch(answers: list[list[bool]]) -> BatchVectors:
    return BatchVectors(
        rows(3, 1),
        rows(3, 2),
        rows(3, 3),
        rows(2, 4),
        torch.tensor([0, 1, -1]),
        torch.tensor([1, 1, 0]),
        torch.tensor(answers),
    )


def test_the_first_stage_is_three_cross_entropies() -> None:
    found = batch([[True, False, True], [False, True, False], [False, False, True]])
    q, s, d, c = (each.numpy() for each in (found.queries, found.references, found.targets, found.captions))
    asked = [cross_entropy(q[0] @ d.T / 0.1, 0, (2,)), *(cross_entropy(q[i] @ d.T / 0.1, i) for i in (1, 2))]
    references = [cross_entropy(s[i] @ c.T / 0.1, i) for i in (0, 1)]
    targets = [cross_entropy(d[i] @ c.T / 0.1, own) for i, own in enumerate((1, 1, 0))]
    plain = batch_loss(found, temperature=0.1, caption_weight=0.0)
    assert float(plain) == pytest.approx(np.mean(asked), abs=1e-9), "what answers as well is no negative"
    whole = batch_loss(found, temperature=0.1, caption_weight=0.5)
    assert float(whole) == pytest.approx(np.mean(asked) + 0.5 * (np.mean(references) + np.mean(targets)), abs=1e-9)


def test_a_batch_without_captions_has_a_gradient_all_the_same() -> None:
    q = rows(2, 1).requires_grad_()
    nothing = torch.tensor([-1, -1])
    found = BatchVectors(q, rows(2, 2), rows(2, 3), rows(1, 4), nothing, nothing, torch.eye(2, dtype=torch.bool))
    loss = batch_loss(found, temperature=0.1, caption_weight=0.5)
    loss.backward()
    assert math.isfinite(float(loss.detach())) and q.grad is not None and bool(q.grad.abs().sum() > 0)


def test_the_bank_is_a_classification_with_what_answers_left_out() -> None:
    q, bank = rows(2, 1), rows(5, 2)
    found = bank_loss(q, bank, torch.tensor([3, 0]), [[3, 1, 4], [0]], 0.2)
    logits = (q @ bank.T / 0.2).numpy()
    assert float(found) == pytest.approx(cross_entropy(logits[0], 3, (1, 4)) + cross_entropy(logits[1], 0), abs=1e-9)


def test_perturbed_captions_stand_beside_the_true_one() -> None:
    q, captions = rows(2, 1), torch.stack([rows(3, 2), rows(3, 3)])
    logits = [(captions[i].numpy() @ q[i].numpy()) / 0.2 for i in range(2)]
    assert float(perturbed_loss(q, captions, 0.2)) == pytest.approx(
        sum(cross_entropy(each, 0) for each in logits), abs=1e-9
    )
