"""From products and queries to vectors in a cache: photos opened a group ahead, two groups in memory at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..catalog.problems import Problems
from ..catalog.product import Product
from ..listener import Listener
from ..models.embed_input import Item
from ..settings import CatalogSettings
from .cache import VectorCache

GROUP_BATCHES = 4
GROUP_PIXELS = 100_000_000  # 300 MB of opened photos; two groups are in memory at a time


class Encoder(Protocol):
    """Whatever makes vectors: the embedder, later any other model beside it."""

    @property
    def id(self) -> str:
        """Names the model and all that changes its vectors."""

    @property
    def texts_cut(self) -> int:
        """How many texts so far were longer than `model.max_text_tokens`; 0 for models that this does not apply to."""

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Unit vectors [n, d] in the order of `items`."""


@dataclass(frozen=True)
class Input:
    """One thing to encode: `text` (attributes included) and the first photos of `product`, kept under `key`."""

    key: str
    text: str
    product: Product

    @staticmethod
    def of_query(key: str, name: str, text: str, images: Sequence[Path]) -> Input:
        """A query, which is no product: `name` is shown when one of its photos can't be opened."""
        return Input(key, text, Product(name, images=tuple(images)))


def encode_missing(
    inputs: Iterable[Input],
    cache: VectorCache,
    load: Callable[[], Encoder],
    *,
    instruction: str,
    catalog: CatalogSettings,
    batch_size: int,
    max_images: int,
    problems: Problems,
    listener: Listener,
    what: str = "embedding",
    total: int | None = None,
) -> set[str]:
    """Encode what `cache` does not hold yet and keep it there, group by group.

    Returns the keys of inputs of which nothing remains: no text and no readable photo (photos that can't be opened are
    in `problems`). `load` is called when there is something to encode, and not before. Texts that were cut
    are told once, at the end.
    """
    empty: set[str] = set()
    done = cut = 0
    for group in _opened(_new(inputs, cache), catalog, GROUP_BATCHES * batch_size, max_images, problems):
        items = {key: item for key, item in group if item.text.strip() or item.images}
        empty |= {key for key, _ in group} - items.keys()
        if items:
            encoder = load()
            before = encoder.texts_cut
            cache.add(list(items), encoder.encode(list(items.values()), instruction=instruction))
            cut += encoder.texts_cut - before
        done += len(group)
        listener.progress(what, done, total)
    if cut:
        listener.warn(f"{what}: {told_cut(cut)}")
    return empty


def told_cut(texts: int) -> str:
    """What is told of `texts` texts that were too long."""
    many = f"{texts:,} text{' is' if texts == 1 else 's are'}"
    return f"{many} longer than model.max_text_tokens; the end was cut off, attributes first"


def _new(inputs: Iterable[Input], cache: VectorCache) -> Iterator[Input]:
    """The inputs whose key is neither in the cache nor asked for before: twins are encoded once."""
    seen: set[str] = set()
    for wanted in inputs:
        if wanted.key not in seen and wanted.key not in cache:
            seen.add(wanted.key)
            yield wanted


def _opened(
    inputs: Iterator[Input], catalog: CatalogSettings, size: int, max_images: int, problems: Problems
) -> Iterator[list[tuple[str, Item]]]:
    """Inputs in groups of at most `size` and about GROUP_PIXELS, photos opened by a second thread one group ahead.

    `inputs` itself is only ever advanced by the caller's thread: it may read a database.
    """
    from ..catalog.images import open_images

    waiting: deque[Input] = deque()

    def open_group() -> list[tuple[str, Item]]:
        group, pixels = list[tuple[str, Item]](), 0
        while waiting and len(group) < size and pixels < GROUP_PIXELS:
            wanted = waiting.popleft()
            photos = open_images(wanted.product, catalog, problems, max_images)
            group.append((wanted.key, Item(wanted.text, tuple(photos))))
            pixels += sum(photo.width * photo.height for photo in photos)
        return group

    def refill() -> None:
        waiting.extend(islice(inputs, size - len(waiting)))

    with ThreadPoolExecutor(max_workers=1) as thread:
        refill()
        upcoming = thread.submit(open_group)
        while group := upcoming.result():
            refill()  # between two groups the thread is idle, so that nobody else touches `waiting`
            upcoming = thread.submit(open_group)
            yield group
