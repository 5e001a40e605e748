"""Chunks give the gradient of the big batch, with dropout on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from afmrl_cli.training.agcl import contrastive_loss, log_weights
from afmrl_cli.training.gradcache import cached_gradients, token_chunks

N = 12


def test_chunks_by_tokens() -> None:
    assert token_chunks([3, 9, 4, 4, 2], 12) == [[4], [1], [2, 3, 0]], "the largest is the last"
    assert token_chunks([100, 1], 10) == [[1], [0]], "a row above the budget stands alone"
    assert token_chunks([], 10) == []
    assert token_chunks([10, 8], 20) == [[0, 1]], "a tenth may be padding"
    assert sorted(map(len, token_chunks([10, 7], 20))) == [1, 1], "more may not"


@pytest.mark.parametrize("budget", [50, 400, 4096])
def test_little_of_a_chunk_is_padding(budget: int) -> None:
    lengths = [int(length) for length in torch.randint(1, 300, (256,), generator=torch.Generator().manual_seed(0))]
    chunks = token_chunks(lengths, budget)
    assert sorted(row for chunk in chunks for row in chunk) == list(range(256))
    for chunk in chunks:
        tokens = max(lengths[row] for row in chunk) * len(chunk)
        assert tokens <= budget or len(chunk) == 1
        assert tokens - sum(lengths[row] for row in chunk) <= 0.1 * tokens


def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.Tanh(), torch.nn.Linear(16, 4))


def loss_of(vectors: Tensor) -> Tensor:
    bm25 = torch.linspace(0, 3, N * N).reshape(N, N)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return contrastive_loss(unit[:N], unit[N:], temperature=0.1, log_weight=log_weights(bm25, "paper"), delta=0.1).value


def cached(vectors: Tensor) -> tuple[float, Tensor]:
    leaf = vectors.requires_grad_()
    loss = loss_of(leaf)
    return loss.item(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("budget", [2, 7, 1000])
def test_gradients_equal_the_big_batch_with_dropout(budget: int) -> None:
    torch.manual_seed(0)
    data = torch.randn(2 * N, 6)
    chunks = token_chunks([1 + i % 3 for i in range(2 * N)], budget)

    big = model().train()
    torch.manual_seed(5)
    vectors = torch.zeros(2 * N, 4)
    parts = {row: part for chunk in chunks for row, part in zip(chunk, big(data[chunk]), strict=True)}
    vectors = torch.stack([parts[row] for row in range(2 * N)])
    expected = loss_of(vectors)
    expected.backward()

    small = model().train()
    torch.manual_seed(5)
    value = cached_gradients(chunks, lambda rows: data[list(rows)], small, cached)
    assert value == pytest.approx(expected.item(), abs=1e-6)
    for ours, theirs in zip(small.parameters(), big.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_dropout_really_differs_between_chunks_and_runs() -> None:
    """The test above would prove nothing if dropout were off."""
    layer = model().train()
    assert not torch.equal(layer(torch.ones(1, 6)), layer(torch.ones(1, 6)))


def test_only_one_chunk_carries_a_graph() -> None:
    with_graph: list[bool] = []

    def forward(rows: Tensor) -> Tensor:
        out: Tensor = net(rows)
        with_graph.append(out.requires_grad)
        return out

    net, data = model(), torch.randn(2 * N, 6)
    cached_gradients([[*range(8)], [*range(8, 16)], [*range(16, 24)]], lambda r: data[list(r)], forward, cached)
    assert with_graph == [False, False, True, True, True]


def test_no_rows() -> None:
    def prepare(rows: Sequence[int]) -> Tensor:
        raise AssertionError

    with pytest.raises(ValueError, match="no rows"):
        cached_gradients([], prepare, model(), cached)
