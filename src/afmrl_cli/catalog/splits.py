"""Train, validation and test by product identity: a product's listings never sit on both sides, in any order or run."""

from __future__ import annotations

import hashlib
from typing import Literal

from ..settings import SplitSettings
from .product import Product

Split = Literal["train", "validation", "test"]


def split_of(product: Product, settings: SplitSettings) -> Split:
    """The side of `product`, from nothing but its identity and the salt.

    u = first 64 bits of SHA-256(salt, NUL, identity) / 2^64;  u < test: test;  u < test + validation: validation.
    """
    digest = hashlib.sha256(f"{settings.salt}\0{product.identity}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < settings.test:
        return "test"
    return "validation" if share < settings.test + settings.validation else "train"
