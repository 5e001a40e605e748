"""Which products a checkpoint has seen: short hashes of their ids in its manifest, so that eval can leave them out.

    seen(product) = h("listing", id) or h("product", product_id) is among the checkpoint's hashes
    h             = the first 40 bits of BLAKE2b

A listing counts as seen by its own id or by that of its product, so that the answer holds for a catalog that has grown,
was split otherwise, or has named its product_id column since. One product in a million is taken for seen by chance
where a checkpoint knows a million. Ids can't be read out of the hashes; with a list of ids one can test which of
them are among the hashes.

A checkpoint has seen what it was trained on and what its best step was chosen by, and all that those have seen that it
came from: its parent, the generator whose attributes it learnt from, the embedder that rewarded it, its teacher.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BYTES = 5


@dataclass(frozen=True)
class TrainingProducts:
    """Hashes of what was trained on (`train`) and of what steps were chosen by (`validation`). `listings` counts the
    listings of both. `complete`: all of its sources are known too.
    """

    train: frozenset[bytes] = frozenset()
    validation: frozenset[bytes] = frozenset()
    listings: tuple[int, int] = (0, 0)
    complete: bool = True

    def trained_on(self, id: str, product_id: str) -> bool:
        """Tell whether the listing or its product was trained on."""
        return not self.train.isdisjoint(hashes_of(id, product_id))

    def seen(self, id: str, product_id: str) -> bool:
        """Tell whether the listing or its product was trained on or chosen by."""
        found = hashes_of(id, product_id)
        return not self.train.isdisjoint(found) or not self.validation.isdisjoint(found)

    def joined(self, other: TrainingProducts) -> TrainingProducts:
        """Return both together; of their listings the larger numbers, since most are the same."""
        return TrainingProducts(
            self.train | other.train,
            self.validation | other.validation,
            (max(self.listings[0], other.listings[0]), max(self.listings[1], other.listings[1])),
            self.complete and other.complete,
        )

    def written(self) -> dict[str, object]:
        """Return it for a manifest."""
        return {
            "train": _packed(self.train),
            "validation": _packed(self.validation),
            "listings": list(self.listings),
            "complete": self.complete,
        }


def hashes_of(id: str, product_id: str) -> tuple[bytes, ...]:
    """Return the hashes that stand for a listing; one where it shares its product with no other."""
    own = _hash("listing", id)
    return (own,) if product_id == id else (own, _hash("product", product_id))


def training_products(train: Iterable[tuple[str, str]], validation: Iterable[tuple[str, str]]) -> TrainingProducts:
    """Make `TrainingProducts` of (listing's id, product's id) that were trained on and chosen by; a listing may
    be named more than once.
    """
    sides = [set(train), set(validation)]
    hashes = [frozenset(each for listing in side for each in hashes_of(*listing)) for side in sides]
    return TrainingProducts(hashes[0], hashes[1], (len(sides[0]), len(sides[1])))


def read_training_products(content: Mapping[str, object]) -> TrainingProducts | None:
    """Return what `written` gave; None where a manifest holds nothing. ValueError for anything else."""
    if not content:
        return None
    listings, complete = content.get("listings"), content.get("complete")
    if not isinstance(listings, list) or [type(each) for each in listings] != [int, int] or min(listings) < 0:
        raise ValueError("products.listings is no pair of numbers")
    if not isinstance(complete, bool):
        raise ValueError("products.complete is neither true nor false")
    sides = [_unpacked(content.get(key)) for key in ("train", "validation")]
    return TrainingProducts(sides[0], sides[1], (listings[0], listings[1]), complete)


def _hash(kind: str, id: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{id}".encode(), digest_size=BYTES).digest()


def _packed(hashes: frozenset[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(hashes))).decode()


def _unpacked(written: object) -> frozenset[bytes]:
    try:
        raw = base64.b64decode(written, validate=True) if isinstance(written, str) else b"?"
    except binascii.Error as error:
        raise ValueError("products: not base64") from error
    if len(raw) % BYTES:
        raise ValueError("products: cut off")
    return frozenset(raw[i : i + BYTES] for i in range(0, len(raw), BYTES))
