"""The first numbers of a vector, where a model was trained so that they stand for all (Matryoshka).

z' = z[:d] / ||z[:d]||
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..catalog.pictures import image_loader
from ..errors import ModelError
from ..settings import CatalogSettings
from ..store.files import hash_json
from .embed_input import Encoder, Item, for_composed

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture


SAMPLE = 1_000


def shortened_id(model_id: str, dimensions: int) -> str:
    """Return the id of a model whose vectors are cut to `dimensions` numbers (0: all): same name, another digest."""
    if not dimensions:
        return model_id
    name, _, digest = model_id.rpartition("-")
    return f"{name}-{hash_json([digest, 'dimensions', dimensions])[:10]}"


def shortened(encoder: Encoder, dimensions: int) -> Encoder:
    """Return `encoder` with vectors of `dimensions` numbers; itself for 0."""
    return Shortened(encoder, dimensions) if dimensions else encoder


class Shortened:
    """An encoder whose vectors are cut and brought to length 1 again. It keeps a sample of the whole ones, by which to
    tell what that cost.
    """

    def __init__(self, encoder: Encoder, dimensions: int) -> None:
        self.id = shortened_id(encoder.id, dimensions)
        self.encoder, self._dimensions = encoder, dimensions
        self._sample, self._met, self._random = list[NDArray[np.float32]](), 0, np.random.default_rng(0)

    @property
    def sample(self) -> NDArray[np.float32]:
        """Return whole vectors [s, d] of those that were encoded: all, or a sample of SAMPLE."""
        return np.stack(self._sample)

    def _keep(self, vectors: NDArray[np.float32]) -> None:
        """Take each of all vectors so far into the sample with the same probability (Algorithm R)."""
        for vector in vectors:
            self._met += 1
            place = int(self._random.integers(self._met))
            if len(self._sample) < SAMPLE:
                self._sample.append(vector.copy())
            elif place < SAMPLE:
                self._sample[place] = vector.copy()

    @property
    def texts_cut(self) -> int:
        """Return the encoder's own count."""
        return self.encoder.texts_cut

    @property
    def queries(self) -> Encoder:
        """Return the encoder of composed queries with as many numbers; itself where the encoder has but one side."""
        inner = for_composed(self.encoder)
        return self if inner is self.encoder else Shortened(inner, self._dimensions)

    def load_image(self, path: Path, catalog: CatalogSettings) -> Image | Picture:
        """Load a photo as the encoder does."""
        return image_loader(self.encoder, catalog)(path)

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return vectors [n, dimensions] of length 1. Raises ModelError when the encoder gives fewer numbers, or
        nothing but zeros there.
        """
        vectors = self.encoder.encode(items, instruction=instruction)
        if vectors.shape[1] < self._dimensions:
            raise ModelError(
                f"embed.dimensions = {self._dimensions}: vectors of {self.encoder.id} have {vectors.shape[1]} numbers",
                f"set it to {vectors.shape[1]} or less, or to 0 for all",
            )
        first = vectors[:, : self._dimensions]
        lengths = np.linalg.norm(first, axis=1, keepdims=True)
        if not lengths.all():
            raise ModelError(
                f"embed.dimensions = {self._dimensions}: the first numbers of a vector are all 0", "set it higher"
            )
        self._keep(vectors)
        made: NDArray[np.float32] = first / lengths
        return made
