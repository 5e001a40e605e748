"""How pictures get into a language model: through the vision tower, or from what it made of them before.

The tower is frozen, so what it makes of a photo depends on the photo, the base, the size that it sees pictures in
and the type that it computes in, and on nothing else: attributes, vectors and trainings may all share it, over all
commands and cycles. With a store, features are rounded to 16 bits whether they come from it or not (the tower's own
type where that has 16 bits), and the tower reads one photo at a time: results do not depend on what happens to be
stored. A photo whose features are stored is not even opened; its hash is known from the catalog's database, or its file
is read once a process.

Where an adapter sits on the tower (ours never do), nothing is stored or taken from the store.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..catalog.fingerprints import photo_hash
from ..catalog.images import open_image
from ..catalog.pictures import Picture
from ..listener import Listener
from ..settings import CatalogSettings
from .features import FeatureStore, Kept
from .processor import Processor

if TYPE_CHECKING:
    from PIL.Image import Image

READING = 500e6
"""Bytes a second at which a plain disk gives features back. Those that the tower makes faster are not kept."""
SHOWN = "shown"
"""Where a batch holds its `Shown` beside the model's tensors."""


@dataclass(frozen=True)
class Shown:
    """The pictures of a batch, in order: features [tokens, width] that are stored, or the number of the one among
    `unknown` (whose pixels are in the batch) that it is.
    """

    pictures: list[Tensor | int]
    unknown: list[Image | Picture]


class Vision:
    """The tower of one base and, where there is one, its store; `processor` has the base's pixel limits."""

    def __init__(self, trunk: Any, processor: Processor, store: FeatureStore | None, listener: Listener) -> None:
        """Keep the tower. `trunk`: the model without its vocabulary head."""
        self.trunk = trunk
        self.processor = processor
        self._store, self._listener = store, listener
        self.load_picture = load_picture
        self._noted = False
        self.images_encoded = 0
        """Pictures that the tower has seen on behalf of the store."""

    @property
    def store(self) -> FeatureStore | None:
        """Return the store, if the tower is as it came: no adapter on it."""
        if self._store is None or untouched(self.trunk.visual):
            return self._store
        if not self._noted:
            self._noted = True
            self._listener.note("an adapter changes the vision tower: stored features are not used")
        return None

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Load the photo at `path` in the size that the model reads; closed where its features are stored.

        Raises ImageProblem as `open_image` does, also for a photo that is stored and now too large.
        """
        store = self.store
        content = self._content(path) if store is not None else ""
        kept = store.find(content) if store is not None else None
        return self.load_picture(path, content, kept, self.processor, catalog)

    def _content(self, path: Path) -> str:
        """Return the hash of a file; "" of one that can't be read, which the opening reports."""
        try:
            return photo_hash(path)
        except OSError:
            return ""

    def image_tokens(self, image: Image | Picture) -> int:
        """Return how many tokens a picture becomes."""
        if isinstance(image, Picture):
            return self.processor.grid_tokens(image.grid)
        return self.processor.image_tokens(image.size)

    def tensors(
        self, texts: Sequence[str], images: Sequence[Sequence[Image | Picture]], room: int = 0
    ) -> dict[str, Any]:
        """Return what `inputs` takes of texts and their pictures: as `Processor.tensors`, with pictures as in
        `show`.
        """
        return {**self.tokens(texts, images, room), **self.show([image for row in images for image in row])}

    def tokens(
        self, texts: Sequence[str], images: Sequence[Sequence[Image | Picture]], room: int = 0
    ) -> dict[str, Tensor]:
        """Return `tensors` without the pictures, for callers that add them (`show`) only when it is their turn."""
        grids = self._grids([image for row in images for image in row])
        return self.processor.tokens(texts, [len(row) for row in images], grids, room)

    def show(self, pictures: Sequence[Image | Picture]) -> dict[str, Any]:
        """Return the part of a batch that is about pictures; nothing of none.

        image_grid_thw [pictures, 3]; pixel_values [patches, d], with a store only of what the tower has to read.
        """
        store = self.store
        if store is None or not pictures:
            return self.processor.pixels(pictures)
        shown = Shown([], [])
        numbers: dict[str, int] = {}
        for image in pictures:
            content = image.content if isinstance(image, Picture) else ""
            if (known := store.read(content)) is not None:
                shown.pictures.append(known)
                continue
            number = numbers.get(content, len(shown.unknown))
            shown.pictures.append(number)
            if number == len(shown.unknown):
                shown.unknown.append(image)
                numbers |= {content: number} if content else {}
        made = self.processor.pixels(shown.unknown)
        return {**made, "image_grid_thw": self._grids(pictures), SHOWN: shown}

    def inputs(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Return what the model's forward and `generate` take, on `device`; the tower runs over what is not known."""
        there = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
        shown: Shown | None = batch.get(SHOWN)
        if shown is None:
            return there
        pixels = there.pop("pixel_values", None)
        made = self._vision_forward(pixels, shown.unknown) if pixels is not None else []
        kind = self.trunk.visual.dtype
        rows = [made[each] if isinstance(each, int) else each.to(device, kind) for each in shown.pictures]
        return {**there, "mm_encoder_outputs": encoder_outputs(rows, self.trunk)}

    def flush(self) -> None:
        """Put on disk what the tower has seen."""
        if self._store is not None:
            self._store.flush()

    def _vision_forward(self, pixels: Tensor, pictures: Sequence[Image | Picture]) -> list[Tensor]:
        """Return features [tokens, width] of each of `pictures`, rounded as the store's are, and kept in it."""
        store = self._store
        assert store is not None
        grids = self._grids(pictures).to(pixels.device)
        began = time.perf_counter()
        # What is made in inference mode can't be used where gradients are recorded.
        with torch.inference_mode(False), torch.no_grad():
            # How a matrix product adds up follows from its rows: in a group some numbers would round to others, and a
            # run that was killed, which meets other photos in the store, would go on to other weights.
            patches = torch.split(pixels, grids.prod(dim=1).tolist())
            rows = [tower_features(self.trunk, own, grid[None])[0] for own, grid in zip(patches, grids, strict=True)]
            rounded = [row.to(store.dtype).cpu() for row in rows]
        slow = time.perf_counter() - began > sum(row.nbytes for row in rounded) / READING
        self.images_encoded += len(rows)
        for i, (picture, row) in enumerate(zip(pictures, rounded, strict=True)):
            if not torch.isfinite(row).all():  # beyond what 16 bits can hold
                continue
            rows[i] = row.to(rows[i].device, rows[i].dtype)
            if slow and isinstance(picture, Picture) and picture.content:
                store.keep(picture.content, picture.grid, picture.pixels, row)
        return rows

    def _grids(self, pictures: Sequence[Image | Picture]) -> Tensor:
        """Return [pictures, 3]: frames, height and width in patches."""
        return torch.tensor([(1, *self._grid(image)) for image in pictures], dtype=torch.long).reshape(-1, 3)

    def _grid(self, image: Image | Picture) -> tuple[int, int]:
        return image.grid if isinstance(image, Picture) else self.processor.grid(image)


def load_picture(
    path: Path, content: str, kept: Kept | None, processor: Processor, catalog: CatalogSettings
) -> Picture:
    """Load the photo at `path`, whose file's hash is `content`, in the size that `processor` reads; closed where `kept`
    says that a store has what was made of it. Raises ImageProblem, also for a photo that is stored and now too large.
    """
    if kept is not None and kept.pixels <= catalog.max_image_pixels:
        return Picture(path, content, kept.grid, kept.pixels, catalog, None)
    image = open_image(path, catalog)
    grid, pixels = processor.grid(image), image.width * image.height
    return Picture(path, content, grid, pixels, catalog, processor.reduced(image))


def tower_features(trunk: Any, pixels: Tensor, grids: Tensor) -> list[Tensor]:
    """Return what the tower makes of each picture [tokens, width], with a gradient where one is wanted: what takes the
    place of the image tokens and, beside it, what DeepStack adds in each layer.
    """
    made = trunk.get_image_features(pixels, grids, return_dict=True)
    parts = [made.pooler_output, *(getattr(made, "deepstack_features", None) or ())]
    return [torch.cat(each, dim=1) for each in zip(*parts, strict=True)]


def encoder_outputs(rows: Sequence[Tensor], trunk: Any) -> dict[str, Any]:
    """Return `tower_features` of the pictures of a batch, in order, as the model's forward takes them
    (`mm_encoder_outputs`).
    """
    width = trunk.config.get_text_config().hidden_size
    first, *deeper = zip(*(torch.split(row, width, dim=1) for row in rows), strict=True)
    seen = SimpleNamespace(pooler_output=list(first), deepstack_features=[list(part) for part in deeper] or None)
    return {"image": seen}


def untouched(tower: torch.nn.Module) -> bool:
    """Tell whether no adapter sits on `tower`, switched on or off."""
    if "peft" not in sys.modules:  # an adapter can't be made without it
        return True
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return not any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in tower.modules())
