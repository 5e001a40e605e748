"""One step of AGCL on one batch: pairs -> vectors in chunks -> loss over the whole batch -> gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.embed_input import Item
from ..models.embedder import Embedder
from ..models.templates import with_instructions
from ..settings import CatalogSettings, Settings
from .agcl import Loss
from .gradcache import cached_gradients, token_chunks
from .lexical import Lexical
from .loss import Facts, Objective
from .pairs import Pair, Side, TrainListing, indistinguishable, rejected
from .parallel import World, gather_parts, gather_rows


@dataclass(frozen=True)
class Batch:
    """Pairs with what a loss may need to know of them: `bm25`, `known` and `rejected` [n, n]."""

    pairs: list[Pair]
    bm25: NDArray[np.float64]
    known: NDArray[np.bool_]
    rejected: NDArray[np.bool_]


class Reader:
    """Turns sides into tensors for the embedder; the same text and pictures that `Embedder.encode` reads."""

    def __init__(self, embedder: Embedder, settings: Settings) -> None:
        self.embedder = embedder
        embed = with_instructions(settings.embed, embedder.template)
        self.query, self.target = embed.query_instruction, embed.target_instruction
        self.catalog: CatalogSettings = settings.catalog

    def texts(self, pairs: Sequence[Pair]) -> tuple[list[Side], list[str]]:
        """Return all queries, then all targets: sides and the strings that are tokenised for them."""
        queries, texts = self.read([pair.query for pair in pairs], self.query)
        targets, more = self.read([pair.target for pair in pairs], self.target)
        return queries + targets, texts + more

    def read(self, sides: Sequence[Side], instruction: str) -> tuple[list[Side], list[str]]:
        """Return the sides with as many of their first photos as the model has positions for, and their strings."""
        items = self.embedder.fitting([item_of(side) for side in sides])
        texts = self.embedder.texts(items, instruction)
        fitted = [
            replace(side, photos=side.photos[: len(item.images)]) for side, item in zip(sides, items, strict=True)
        ]
        return fitted, texts

    def lengths(self, sides: Sequence[Side], texts: Sequence[str]) -> list[int]:
        """Return the tokens of each row, pictures included."""
        processor = self.embedder.processor
        ids = processor.tokenizer(list(texts))["input_ids"]
        return [
            len(row) + sum(processor.image_tokens(photo.size) for photo in side.photos)
            for row, side in zip(ids, sides, strict=True)
        ]

    def tensors(self, sides: Sequence[Side], texts: Sequence[str], rows: Sequence[int]) -> dict[str, Any]:
        """Return what `Embedder.unit_vectors` takes for these rows, photos opened where they are not known."""
        images = [[self.embedder.load_image(photo.path, self.catalog) for photo in sides[row].photos] for row in rows]
        return self.embedder.vision.tensors([texts[row] for row in rows], images)


def item_of(side: Side) -> Item:
    """Return what the embedder reads for `side`."""
    return Item(side.text, tuple(photo.path for photo in side.photos), side.attributes)


def encode_sides(embedder: Embedder, sides: Sequence[Side], instruction: str, world: World) -> NDArray[np.float32]:
    """Return the vectors of `sides`, each process encoding its part."""
    own = embedder.encode([item_of(side) for side in world.part(sides)], instruction=instruction)
    rows = torch.as_tensor(own, device=embedder.loaded.device)
    vectors: NDArray[np.float32] = gather_parts(rows, len(sides), world).cpu().numpy()
    return vectors


def make_batch(pairs: list[Pair], lexical: Lexical, listings: Sequence[TrainListing]) -> Batch:
    """Return `pairs` with B_ij of query i's listing against target j's listing."""
    queries, targets = [pair.query for pair in pairs], [pair.target for pair in pairs]
    bm25 = lexical.scores([side.listing for side in queries], [side.listing for side in targets])
    return Batch(pairs, bm25, indistinguishable(pairs, listings), rejected(queries, targets, listings))


def batch_loss(vectors: Tensor, batch: Batch, objective: Objective, world: World) -> tuple[Loss, Tensor]:
    """Return the loss over the whole batch, and its gradient for this process's own vectors.

    `vectors` [2k, d] are this process's share: its k queries, then its k targets.
    """
    rows, dimension = vectors.shape
    leaf = gather_rows(vectors, world).reshape(world.size, 2, rows // 2, dimension).detach().requires_grad_()
    facts = Facts(
        torch.as_tensor(batch.bm25, dtype=vectors.dtype, device=vectors.device),
        torch.as_tensor(batch.known, device=vectors.device),
        torch.as_tensor(batch.rejected, device=vectors.device),
    )
    with torch.enable_grad():
        loss = objective.compute(leaf[:, 0].reshape(-1, dimension), leaf[:, 1].reshape(-1, dimension), facts)
        (gradient,) = torch.autograd.grad(loss.value, leaf)
    return loss, gradient[world.rank].reshape(rows, dimension)


def accumulate(reader: Reader, batch: Batch, objective: Objective, chunk_tokens: int, world: World) -> tuple[Loss, int]:
    """Add the batch's gradient to the adapter's parameters, with `chunk_tokens` tokens in memory at a time.

    Returns (the loss, how many tokens this process read).
    """
    own = [batch.pairs[i] for i in world.share(len(batch.pairs), "agcl.batch_size")]
    sides, texts = reader.texts(own)
    lengths = reader.lengths(sides, texts)

    def prepare(rows: Sequence[int]) -> dict[str, Any]:
        return reader.tensors(sides, texts, rows)

    def loss_of(vectors: Tensor) -> tuple[Loss, Tensor]:
        return batch_loss(vectors, batch, objective, world)

    chunks = token_chunks(lengths, chunk_tokens)
    loss = cached_gradients(chunks, prepare, reader.embedder.unit_vectors, loss_of)
    reader.embedder.vision.flush()
    return loss, sum(lengths)
