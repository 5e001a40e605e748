"""Photos on their way to a model: opened, as small as the model reads them, or not at all where it knows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..settings import CatalogSettings
from .images import ImageProblem, open_image
from .problems import Problem, Problems

if TYPE_CHECKING:
    from PIL.Image import Image

OPENERS = min(4, os.cpu_count() or 1)
"""Threads that open photos; Pillow lets go of Python's lock while it decodes and resizes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo as a Qwen-VL takes it.

    `content` is the hash of its file ("" where no code needs it), `grid` the (height, width) in the tower's patches,
    `pixels` the number in the file. `image` has the size that the model reads; None: what the tower makes of it is
    stored, and the photo stays closed.
    """

    path: Path
    content: str
    grid: tuple[int, int]
    pixels: int
    catalog: CatalogSettings
    image: Image | None


def opened(image: Image | Picture) -> Image:
    """Return the picture itself; a photo that was left closed is opened now. Raises ImageProblem."""
    if not isinstance(image, Picture):
        return image
    return image.image or open_image(image.path, image.catalog)


LoadImage = Callable[[Path], "Image | Picture"]
"""Loads the photo at a path: opened, reduced, or left closed where its features are stored. Raises ImageProblem."""


@runtime_checkable
class ImageLoader(Protocol):
    """A model that loads its own photos, in the size it reads them in."""

    def load_image(self, path: Path, catalog: CatalogSettings) -> Image | Picture:
        """Load the photo at `path`, ready for `encode` or `generate`. Raises ImageProblem."""


def image_loader(model: object, catalog: CatalogSettings) -> LoadImage:
    """Return what loads photos for `model`: its own `load_image`, else `open_image`."""
    if isinstance(model, ImageLoader):
        return partial(model.load_image, catalog=catalog)
    return partial(open_image, settings=catalog)


@dataclass(frozen=True, slots=True)
class LoadedPhotos:
    """The readable photos of a product, in order, and those before them that can't be read."""

    photos: list[Image | Picture]
    bad: list[tuple[Path, ImageProblem]]

    def report(self, listing: str, row: int, catalog: CatalogSettings, problems: Problems) -> None:
        """Put the unreadable ones of `listing` into `problems`; with `bad_images = fail` the first raises DataError."""
        for path, reason in self.bad:
            problem = Problem("unreadable image", row, f"{path.name}: {reason.reason}", "", listing)
            problems.report(problem, catalog.bad_images, path)


def load_photos(paths: Iterable[Path], load_image: LoadImage, limit: int) -> LoadedPhotos:
    """Load the first `limit` readable photos of `paths` (0: all of them)."""
    found = LoadedPhotos([], [])
    for path in paths:
        if limit and len(found.photos) >= limit:
            break
        try:
            found.photos.append(load_image(path))
        except ImageProblem as problem:
            found.bad.append((path, problem))
    return found
