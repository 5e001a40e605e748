"""The product, and the one function that writes its text.

Every use (generator prompt, embedder, training, reward, evaluation) takes the text from here, so that a
model reads later what it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Product:
    """One listing of the retailer's catalog.

    `images` are absolute paths (may be empty). `given` holds the retailer's remaining columns, an `attr_` prefix
    removed; they serve filters, evaluation and training targets and are no part of the text but for those that
    `catalog.columns.text` names: `text` holds these, as (name, value).
    `product_id` is the identity shared by listings of one product, `group_id` joins the variants of one style.
    `row` is the line of the catalog's file (1 = header) for messages.
    """

    id: str
    title: str = ""
    description: str = ""
    category: str = ""
    brand: str = ""
    images: tuple[Path, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    product_id: str | None = None
    group_id: str | None = None
    row: int = 0
    text: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """Return what splits and positive pairs go by: `product_id` if the catalog has one, else the listing's id."""
        return self.product_id or self.id


def product_text(product: Product) -> str:
    """Return the product as text: one `Name: value` line for each filled field, in a fixed order; "" when none is.

    Own columns that the settings make text stand before the description, under their names.
    """
    fields = (
        ("Title", product.title),
        ("Brand", product.brand),
        ("Category", product.category),
        *((" ".join(name.replace("_", " ").split()).capitalize(), value) for name, value in product.text),
        ("Description", product.description),
    )
    return "\n".join(f"{name}: {' '.join(value.split())}" for name, value in fields if value.strip())


def enriched_text(text: str, attributes: str) -> str:
    """Return `text` with attribute text (`key: value; key: value`) on a line of its own after it; either may be
    empty.
    """
    if not attributes:
        return text
    line = f"Attributes: {attributes}"
    return f"{text}\n{line}" if text else line


def product_fingerprint(product: Product, image_hashes: Sequence[str]) -> str:
    """Return SHA-256 (hex) of what a model can see of a product, or of a narrowed one: its text and the content hashes
    of its images.
    """
    content = _encode([product_text(product), list(image_hashes)])
    return hashlib.sha256(content.encode()).hexdigest()
