"""Train, validation and test by product identity: a product's listings never sit on both sides, in any order or run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, TypeVar

from ..settings import SplitSettings
from .product import Product

Split = Literal["train", "validation", "test"]
T = TypeVar("T")
LEAST_PRODUCTS = 20
"""Products that the queries of a split must be about. Where a fifth of the queries change sides, the standard error of
a difference is sqrt(0.2 / n): 0.10 with 20, so that a true change of 10 points just stands out of it; with fewer a
single product decides.
"""
SHARES = ((100, 0.25), (400, 0.2))
"""(fewer rows than this, share of validation and of test): so that a small shop has enough queries to decide by."""
SHARE = 0.1


def first_to_judge_by(offers: Iterable[tuple[T, int]], least: int = LEAST_PRODUCTS) -> T:
    """Return the first kind of query, of (kind, products that it asks about), that asks about `least` products; where
    none does, the one that asks about the most. One rule for eval, cycle and the validation of training.
    """
    passed: list[tuple[T, int]] = []
    for kind, products in offers:  # lazily: to count what comes later may be work
        if products >= least:
            return kind
        passed.append((kind, products))
    return max(passed, key=lambda each: each[1])[0]


def with_shares(settings: SplitSettings, rows: int) -> SplitSettings:
    """Return `settings` with the shares that they leave open, for a catalog of `rows` rows.

    What is a test product of a large catalog was one while the catalog was small, too.
    """
    share = next((share for limit, share in SHARES if rows < limit), SHARE)
    open_ = {name: share for name in ("validation", "test") if getattr(settings, name) is None}
    return settings.model_copy(update=open_) if open_ else settings


def split_of(product: Product, settings: SplitSettings) -> Split:
    """Return the side of `product`, from nothing but its identity and the salt.

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
