"""What the embedder reads: pictures, instruction, text, put together by the base's template (`templates`).

    <picture> ... <picture> instruction product text
    Attributes: key: value; key: value

Attributes always stand whole: they are what tells near-identical products apart. Product text is cut to what they leave
of `model.max_text_tokens`.

We depart from VLM2Vec's template, `plain`, in one thing: every picture's placeholder stands between the model's own
vision start and end tokens, which Qwen-VL was pre-trained with and without which two pictures in a row would be read as
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..catalog.product import enriched_text
from .families import Family
from .templates import PLAIN, Template

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture

LONGEST_TOKEN_CHARS = 64
"""Text is cut to this many characters a token before it is tokenised, so that a megabyte of text costs nothing."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to encode: product text, pictures (paths, opened, or as `load_image` gives them), attribute text;
    at least one of them.
    """

    text: str = ""
    images: tuple[Path | Image | Picture, ...] = ()
    attributes: str = ""

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to encode."""
        return not (self.text.strip() or self.images or self.attributes)


class Encoder(Protocol):
    """Makes vectors of items: the embedder, or another library's model beside it."""

    @property
    def id(self) -> str:
        """Name the model and all that changes its vectors."""

    @property
    def texts_cut(self) -> int:
        """Return how many product texts so far were cut at `model.max_text_tokens`; 0 for models that do not go
        by it.
        """

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] in the order of `items`."""


@runtime_checkable
class TwoSided(Protocol):
    """An encoder that may read composed queries otherwise than all else."""

    @property
    def queries(self) -> Encoder:
        """Return the encoder of composed queries, which may be the encoder itself."""


def for_composed(encoder: Encoder) -> Encoder:
    """Return what encodes composed queries: the side of `encoder` that is for them, else `encoder` itself."""
    return encoder.queries if isinstance(encoder, TwoSided) else encoder


def embedder_text(item: Item, instruction: str, family: Family, template: Template = PLAIN) -> str:
    """Write the string that is tokenised for `item`; its last token's hidden state becomes the vector."""
    text = enriched_text(item.text, item.attributes)
    return template.text(family.image_slot * len(item.images), instruction, text)


def fitted_text(tokenizer: Any, text: str, attributes: str, most: int) -> str:
    """Return the beginning of `text` that the line of `attributes` leaves room for, of `most` tokens in all."""
    line = "\n" + enriched_text("", attributes) if attributes else ""
    taken = len(tokenizer(line, add_special_tokens=False)["input_ids"]) if line else 0
    return cut_text(tokenizer, text, max(0, most - taken))


def cut_text(tokenizer: Any, text: str, tokens: int) -> str:
    """Return the longest beginning of `text` of at most `tokens` tokens; `text` itself when it is short enough."""
    if tokens <= 0:
        return ""
    text = text[: tokens * LONGEST_TOKEN_CHARS]
    if len(text.encode()) <= tokens:  # every token is at least one byte
        return text
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(spans) <= tokens:
        return text
    # A character may be several tokens, each of which spans all of it: end before it then.
    return text[: min(spans[tokens - 1][1], spans[tokens][0])].rstrip()
