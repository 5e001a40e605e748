"""GradCache: the gradient of a batch as large as you like, with the memory of one chunk.

    1. every chunk forward without gradient; its random state and its vectors are kept
    2. the loss over all vectors gives dL/dz for every row: the cache
    3. every chunk forward again from its random state, this time with gradient, and backward of <z, dL/dz>

It is exact, dropout included, since each chunk meets the same random numbers twice. One departure from the paper's
version: the last chunk's graph is kept from step 1 and used first in step 3, so that a batch of one chunk is an
ordinary step and one forward is always saved; the peak is still one chunk's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

PADDING = 0.1
"""Share of a chunk's tokens."""

RandomState = tuple[Tensor, Tensor | None]


def token_chunks(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Put rows of similar length into chunks of at most `budget` tokens, of which at most `PADDING` are padding.

    A row that is longer than the budget stands alone. The largest chunk is the last: its graph is kept.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    chunks: list[list[int]] = []
    filled = 0
    for row in order:
        tokens = lengths[chunks[-1][0]] * (len(chunks[-1]) + 1) if chunks else 0
        if chunks and tokens <= budget and tokens - filled - lengths[row] <= PADDING * tokens:
            chunks[-1].append(row)
            filled += lengths[row]
        else:
            chunks.append([row])
            filled = lengths[row]
    return sorted(chunks, key=lambda chunk: lengths[chunk[0]] * len(chunk))


def cached_gradients(
    chunks: Sequence[Sequence[int]],
    prepare: Callable[[Sequence[int]], Prepared],
    forward: Callable[[Prepared], Tensor],
    loss_of: Callable[[Tensor], tuple[Result, Tensor]],
) -> Result:
    """Add the gradient of a loss over all rows to whatever `forward` depends on; returns what `loss_of` returns first.

    `chunks` divide the rows 0..n-1. `prepare(rows)` gets a chunk ready, in another thread and up to twice; `forward`
    gives its vectors [k, d]. `loss_of(vectors)` takes all vectors [n, d], detached, and returns (anything, dL/dvectors
    [n, d]).
    """
    rows = sum(len(chunk) for chunk in chunks)
    states: list[RandomState] = []
    vectors: Tensor | None = None
    last: Tensor | None = None
    for i, (chunk, prepared) in enumerate(zip(chunks, one_ahead(prepare, chunks), strict=True)):
        states.append(random_state())
        with torch.set_grad_enabled(i + 1 == len(chunks)):
            last = forward(prepared)
        if vectors is None:
            vectors = torch.zeros(rows, last.shape[1], dtype=last.dtype, device=last.device)
        vectors[list(chunk)] = last.detach()
    if vectors is None or last is None:
        raise ValueError("no rows")
    result, gradient = loss_of(vectors)
    last.backward(gradient[list(chunks[-1])])  # type: ignore[no-untyped-call]
    del last
    others = chunks[:-1]
    for chunk, prepared, state in zip(others, one_ahead(prepare, others), states[:-1], strict=True):
        set_random_state(state)
        forward(prepared).backward(gradient[list(chunk)])  # type: ignore[no-untyped-call]
    return result


def one_ahead(prepare: Callable[[Sequence[int]], Prepared], chunks: Sequence[Sequence[int]]) -> Iterator[Prepared]:
    """Yield `prepare(chunk)` of each chunk in order, the next one in the making while the caller works on this one."""
    if not chunks:
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(prepare, chunks[0])
        for chunk in chunks[1:]:
            ready = upcoming.result()
            upcoming = thread.submit(prepare, chunk)
            yield ready
            del ready  # before the next result: two prepared chunks are in memory, not three
        yield upcoming.result()


def random_state() -> RandomState:
    """Return the random state of the CPU and of the current GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def set_random_state(state: RandomState) -> None:
    """Put a `random_state` back."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
