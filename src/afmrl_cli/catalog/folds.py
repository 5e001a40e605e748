"""The training split in folds by product identity, so that what judges a product has not learnt from it.

    u(product) = first 64 bits of SHA-256("folds", NUL, salt, NUL, identity) / 2^64
    fold       = the first whose end is above u

a, b      SFT and AGCL learn from these; the attributes that AGCL sees of `a` come from a generator that learnt from
          `b`, and the reverse (cross-fitting)
asked     RAR asks about these, from which neither SFT nor AGCL learns
later     AGCL learns from these from the second round on

Listings that people confirmed as one product have one identity here, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Fold = Literal["a", "b", "asked", "later"]
FOLDS: tuple[Fold, ...] = ("a", "b", "asked", "later")


@dataclass(frozen=True)
class Folds:
    """`ends` are the folds' upper ends in u, in the order of FOLDS, the last one above 1; `sizes` their products.
    `joined` are identities by listing where people's verdicts changed them.
    """

    ends: Mapping[str, float]
    sizes: Mapping[str, int]
    salt: str = ""
    joined: Mapping[str, str] = field(default_factory=dict)

    def of(self, id: str, identity: str) -> Fold:
        """Return the fold of a listing of the training split."""
        u = place(self.joined.get(id, identity), self.salt)
        return next(fold for fold in FOLDS if fold in self.ends and u < self.ends[fold])

    def as_json(self) -> dict[str, Any]:
        """Return what `read_folds` makes again."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """What one training, or one generator that describes products, takes of the training split.

    `learn` are the folds that it sees; `ask`, for RAR, those whose listings ask (empty: all that it sees).
    `generators` are checkpoints: the attributes of a training product are by the first that did not learn from it.
    """

    folds: Folds
    learn: frozenset[Fold]
    ask: frozenset[Fold] = frozenset()
    generators: tuple[str, ...] = ()

    def sees(self, id: str, identity: str) -> bool:
        """Tell whether a listing of the training split is in it."""
        return self.folds.of(id, identity) in self.learn

    def asks(self, id: str, identity: str) -> bool:
        """Tell whether a listing of the training split may ask."""
        return self.folds.of(id, identity) in (self.ask or self.learn)

    def describe(self) -> dict[str, Any]:
        """Describe it for plans, manifests and fingerprints of stages."""
        found: dict[str, Any] = {"folds": sorted(self.learn), "of": dict(self.folds.sizes), "salt": self.folds.salt}
        return found | ({"asked": sorted(self.ask)} if self.ask else {})


def read_folds(content: Mapping[str, Any]) -> Folds:
    """Return what `Folds.as_json` gave. KeyError, TypeError or ValueError for anything else."""
    ends = {str(fold): float(end) for fold, end in content["ends"].items()}
    sizes = {str(fold): int(size) for fold, size in content["sizes"].items()}
    if not {"a", "b", "asked"} <= ends.keys() <= set(FOLDS) or ends.keys() != sizes.keys() or max(ends.values()) < 1:
        raise ValueError("no folds of a training split")
    joined = {str(id): str(identity) for id, identity in content["joined"].items()}
    return Folds(ends, sizes, str(content["salt"]), joined)


def place(identity: str, salt: str) -> float:
    """Return u of a product, 0 <= u < 1."""
    digest = hashlib.sha256(f"folds\0{salt}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def cut(identities: Mapping[str, str], sizes: Mapping[Fold, int], salt: str, joined: Mapping[str, str]) -> Folds:
    """Cut the products of `identities` (listing's id -> product's) into folds of these sizes, which add up to them."""
    order = sorted({place(joined.get(id, identity), salt) for id, identity in identities.items()})
    ends: dict[str, float] = {}
    done = 0
    for fold in FOLDS:
        if sizes.get(fold):
            done += sizes[fold]
            ends[fold] = order[done] if done < len(order) else 2.0
    return Folds(ends, {fold: sizes[fold] for fold in ends}, salt, joined)  # type: ignore[index]
