"""Photos of listings, by id and number, as small JPEGs.

No part of a request is ever a path: an id finds a row, a number one of the row's photos. The row comes from the store,
which may be a stranger's, so the file must lie in the catalog's folder (unless the settings allow others), and it is
decoded and encoded anew: what is no photo can't be sent, nor what stands in a photo's metadata.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog.images import ImageProblem, open_image
from ..settings import CatalogSettings
from .opened import Opened
from .refusals import Refusal

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = {"small": 320, "large": 1280}
QUALITY = 84


@dataclass(frozen=True)
class Photo:
    """A photo as it is sent: JPEG, and what tells it from other content."""

    content: bytes
    tag: str


class Photos:
    """Photos as they are sent; the most recent ones stay in memory, up to `most_bytes`."""

    def __init__(self, root: Path, settings: CatalogSettings, most_bytes: int) -> None:
        self._root, self._settings, self._most = root, settings, most_bytes
        self._kept: OrderedDict[tuple[str, int, int, int], Photo] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, opened: Opened, id: str, number: int, size: str) -> Photo:
        """Return photo `number`, from 0 on, of the listing `id`. Raises Refusal where there is none."""
        row = opened.rows.get(id)
        if row is None:
            raise unknown(id)
        if size not in SIDES:
            raise Refusal(422, f"there is no size {size[:20]!r}", f"known are {', '.join(SIDES)}")
        names = opened.searcher.vectors.listings.listing(row).images
        if not 0 <= number < len(names):
            raise Refusal(404, f"{id[:100]} has {len(names)} photo{'' if len(names) == 1 else 's'}", "the first is 0")
        path = self._own(names[number])
        try:
            status = path.stat()
        except OSError:
            raise Refusal(404, "the photo's file is gone", "run `afmrl check`") from None
        key = (str(path), status.st_size, status.st_mtime_ns, SIDES[size])
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        try:
            content = jpeg(open_image(path, self._settings), SIDES[size])
        except ImageProblem as problem:
            raise Refusal(404, f"the photo can't be opened: {problem.reason}", "run `afmrl check`") from None
        made = Photo(content, hashlib.sha256(content).hexdigest()[:32])
        self._keep(key, made)
        return made

    def _own(self, name: str) -> Path:
        """Return the photo's file. Raises Refusal where it is not the catalog's."""
        try:
            path = (self._root / name).resolve()
            own = self._settings.allow_outside or path.is_relative_to(self._root.resolve())
        except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL
            own = False
        if not own:
            raise Refusal(404, "the photo does not lie in the catalog's folder", "run `afmrl embed` again")
        return path

    def _keep(self, key: tuple[str, int, int, int], photo: Photo) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = photo
            self._size += len(photo.content)
            while self._size > self._most and self._kept:
                _, gone = self._kept.popitem(last=False)
                self._size -= len(gone.content)


def unknown(id: str) -> Refusal:
    """Return the refusal of a listing that there is not."""
    return Refusal(404, f"no listing {id[:100]!r}", "it may be new since `afmrl embed`, or had no content")


def jpeg(image: Image, side: int) -> bytes:
    """Return an RGB photo as a JPEG of at most `side` pixels a side."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def address(id: str, number: int) -> str:
    """Return where a listing's photo is found, relative to the service."""
    from urllib.parse import quote

    return f"/photos/{quote(id, safe='')}/{number}"
