"""What the embedder reads: pictures, instruction, text; raw, without a chat template, as in VLM2Vec.

VLM2Vec writes `<image token> instruction text` and a line break, and takes the hidden state of the last token.
We depart in one thing: every picture's placeholder stands between the model's own vision start and end tokens, which
Qwen-VL was pre-trained with and without which two pictures in a row would be read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture

QUERY_INSTRUCTION = "Find this product:"
TARGET_INSTRUCTION = "Represent this product:"
IMAGE_SLOT = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to encode: text (attributes included), pictures (paths, opened, or as the embedder looks at them), or
    both; not neither.
    """

    text: str = ""
    images: tuple[Path | Image | Picture, ...] = ()


def embedder_text(item: Item, instruction: str) -> str:
    """The string that is tokenised for `item`; its last token's hidden state becomes the vector."""
    return IMAGE_SLOT * len(item.images) + f"{instruction} {item.text}".rstrip() + "\n"
