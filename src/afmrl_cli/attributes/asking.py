"""The question about one product, its photos opened: for generation, SFT and its scoring alike."""

from __future__ import annotations

from ..catalog.images import open_images
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..settings import Settings
from .request import Request
from .task import AttributeTask

MIN_PHOTO_PIXELS = 2**20
"""Photos are reduced to this, or model.max_pixels if that is more, as soon as they are opened: a window of camera
pictures would take gigabytes, and no model looks at more."""


def open_request(task: AttributeTask, product: Product, settings: Settings, problems: Problems) -> Request | None:
    """The question with its photos; None when there is neither text nor a photo that can be opened.

    Photos that can't be opened go to `problems`; with `catalog.bad_images = fail` the first raises DataError.
    """
    model = settings.model
    opened = open_images(product, settings.catalog, problems, model.max_images)
    for image in opened:
        limit = max(MIN_PHOTO_PIXELS, model.max_pixels)
        if image.width * image.height > limit:
            scale = (limit / (image.width * image.height)) ** 0.5
            image.thumbnail((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    request = task.request(product, opened)
    return request if opened or request.product else None
