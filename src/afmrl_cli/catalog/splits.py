"""Train, validation and test by product identity: a product's listings never sit on both sides, in any order or run."""

from __future__ import annotations

import hashlib
from typing import Literal

from ..settings import SplitSettings
from .product import Product

Split = Literal["train", "validation", "test"]
SHARES = ((100, 0.25), (400, 0.2))
"""(fewer rows than this, share of validation and of test): so that a small shop has queries enough to judge by."""
SHARE = 0.1


def with_shares(settings: SplitSettings, rows: int) -> SplitSettings:
    """`settings` with the shares that they leave open, for a catalog of `rows` rows.

    What is a test product of a large catalog was one while the catalog was small, too.
    """
    share = next((share for limit, share in SHARES if rows < limit), SHARE)
    open_ = {name: share for name in ("validation", "test") if getattr(settings, name) is None}
    return settings.model_copy(update=open_) if open_ else settings


def split_of(product: Product, settings: SplitSettings) -> Split:
    """The side of `product`, from nothing but its identity and the salt.

    u = first 64 bits of SHA-256(salt, NUL, identity) / 2^64;  u < test: test;  u < test + validation: validation.
    Shares that are left open are those of a large catalog.
    """
    test = SHARE if settings.test is None else settings.test
    validation = SHARE if settings.validation is None else settings.validation
    digest = hashlib.sha256(f"{settings.salt}\0{product.identity}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"
