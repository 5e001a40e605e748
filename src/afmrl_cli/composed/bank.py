"""The bank of stage 2: vectors of all training listings by the side that stays, encoded once.

They are kept in the run's folder as they are made, so that a killed run does not encode them again. The validation's
gallery and perturbed captions are encoded with them, since the same side reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalog.problems import Problems
from ..errors import DataError
from ..models.embedder import Embedder
from ..retrieval.cache import VectorCache
from ..retrieval.encode import Input, encode_missing
from ..training.pairs import Side, TrainListing
from ..training.parallel import World, gather_objects, gather_parts
from ..training.step import item_of
from ..training.validation import encode_once
from ..workspace import Workspace
from .plan import Plan

NAMED = 5
"""Listings that an error names."""


@dataclass(frozen=True)
class Bank:
    """`listings` [N, d]: unit vectors of the training listings, in their order. `captions` [T, d]: those of captions,
    of which `perturbed` are the rows of an example, by its number.
    """

    listings: Tensor
    captions: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    perturbed: dict[int, list[int]] = field(default_factory=dict)


class FrozenSide:
    """The gallery side, which no longer learns, as an encoder; `folder` keeps what is encoded."""

    def __init__(self, work: Workspace, embedder: Embedder, folder: Path, world: World) -> None:
        self.work, self.embedder, self.world = work, embedder, world
        self.cache = VectorCache(folder / str(world.rank) if world.size > 1 else folder, embedder.dimension)

    def encode(self, sides: Sequence[Side], what: str, listings: Sequence[TrainListing] = ()) -> NDArray[np.float32]:
        """Return the vectors [n, d] of `sides`, which show some of `listings`, each process encoding its part.
        DataError in every process when one can't open a listing's photos any more.
        """
        return encode_once(partial(self._encode, listings), sides, what)

    def _encode(self, listings: Sequence[TrainListing], sides: Sequence[Side], what: str) -> NDArray[np.float32]:
        work, problems = self.work, Problems()
        own = self.world.part(sides)
        names = [listings[side.listing].id if listings else "" for side in own]
        inputs = [Input(side.content, item_of(side), name) for side, name in zip(own, names, strict=True)]
        instruction = work.settings.embed.target_instruction
        encode_missing(work, inputs, self.cache, lambda: self.embedder, instruction, problems, what)
        for other in gather_objects(problems, self.world)[self.world.rank + 1 :]:
            problems.join(other)
        problems.tell(work.listener)
        parts = gather_objects([each.name for each in inputs if each.key not in self.cache], self.world)
        if gone := [name for part in parts for name in part]:
            some = ", ".join(gone[:NAMED]) + (", ..." if len(gone) > NAMED else "")
            raise DataError(
                f"{len(gone):,} listings can't be read any more: {some}", "put their photos back, and train again"
            )
        made = np.zeros((len(inputs), self.embedder.dimension), np.float32)
        for row, each in zip(made, inputs, strict=True):
            row[:] = self.cache.get(each.key)
        rows = torch.as_tensor(made, device=self.embedder.loaded.device)
        vectors: NDArray[np.float32] = gather_parts(rows, len(sides), self.world).cpu().numpy()
        return vectors


def make_bank(plan: Plan, frozen: FrozenSide, device: torch.device) -> Bank:
    """Encode all training listings, and the perturbed captions of the triplets that will be met, where they are
    wanted.
    """
    train, composed = plan.corpus.train, plan.settings.composed
    shown = [i for i, listing in enumerate(train) if listing.text or listing.photos]
    vectors = frozen.encode([plan.listing_side(train, i) for i in shown], "encoding the bank", train)
    listings = np.zeros((len(train), vectors.shape[1]), np.float32)
    listings[shown] = vectors
    bank = Bank(torch.as_tensor(listings, device=device))
    if not composed.perturbed:
        return bank
    met = {i for _, (*_, batch) in zip(range(plan.steps), plan.from_step(0, 0), strict=False) for i in batch}
    written = {i: found for i in sorted(met) if (found := plan.train.perturbed(i, composed.seed))}
    row: dict[str, int] = {}
    perturbed = {i: [row.setdefault(text, len(row)) for text in found] for i, found in written.items()}
    captions = (
        frozen.encode([Side(-1, "", attributes=text) for text in row], "encoding captions") if row else vectors[:0]
    )
    return replace(bank, captions=torch.as_tensor(captions, device=device), perturbed=perturbed)
