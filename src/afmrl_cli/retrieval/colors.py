"""The colours of all listings' photos, stored beside their vectors: a part of hybrid search where a photo asks.

    <version>/colors.npy      int8 [n, 1025]: round(127 h / max |h|) of h = unit(mean of the photos' fine histograms,
                              `histogram`), and whether the listing has a photo that can be read
    <version>/colors.json     what it was made from, with its checksum

Made by `afmrl embed` for embedders that read photos, in a pass over the photos of new and changed listings; but not for
`light`, whose vectors have the very same colours in them. Killed, it goes on from the chunks that it has finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.pictures import opened
from ..catalog.problems import Problems
from ..errors import DataError, ModelError
from ..models.backends import kind_of_embedder, reads_photos
from ..models.embed_input import Item
from ..store.files import checksum, read_object, write_json, writing
from ..workspace import Workspace
from .cache import VectorCache, open_matrix
from .encode import Input, encode_missing
from .histogram import FINE, fine_histogram
from .listings import Listings
from .narrow import LARGEST
from .vectors import CURRENT, Vectors, open_current

ID = "color-fine-1"
COLORS, HEAD, PENDING = "colors.npy", "colors.json", "pending-colors"
ROWS_AT_ONCE = 256
"""Rows made float at a time: few enough that they stay in the processor's cache, which is 4 times as fast."""
Floats = NDArray[np.float32]


class ColorEncoder:
    """Colours as an encoder, so that they share the caches and the care for broken photos."""

    id = ID
    texts_cut = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> Floats:
        """Return the colours [n, 1024] of the photos of each item, each of which has one."""
        return np.stack([mean_colors(item) for item in items])


def mean_colors(item: Item) -> Floats:
    """Return the colours [1024] of the opened photos of `item`, which has one."""
    photos = [opened(image) for image in item.images if not isinstance(image, Path)]
    mean = np.mean([fine_histogram(photo) for photo in photos], axis=0)
    unit: Floats = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


@dataclass(frozen=True)
class Colors:
    """Colours of n listings, `rows` int8 [n, 1025]: the last number is 0 where a listing has no photo."""

    rows: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def of(colors: Sequence[Floats | None]) -> Colors:
        """Return the stored form of colours, None for a listing without a photo."""
        made = np.zeros((len(colors), FINE + 1), dtype=np.int8)
        for row, each in enumerate(colors):
            if each is not None:
                made[row] = _stored(each)
        return Colors(made)

    def scores(self, query: Floats) -> Floats:
        """Return the cosine with the colours [1024] of a query, [n]; 0 for listings without a photo."""
        scores = np.empty(len(self), dtype=np.float32)
        for at, piece in self._pieces():
            scores[at : at + len(piece)] = piece @ query
        return scores / self._lengths

    @cached_property
    def _lengths(self) -> Floats:
        """Lengths of the stored rows [n], at least 1."""
        squares = [np.einsum("ij,ij->i", piece, piece) for _, piece in self._pieces()]
        return np.maximum(np.sqrt(np.concatenate(squares)), 1) if squares else np.empty(0, dtype=np.float32)

    def _pieces(self) -> Iterator[tuple[int, Floats]]:
        for at in range(0, len(self), ROWS_AT_ONCE):
            yield at, np.asarray(self.rows[at : at + ROWS_AT_ONCE, :FINE], dtype=np.float32)

    def colors(self, row: int) -> Floats | None:
        """Return the colours [1024] of a listing, None without a photo."""
        own = self.rows[row, :FINE].astype(np.float32)
        return own / np.linalg.norm(own) if self.rows[row, FINE] else None


def _stored(colors: Floats) -> NDArray[np.int8]:
    row = np.ones(FINE + 1, dtype=np.int8)
    row[:FINE] = np.rint(colors * (LARGEST / np.abs(colors).max()))
    return row


def wants_colors(work: Workspace) -> bool:
    """Tell whether colours are a part of the search by the settings' embedder."""
    settings, listener = work.settings, work.listener
    if settings.search.hybrid == "no" or not reads_photos(settings, listener):
        return False
    return bool(settings.embed.endpoint) or kind_of_embedder(settings.model, listener) != "light"


def open_colors(vectors: Vectors) -> Colors | None:
    """Open the colours beside `vectors`, memory-mapped; None where `embed` made none. DataError when they are damaged:
    without them a photo would find other listings than before.
    """
    file, head = vectors.folder / COLORS, vectors.folder / HEAD
    if not head.exists():
        return None
    hint = "`afmrl embed` makes them again"
    try:
        rows = open_matrix(file, "|i1")
        right = read_object(head) == {**_facts(vectors), "crc32": checksum(file)}
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{file}: the colours of photos are damaged", hint) from error
    if not right or rows.shape != (len(vectors.listings), FINE + 1):
        raise DataError(f"{file}: the colours of photos are damaged", hint)
    return Colors(rows)


def usable_colors(vectors: Vectors) -> Colors | None:
    """Open the colours beside `vectors` where they are as they should be, for a caller that makes missing ones."""
    try:
        return open_colors(vectors)
    except DataError:
        return None


def _facts(vectors: Vectors) -> dict[str, Any]:
    return {"schema": "afmrl.colors/1", "id": ID, "data": vectors.manifest["data"]}


def _elsewhere(vectors: Vectors) -> Vectors | None:
    """Return the vectors of another embedder of the very same listings that have colours beside them."""
    for pointer in sorted(vectors.folder.parents[1].glob(f"*/{CURRENT}")):
        try:
            other = open_current(pointer.parent) if pointer.parent != vectors.folder.parent else None
        except ModelError:
            continue
        if other and other.manifest["data"] == vectors.manifest["data"] and usable_colors(other) is not None:
            return other
    return None


def encode_colors(work: Workspace, listings: Listings, cache: VectorCache, known: Container[str]) -> None:
    """Bring the colours of the listings with photos into `cache`, but of those whose key is `known`."""
    root = work.folder.root
    wanted = (
        Input(each.key, Item("", tuple(root / name for name in each.images)), each.id)
        for each in listings
        if each.images and each.key not in known
    )
    # Photos that can't be read were reported when the vectors were made.
    encode_missing(work, wanted, cache, ColorEncoder, "", Problems(), "colours", len(listings))


def bring_colors_up_to_date(
    work: Workspace, vectors: Vectors, before: tuple[Vectors, Colors] | None, beside: Sequence[Path] = ()
) -> bool:
    """Write the colours of `vectors` where they are not there or no longer right, and tell whether it was; those of
    listings that are as they were come from the version `before`, others from `beside` where shards have made them.
    The caller holds the writer's lock.
    """
    if usable_colors(vectors) is not None:
        return False
    if (same := _elsewhere(vectors)) is not None:
        with writing(vectors.folder / COLORS) as temporary:
            shutil.copyfile(same.folder / COLORS, temporary)
        write_json(vectors.folder / HEAD, read_object(same.folder / HEAD))
        return True
    known = {key: row for row, key in enumerate(before[0].listings.column("key"))} if before else {}
    keys: list[str] = vectors.listings.column("key")
    pending = VectorCache(vectors.folder.parent / PENDING, FINE, beside)
    encode_colors(work, vectors.listings, pending, known)
    file = vectors.folder / COLORS
    with writing(file) as temporary, temporary.open("wb") as out:
        header = {"descr": "|i1", "fortran_order": False, "shape": (len(keys), FINE + 1)}
        np.lib.format.write_array_header_1_0(out, header)
        nothing = np.zeros(FINE + 1, dtype=np.int8)
        for key in keys:
            if before is not None and key in known:
                row = np.asarray(before[1].rows[known[key]])
            else:
                row = _stored(np.asarray(pending.get(key))) if key in pending else nothing
            out.write(row.tobytes())
    write_json(vectors.folder / HEAD, {**_facts(vectors), "crc32": checksum(file)})
    shutil.rmtree(pending.folder, ignore_errors=True)
    return True
