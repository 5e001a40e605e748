"""Work in length-sorted batches, with the next batch prepared meanwhile, that halves the batch when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ..errors import OutOfMemory
from ..listener import Listener

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What torch's plain RuntimeErrors say when the CPU's allocator, CUDA or cuBLAS got no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in ALLOCATION_FAILURES)


class Batches:
    """Runs batches; remembers the size that fits, so that a later call does not run into the wall again."""

    def __init__(self, size: int, listener: Listener, what: str) -> None:
        """Take at most `size` rows a batch; `what` names the work in messages ("embedding")."""
        self.size = size
        self._listener = listener
        self._what = what

    def run(
        self,
        lengths: Sequence[int],
        prepare: Callable[[list[int]], Prepared],
        forward: Callable[[Prepared], Iterable[Result]],
        rows_each: int = 1,
    ) -> list[Result]:
        """Return one result per entry of `lengths`, in their order.

        `prepare(indices)` gets ready what `forward` takes, in a second thread, one batch ahead (at the end it is called
        for no indices at all, and what it answers is thrown away); `forward` returns one
        result per index. Longest first: a batch that does not fit shows at once. `rows_each` rows stand for one entry
        (texts that share a prefix). Raises OutOfMemory when a single entry does not fit.
        """
        todo = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        results: dict[int, Result] = {}
        with ThreadPoolExecutor(max_workers=1) as thread:
            take = self._rows(rows_each)
            future = thread.submit(prepare, todo[:take])
            while todo:
                batch = todo[:take]
                prepared: Prepared | None = None
                try:
                    prepared = future.result()
                    upcoming = thread.submit(prepare, todo[take : 2 * take])
                    results.update(zip(batch, forward(prepared), strict=True))
                    todo, future = todo[take:], upcoming
                    continue
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = str(error).split("\n", 1)[0][:200]
                # Outside the except block: until here the traceback keeps the failed batch's tensors alive.
                del prepared
                self._halve(len(batch), rows_each, reason)
                take = self._rows(rows_each)
                future = thread.submit(prepare, todo[:take])
        return [results[i] for i in range(len(lengths))]

    def _rows(self, rows_each: int) -> int:
        return max(1, self.size // rows_each)

    def _halve(self, entries: int, rows_each: int, reason: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if entries == 1:
            raise OutOfMemory(
                f"{self._what}: not even a batch of one fits into memory ({reason})",
                "lower model.max_pixels, model.generator_images, model.embedder_images or model.max_text_tokens, "
                "or use a smaller model",
            )
        self.size = max(1, entries // 2) * rows_each
        self._listener.warn(f"{self._what}: out of memory, going on with batches of {max(1, entries // 2)}")
