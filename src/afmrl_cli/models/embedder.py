"""Items -> unit vectors.

    z = h / ||h||,   h = hidden state of the last token in the last layer,   padding on the left

as in VLM2Vec; what is read is written by `embed_input`. No vocabulary scores are computed. A row does not depend on its
batch: padding is masked, and each row's positions count from its own first token.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..by_model import value_by_model
from ..errors import DataError, ModelError
from ..listener import Listener, Silent
from ..settings import CatalogSettings, EmbedSettings, ModelSettings
from ..store.checkpoints import Checkpoints
from .base import Bases, Opened, active_adapter, open_role
from .batching import Batches
from .embed_input import Item, embedder_text, fitted_text
from .templates import Template, fit_template, template_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture


OTHER_TOKENS = 64
"""Beside text and photos: the instruction and line breaks."""


@dataclasses.dataclass
class Counts:
    """What an embedder did not read of what it was given; one for both of its sides."""

    texts_cut: int = 0
    photos_left_out: int = 0


class Embedder:
    """A base with its adapter, as an encoder. `load_embedder` makes it.

    A two-sided one encodes with its gallery adapter (`adapter`); `queries` is the same with its query adapter.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        template: Template,
        max_text_tokens: int,
        batch_size: int,
        catalog: CatalogSettings,
        listener: Listener,
    ) -> None:
        self.id = opened.id
        self.adapter, self.query_adapter = opened.adapter, opened.query_adapter
        self.loaded = opened.loaded
        self.dimension = int(self.loaded.causal.config.get_text_config().hidden_size)
        self.vision = self.loaded.vision(opened.base)
        self.processor = self.vision.processor
        self.template = template
        self._written = fit_template(template, self.processor, opened.base.name)
        self.max_text_tokens = max_text_tokens
        self._counts = Counts()
        self._listener = listener
        self._catalog = catalog
        self._batches = Batches(batch_size, listener, "embedding")

    @property
    def queries(self) -> Embedder:
        """Return the embedder of composed queries: this one with its query adapter in place of `adapter`, all else
        shared; itself where it has none.
        """
        if self.query_adapter is None:
            return self
        other = copy.copy(self)
        other.adapter, other.query_adapter = self.query_adapter, None
        return other

    @property
    def texts_cut(self) -> int:
        """Return how many texts so far were cut, on both sides."""
        return self._counts.texts_cut

    @property
    def photos_left_out(self) -> int:
        """Return how many photos so far the model had no positions for, on both sides."""
        return self._counts.photos_left_out

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return vectors [n, dimension] of length 1, in the order of `items`, which may mix texts and pictures.

        Product text is cut to what attributes leave of `max_text_tokens`; attributes and pictures never are. Raises
        DataError for an item with neither text nor picture or with an unreadable photo, ModelError when one is too
        long, OutOfMemory when one does not fit.
        """
        for i, item in enumerate(items):
            if item.empty:
                raise DataError(f"item {i} to embed has neither text nor pictures")
        items = self.fitting(items)
        texts = self.texts(items, instruction)
        lengths = [
            length + sum(self.image_tokens(image) for image in item.images)
            for length, item in zip(self._text_lengths(texts), items, strict=True)
        ]

        def prepare(indices: list[int]) -> dict[str, Any]:
            images = [[self.opened(image) for image in items[i].images] for i in indices]
            return self.vision.tensors([texts[i] for i in indices], images) if indices else {}

        rows: list[NDArray[np.float32]] = self._batches.run(lengths, prepare, self.forward)
        self.vision.flush()
        vectors = np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.id} gives vectors that are not numbers", "try model.precision=fp32")
        return vectors

    def fitting(self, items: Sequence[Item]) -> list[Item]:
        """Return `items` with as many of their first photos as the model has positions for; the first time that it has
        not enough for all of them is warned of.
        """
        return [self._fitting(item) for item in items]

    def _fitting(self, item: Item) -> Item:
        text = max(self.max_text_tokens, len(item.attributes.encode())) + OTHER_TOKENS
        tokens = [self.image_tokens(image) for image in item.images]
        if self.processor.photos_that_fit(tokens, text) < len(tokens):  # paths were taken for large photos
            tokens = [self.vision.image_tokens(self.opened(image)) for image in item.images]
        fit = self.processor.photos_that_fit(tokens, text)
        if fit == len(tokens):
            return item
        if not self._counts.photos_left_out:
            self._listener.warn(
                f"a listing has {len(tokens)} photos and the model room for {fit}: of such listings the first are "
                "embedded; lower model.embedder_images or model.max_pixels"
            )
        self._counts.photos_left_out += len(tokens) - fit
        return dataclasses.replace(item, images=item.images[:fit])

    def texts(self, items: Sequence[Item], instruction: str) -> list[str]:
        """Return the strings that are tokenised for `items`: special tokens taken out, the product text cut, which
        `texts_cut` counts. Search, eval, training and RAR write all of their texts here.
        """
        clean, tokenizer, family = self.processor.clean, self.processor.tokenizer, self.loaded.base.family
        made = []
        for item in items:
            whole, attributes = clean(item.text), clean(item.attributes)
            text = fitted_text(tokenizer, whole, attributes, self.max_text_tokens)
            self._counts.texts_cut += text != whole
            made.append(embedder_text(Item(text, item.images, attributes), clean(instruction), family, self._written))
        return made

    def forward(self, batch: dict[str, Any]) -> NDArray[np.float32]:
        """Return vectors [n, dimension] of what `vision.tensors` made."""
        with torch.inference_mode(), active_adapter(self.loaded.peft, self.adapter):
            return self.unit_vectors(batch).cpu().numpy()

    def unit_vectors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the same as a tensor on the model's device, with a gradient where one is wanted, from whatever adapter
        is switched on: for training.
        """
        there = self.vision.inputs(batch, self.loaded.device)
        hidden = self.loaded.trunk(**there, use_cache=False).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(hidden.float(), dim=-1)

    def _text_lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.processor.tokenizer(list(texts))["input_ids"]] if texts else []

    def image_tokens(self, image: Path | Image | Picture) -> int:
        """Return how many tokens a picture takes, for sorting: a path is taken for a large photo rather than opened
        twice.
        """
        return self.processor.most_image_tokens if isinstance(image, Path) else self.vision.image_tokens(image)

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Load the photo at `path` for `encode`, no larger than the model reads it; ImageProblem (a DataError) when its
        file can't be read.
        """
        return self.vision.load_image(path, catalog)

    def opened(self, image: Path | Image | Picture) -> Image | Picture:
        """Return the picture itself; ImageProblem when its file can't be read."""
        return self.load_image(image, self._catalog) if isinstance(image, Path) else image


def load_embedder(
    settings: ModelSettings,
    embed: EmbedSettings,
    checkpoints: Checkpoints,
    *,
    bases: Bases | None = None,
    catalog: CatalogSettings | None = None,
    listener: Listener | None = None,
) -> Embedder:
    """Return the embedder that the settings mean, ready in memory.

    `bases` shares weights with a generator of the same command; `catalog` says how photo paths are opened. Raises
    ModelError when base or adapter can't be had or don't fit each other.
    """
    listener = listener or Silent()
    opened = open_role(settings, "embedder", checkpoints, bases, listener)
    return Embedder(
        opened,
        template=template_of(settings.embed_template, opened.base.name, opened.base.folder, opened.manifest),
        max_text_tokens=settings.max_text_tokens,
        batch_size=embed.batch_size or value_by_model("embed.batch_size", opened.base.name),
        catalog=catalog or CatalogSettings(),
        listener=listener,
    )
