"""The vision encoder: photos -> unit vectors, by a trained vision tower and its pooler, without a language model.

    v(photo) = pool(X),                                       X [tokens, D]: what the tower's merger makes of it
    z        = m / ||m||,   m = the mean of v over the listing's photos

It reads photos and nothing else: texts and attributes of an item are left alone. Vectors of photos are kept in the
catalog's cache under all that they depend on, so that a listing whose text or other photos change costs nothing. A
photo's vector does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..by_model import value_by_model
from ..catalog.fingerprints import photo_hash
from ..catalog.pictures import Picture
from ..errors import DataError, ModelError
from ..listener import Listener
from ..saga.pooler import Pooler, load_pooler
from ..settings import CatalogSettings, Settings
from ..store.checkpoints import POOLER_WEIGHTS, Checkpoints, Manifest, adapter_hashes
from .base import Cache
from .batching import Batches
from .device import device_of
from .embed_input import Item
from .features import FeatureStore
from .presets import VISION_INPUT, Base, base_precision, name_of, read_config, resolve_adapter, resolve_base
from .processor import Processor, load_processor
from .tower import drop_deepstack, load_tower, merge_adapter, photo_tokens
from .vision import load_picture

if TYPE_CHECKING:
    from PIL.Image import Image


BATCHES = 8
"""Of so many batches photos are open at a time."""


class VisionEncoder:
    """A tower with its pooler, as an encoder. `load_vision_encoder` makes it."""

    texts_cut = 0  # it reads none

    def __init__(
        self,
        id: str,
        tower: torch.nn.Module,
        pooler: Pooler,
        processor: Processor,
        *,
        batch_size: int,
        catalog: CatalogSettings,
        store: FeatureStore | None,
        listener: Listener,
    ) -> None:
        """Take the parts; `batch_size` photos go through the tower at a time."""
        self.id = id
        self.tower, self.pooler, self.processor = tower, pooler, processor
        self.dimension = pooler.dimension
        self._catalog, self._store = catalog, store
        self.load_picture = load_picture
        self._batch_size = batch_size
        self._batches = Batches(batch_size, listener, "embedding")

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return vectors [n, dimension] of length 1, in the order of `items`; `instruction` and texts are not used.

        Raises DataError for an item without a photo or with one that can't be read, OutOfMemory when one does not fit.
        """
        for i, item in enumerate(items):
            if not item.images:
                raise DataError(f"item {i} to embed has no photo, and the vision encoder reads nothing else")
        owners = [i for i, item in enumerate(items) for _ in item.images]
        sums = np.zeros((len(items), self.dimension), np.float32)
        np.add.at(sums, owners, self._vectors([image for item in items for image in item.images]))
        made: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return made

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Load the photo at `path` in the size that the tower reads; closed where its vector is stored. Raises
        ImageProblem, also for a photo that is stored and now too large.
        """
        content = self._content(path)
        kept = self._store.find(content) if self._store is not None and content else None
        return self.load_picture(path, content, kept, self.processor, catalog)

    def _content(self, path: Path) -> str:
        """Return the hash of a file; "" of one that can't be read, which the opening reports."""
        try:
            return photo_hash(path) if self._store is not None else ""
        except OSError:
            return ""

    def _vectors(self, images: Sequence[Path | Image | Picture]) -> NDArray[np.float32]:
        """Return the vector [dimension] of each photo; so many are open at a time as make a few batches."""
        made = np.zeros((len(images), self.dimension), np.float32)
        step = BATCHES * self._batch_size
        for start in range(0, len(images), step):
            made[start : start + step] = self._some([self._opened(image) for image in images[start : start + step]])
        if self._store is not None:
            self._store.flush()
        return made

    def _some(self, photos: Sequence[Picture]) -> NDArray[np.float32]:
        """Return the same of opened photos; of equal ones it is made once. ModelError for vectors that are not
        numbers.
        """
        made = np.zeros((len(photos), self.dimension), np.float32)
        places: dict[str, list[int]] = {}
        for i, photo in enumerate(photos):
            known = self._store.read(photo.content) if self._store is not None and photo.content else None
            if known is None:
                places.setdefault(photo.content or f"photo {i}", []).append(i)
            else:
                made[i] = known[0].numpy()
        missing = [photos[own[0]] for own in places.values()]
        tokens = [self.processor.grid_tokens(photo.grid) for photo in missing]
        vectors: list[NDArray[np.float32]] = self._batches.run(
            tokens, lambda indices: self.processor.pixels([missing[i] for i in indices]), self.forward
        )
        for photo, vector, own in zip(missing, vectors, places.values(), strict=True):
            if not np.isfinite(vector).all():
                raise ModelError(f"{self.id} gives vectors that are not numbers", "try model.precision=fp32")
            made[own] = vector
            if self._store is not None and photo.content:
                self._store.keep(photo.content, photo.grid, photo.pixels, torch.from_numpy(vector[None].copy()))
        return made

    def _opened(self, image: Path | Image | Picture) -> Picture:
        if isinstance(image, Path):
            return self.load_image(image, self._catalog)
        if isinstance(image, Picture):
            return image
        pixels = image.width * image.height
        return Picture(Path(), "", self.processor.grid(image), pixels, self._catalog, self.processor.reduced(image))

    def forward(self, batch: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        """Return vectors [photos, dimension] of what `Processor.pixels` made."""
        with torch.inference_mode():
            tokens = photo_tokens(self.tower, batch["pixel_values"], batch["image_grid_thw"])
            vectors: NDArray[np.float32] = self.pooler(tokens).vectors.cpu().numpy()
        return vectors


def load_vision_encoder(
    settings: Settings, checkpoints: Checkpoints, cache: Cache | None, listener: Listener
) -> VisionEncoder:
    """Return the vision encoder that `model.vision_checkpoint` names, ready in memory; its photos' vectors are kept in
    `cache` (None: nowhere). Raises ModelError when base or checkpoint can't be had or don't fit each other.
    """
    base = resolve_base(settings.model, "vision", listener)
    adapter = resolve_adapter(settings.model, "vision", base, checkpoints)
    if adapter is None:
        raise ModelError("model.vision_checkpoint is empty", "name a checkpoint that `afmrl train-vision` made")
    folder = checkpoints.path(adapter.name)
    pooler = load_pooler(folder / POOLER_WEIGHTS)
    if (width := _width(base)) != pooler.width:
        raise ModelError(
            f"checkpoint {adapter.name}: its pooler reads tokens of {pooler.width} numbers, those of {base.name} have "
            f"{width}",
            "train it again, or copy the checkpoint again",
        )
    tower = load_tower(base, base_precision(settings.model, base).precision, device_of(settings.model))
    merge_adapter(tower, folder, adapter.name)
    return _encoder(base, adapter, tower, pooler, settings, cache, listener)


def bare_tower(settings: Settings, cache: Cache | None, listener: Listener) -> VisionEncoder:
    """Return what a vision encoder begins with: the tower of the generator's base as it came, its tokens averaged."""
    base = resolve_base(settings.model, "vision", listener)
    width = _width(base)
    tower = load_tower(base, base_precision(settings.model, base).precision, device_of(settings.model))
    return _encoder(base, None, tower, Pooler(width, width, "mean"), settings, cache, listener)


def _width(base: Base) -> int:
    """Return how many numbers a token has: as many as the language model's states."""
    config = read_config(base.folder, base.name)
    return int((config.get("text_config") or config)["hidden_size"])


def _encoder(
    base: Base,
    adapter: Manifest | None,
    tower: Any,
    pooler: Pooler,
    settings: Settings,
    cache: Cache | None,
    listener: Listener,
) -> VisionEncoder:
    drop_deepstack(tower)
    store = None
    if cache is not None and cache.settings.vision:
        parts = [base.revision, base.min_pixels, base.max_pixels, str(tower.dtype), VISION_INPUT]
        own: list[object] = ["vision encoder", *parts, *(adapter_hashes(adapter.files) if adapter else ())]
        store = FeatureStore(cache.folder, own, torch.float32, cache.settings, cache.listener)
    return VisionEncoder(
        name_of(settings.model, "vision", base, adapter),
        tower,
        pooler.to(tower.device).eval(),
        load_processor(base),
        batch_size=settings.embed.batch_size or value_by_model("embed.batch_size", base.name),
        catalog=settings.catalog,
        store=store,
        listener=listener,
    )
