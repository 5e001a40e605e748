"""Requests about products, their photos loaded: for generation, SFT and its scoring alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog.images import open_image
from ..catalog.pictures import OPENERS, ImageLoader, LoadedPhotos, LoadImage, image_loader, load_photos
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..settings import Settings
from .request import Request
from .task import AttributeTask
from .views import first_photos

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_PHOTO_PIXELS = 2**20
"""Photos for a server are reduced to this, or model.max_pixels if that is more, as soon as they are opened: a window of
camera pictures would take gigabytes, and no model reads more."""


def open_request(
    task: AttributeTask, product: Product, settings: Settings, problems: Problems, generator: object = None
) -> Request | None:
    """Make the request with its photos; None when there is neither text nor a photo that can be opened.

    Photos are as `generator` wants them. Those that can't be opened go to `problems`; with `catalog.bad_images = fail`
    the first raises DataError.
    """
    found = _load_photos(product, _image_loader(generator, settings), settings)
    return _request(task, product, found, settings, problems)


def open_requests(
    task: AttributeTask, products: Sequence[Product], settings: Settings, problems: Problems, generator: object = None
) -> Iterator[Request | None]:
    """Make `open_request` of each of `products`, photos loaded by several threads."""
    load_image = _image_loader(generator, settings)
    with ThreadPoolExecutor(OPENERS) as threads:
        waiting = [threads.submit(_load_photos, product, load_image, settings) for product in products]
        try:
            for product, future in zip(products, waiting, strict=True):
                yield _request(task, product, future.result(), settings, problems)
        finally:
            threads.shutdown(cancel_futures=True)


def _load_photos(product: Product, load_image: LoadImage, settings: Settings) -> LoadedPhotos:
    """Load those readable of the photos that the answer's key names: no later photo steps in for a broken one."""
    return load_photos(first_photos(product, settings.model.generator_images).images, load_image, 0)


def _image_loader(generator: object, settings: Settings) -> LoadImage:
    """Return the generator's own loader; for a server one that reduces at once."""
    if isinstance(generator, ImageLoader):
        return image_loader(generator, settings.catalog)
    limit = max(MIN_PHOTO_PIXELS, settings.model.max_pixels)

    def reduced(path: Path) -> Image:
        image = open_image(path, settings.catalog)
        if image.width * image.height > limit:
            scale = (limit / (image.width * image.height)) ** 0.5
            image.thumbnail((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        return image

    return reduced


def _request(
    task: AttributeTask, product: Product, found: LoadedPhotos, settings: Settings, problems: Problems
) -> Request | None:
    found.report(product.id, product.row, settings.catalog, problems)
    request = task.request(product, found.photos)
    return request if found.photos or request.product else None
