"""Batches: order, sorting, and real allocations that fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afmrl_cli.errors import OutOfMemory
from afmrl_cli.listener import Silent
from afmrl_cli.models.batching import Batches, is_out_of_memory

TOO_MUCH = 1 << 50
"""Bytes that no machine has."""


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_longest_first_and_order_restored() -> None:
    seen: list[list[int]] = []

    def forward(indices: list[int]) -> list[int]:
        seen.append(indices)
        return [i * 10 for i in indices]

    assert Batches(2, Silent(), "x").run([3, 9, 1, 9, 5], list, forward) == [0, 10, 20, 30, 40]
    assert seen == [[1, 3], [4, 0], [2]]
    assert Batches(2, Silent(), "x").run([], list, forward) == []


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("where", ["prepare", "forward"])
def test_halves_until_it_fits_and_stays_there(kind: str, where: str) -> None:
    def allocate(rows: int) -> None:
        size = TOO_MUCH if rows > 3 else 1
        torch.empty(size, dtype=torch.uint8) if kind == "torch" else np.empty(size, np.uint8)

    sizes: list[int] = []

    def prepare(indices: list[int]) -> list[int]:
        if where == "prepare":
            allocate(len(indices))
        return indices

    def forward(indices: list[int]) -> list[int]:
        if where == "forward":
            allocate(len(indices))
        sizes.append(len(indices))
        return indices

    heard = Heard()
    batches = Batches(16, heard, "embedding")
    assert batches.run(list(range(20)), prepare, forward) == list(range(20))
    assert max(sizes) == 2
    assert [w.split("batches of ")[1] for w in heard.warnings] == ["8", "4", "2"]
    assert batches.run(list(range(20)), prepare, forward) == list(range(20))
    assert len(heard.warnings) == 3


def test_a_single_one_that_does_not_fit() -> None:
    def forward(indices: list[int]) -> list[int]:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
        return indices

    with pytest.raises(OutOfMemory, match="not even a batch of one") as caught:
        Batches(4, Silent(), "embedding").run([1] * 4, list, forward)
    assert caught.value.exit_code == 5


def test_texts_that_share_a_prefix_count_as_rows() -> None:
    sizes: list[int] = []

    def forward(indices: list[int]) -> list[int]:
        sizes.append(len(indices))
        return indices

    Batches(8, Silent(), "x").run([1] * 5, list, forward, rows_each=4)
    Batches(2, Silent(), "x").run([1] * 2, list, forward, rows_each=4)
    assert sizes == [2, 2, 1, 1, 1]


def test_other_errors_pass() -> None:
    def forward(indices: list[int]) -> list[int]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        Batches(4, Silent(), "x").run([1] * 4, list, forward)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(ValueError("out of memory"))
