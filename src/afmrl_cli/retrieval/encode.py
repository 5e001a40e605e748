"""From products and queries to vectors in a cache: photos opened a group ahead by several threads, two groups in memory
at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from ..catalog.images import open_image
from ..catalog.pictures import OPENERS, LoadImage, Picture, image_loader, load_photos
from ..catalog.problems import Problems
from ..models.embed_input import Encoder, Item
from ..settings import CatalogSettings
from ..workspace import Workspace
from .cache import VectorCache

GROUP_BATCHES = 4
GROUP_PIXELS = 100_000_000  # 300 MB of opened photos; two groups are in memory at a time
AT_A_TIME = 8 * OPENERS


@dataclass(frozen=True)
class Input:
    """An item whose photos are still paths, and the `key` that its vector is kept under; `name` and `row` (0: none) of
    the catalog are shown when a photo can't be opened.
    """

    key: str
    item: Item
    name: str
    row: int = 0

    @property
    def paths(self) -> list[Path]:
        """Return the photos."""
        return [path for path in self.item.images if isinstance(path, Path)]


def encode_missing(
    work: Workspace,
    inputs: Iterable[Input],
    cache: VectorCache,
    load: Callable[[], Encoder],
    instruction: str,
    problems: Problems,
    what: str = "embedding",
    total: int | None = None,
) -> set[str]:
    """Encode what `cache` does not hold yet and keep it there, group by group.

    Returns the keys of inputs of which nothing remains: no text and no readable photo (photos that can't be opened are
    in `problems`). `load` is called when there is something to encode, and not before. Texts that were cut
    are reported once, at the end. `total` is shown beside progress where `inputs` does not say how many they are.
    """
    catalog, most = work.settings.catalog, work.settings.model.embedder_images
    if isinstance(inputs, Sequence):
        total = len([each for each in inputs if each.key not in cache])
    empty: set[str] = set()
    done = cut = 0
    begun: set[str] = set()
    new = _new(inputs, cache, begun)
    first = next(new, None)
    while first is not None and not (first.item.text.strip() or first.item.attributes):
        # The model is loaded before photos are opened, since it says how; but not for photos that can't be opened.
        found = load_photos(first.paths, partial(open_image, settings=catalog), most)
        if found.photos:
            break
        found.report(first.name, first.row, catalog, problems)
        empty.add(first.key)
        first = next(new, None)
    if first is None:
        return empty
    encoder = load()
    opening = _Opening(
        image_loader(encoder, catalog), catalog, GROUP_BATCHES * work.settings.embed.batch_size, most, problems
    )
    for group in opening.groups(chain([first], new)):
        items = {key: item for key, item in group if not item.empty}
        empty |= {key for key, _ in group} - items.keys()
        if items:
            before = encoder.texts_cut
            cache.add(list(items), encoder.encode(list(items.values()), instruction=instruction))
            cut += encoder.texts_cut - before
            begun.difference_update(items)  # the cache knows them now
        done += len(group)
        work.listener.progress(what, done, total)
    if cut:
        work.listener.warn(f"{what}: {cut_message(cut)}")
    return empty


def cut_message(texts: int) -> str:
    """Say that so many `texts` were too long."""
    many = f"{texts:,} text{' is' if texts == 1 else 's are'}"
    return f"{many} longer than model.max_text_tokens: the end of the product text was cut off, attributes never are"


def _new(inputs: Iterable[Input], cache: VectorCache, begun: set[str]) -> Iterator[Input]:
    """Give the inputs whose key is neither in the cache nor in `begun`, and put it there: equal ones are encoded
    once.
    """
    for wanted in inputs:
        if wanted.key not in begun and wanted.key not in cache:
            begun.add(wanted.key)
            yield wanted


@dataclass(frozen=True)
class _Opening:
    """Opens photos, as `load_image` does it, in groups of at most `size` inputs and about GROUP_PIXELS."""

    load_image: LoadImage
    catalog: CatalogSettings
    size: int
    max_images: int
    problems: Problems

    def groups(self, inputs: Iterator[Input]) -> Iterator[list[tuple[str, Item]]]:
        """Yield the inputs in order, each group opened while the caller works on the one before.

        `inputs` itself is only ever advanced by the caller's thread: it may read a database.
        """
        waiting: deque[Input] = deque()
        with ThreadPoolExecutor(1) as foreman, ThreadPoolExecutor(OPENERS) as openers:
            waiting.extend(islice(inputs, self.size))
            upcoming = foreman.submit(self._group, waiting, openers)
            while group := upcoming.result():
                # Between two groups the foreman is idle, so that no other thread touches `waiting`.
                waiting.extend(islice(inputs, self.size - len(waiting)))
                upcoming = foreman.submit(self._group, waiting, openers)
                yield group

    def _group(self, waiting: deque[Input], openers: ThreadPoolExecutor) -> list[tuple[str, Item]]:
        group, pixels = list[tuple[str, Item]](), 0
        while waiting and len(group) < self.size and pixels < GROUP_PIXELS:
            # A few at a time: how large photos are is known once they are open.
            some = [waiting.popleft() for _ in range(min(len(waiting), AT_A_TIME, self.size - len(group)))]
            found = openers.map(lambda wanted: load_photos(wanted.paths, self.load_image, self.max_images), some)
            for wanted, photos in zip(some, found, strict=True):
                photos.report(wanted.name, wanted.row, self.catalog, self.problems)
                group.append((wanted.key, replace(wanted.item, images=tuple(photos.photos))))
                pixels += sum(photo.width * photo.height for photo in photos.photos if not isinstance(photo, Picture))
        return group
