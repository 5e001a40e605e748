"""The line before the model: one thread reads what waits in it, as many queries at once as wait together.

Nobody waits for a batch to fill up: the first query begins at once, and those that come while it is read are the next
batch. A query whose client is gone is passed over. What fails for a batch is tried query by query, so that one bad
query is nobody else's failure.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..retrieval.search import Prepared, Searcher

PHOTOS_AT_ONCE = 4
"""A photo costs as much as many texts: with more of them at once texts would wait for long."""
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class _Waiting:
    searcher: Searcher
    prepared: Prepared
    future: asyncio.Future[Vector]
    loop: asyncio.AbstractEventLoop

    @property
    def photos(self) -> int:
        return len(self.prepared.item.images)

    def done(self, result: Vector | BaseException) -> None:
        """Hand the result over to the event loop; nobody may be there any more."""

        def hand_over() -> None:
            if not self.future.done():
                if isinstance(result, BaseException):
                    self.future.set_exception(result)
                else:
                    self.future.set_result(result)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(hand_over)


class Line:
    """Queries that wait for the model. `start` begins to work them off, `stop` ends that."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="afmrl model", daemon=True)
        self.batches: dict[int, int] = {}
        """How many batches there were of each size."""

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch that is read now."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def __len__(self) -> int:
        return len(self._waiting)

    async def vector(self, searcher: Searcher, prepared: Prepared) -> Vector:
        """Return the vector [d] of a prepared query, once the model has read it. Raises as `Searcher.encode`."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(searcher, prepared, loop.create_future(), loop)
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.future

    def _work(self) -> None:
        while batch := self._next():
            searcher = batch[0].searcher
            self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
            for each, result in zip(batch, _read(searcher, batch), strict=True):
                each.done(result)

    def _next(self) -> list[_Waiting]:
        """Wait for queries and return the next batch, all of one searcher; [] at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return []
                batch: list[_Waiting] = []
                photos = 0
                while self._waiting and len(batch) < self._batch:
                    first = self._waiting[0]
                    if not first.future.done():
                        photos += first.photos
                        if batch and (first.searcher is not batch[0].searcher or photos > PHOTOS_AT_ONCE):
                            break
                        batch.append(first)
                    self._waiting.popleft()
            if batch:
                return batch


def _read(searcher: Searcher, batch: Sequence[_Waiting]) -> list[Vector | BaseException]:
    """Return the vector of each query, or what went wrong with it."""
    try:
        return list(searcher.encode([each.prepared for each in batch]))
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [result for each in batch for result in _read(searcher, [each])]
