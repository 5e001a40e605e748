"""One step of either stage: triplets -> vectors in chunks -> loss -> gradients in the adapter's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..models.embedder import Embedder
from ..training.gradcache import cached_gradients, one_ahead, token_chunks
from ..training.pairs import Side
from ..training.parallel import World, gather_objects, gather_parts, gather_rows
from ..training.step import Reader
from .bank import Bank
from .corpus import Examples
from .loss import BatchVectors, bank_loss, batch_loss, perturbed_loss
from .plan import Drawn, Plan


@dataclass(frozen=True)
class BatchStep:
    """Stage 1: both sides learn from the batch, and from captions."""

    plan: Plan
    reader: Reader
    world: World = field(default_factory=World)

    def __call__(self, drawn: Sequence[Drawn]) -> tuple[Tensor, int]:
        """Add the gradient of a batch, by this process's part of its rows; returns (the loss, tokens read by all)."""
        examples, reader, composed = self.plan.train, self.reader, self.plan.settings.composed
        captions, of_reference, of_target = captions_of(drawn, examples) if composed.caption_weight else ([], [], [])
        asked, written = [each.query for each in drawn], [Side(-1, "", attributes=caption) for caption in captions]
        whole = [*asked, *(each.target for each in drawn), *written]
        device, n, world = reader.embedder.loaded.device, len(drawn), self.world
        own = world.part(range(len(whole)))
        queries, texts = reader.read([whole[i] for i in own if i < n], reader.query)
        others, more = reader.read([whole[i] for i in own if i >= n], reader.target)
        sides, texts = queries + others, texts + more
        lengths = reader.lengths(sides, texts)

        def prepare(rows: Sequence[int]) -> dict[str, Any]:
            return reader.tensors(sides, texts, rows)

        def loss_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
            """Return the loss and its gradient for `vectors` [rows, 2d], in the order of `sides`."""
            leaf = gather_parts(vectors, len(whole), world).detach().requires_grad_()
            with torch.enable_grad():
                last, photos = leaf.chunk(2, dim=1)
                found = BatchVectors(
                    last[:n],
                    photos[:n],
                    last[n : 2 * n],
                    last[2 * n :],
                    torch.tensor(of_reference, device=device),
                    torch.tensor(of_target, device=device),
                    torch.tensor(answers(drawn, examples), device=device),
                )
                loss = batch_loss(found, temperature=composed.temperature, caption_weight=composed.caption_weight)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), gradient[world.rank :: world.size]

        def forward(batch: dict[str, Any]) -> Tensor:
            return two_vectors(reader.embedder, batch)

        loss = cached_gradients(token_chunks(lengths, composed.chunk_tokens), prepare, forward, loss_of)
        reader.embedder.vision.flush()
        return loss, sum(gather_objects(sum(lengths), world))


@dataclass(frozen=True)
class BankStep:
    """Stage 2: queries learn against all training listings, whose vectors stay.

    Each query's loss is its own, so that a chunk runs forward and backward once.
    """

    plan: Plan
    reader: Reader
    bank: Bank
    world: World = field(default_factory=World)

    def __call__(self, drawn: Sequence[Drawn]) -> tuple[Tensor, int]:
        """Add the gradient of this process's part of a batch; returns (the whole loss, tokens read by all)."""
        reader, composed, device = self.reader, self.plan.settings.composed, self.reader.embedder.loaded.device
        own = self.world.part(drawn)
        sides, texts = reader.read([each.query for each in own], reader.query)
        lengths = reader.lengths(sides, texts)
        chunks = token_chunks(lengths, composed.chunk_tokens)

        def prepare(rows: Sequence[int]) -> dict[str, Any]:
            return reader.tensors(sides, texts, rows)

        whole = torch.zeros((), device=device)
        for rows, batch in zip(chunks, one_ahead(prepare, chunks), strict=True):
            vectors = reader.embedder.unit_vectors(batch)
            examples = [self.plan.train.rows[own[i].number] for i in rows]
            targets = torch.tensor([each.target for each in examples], device=device)
            right = [each.answers for each in examples]
            loss = bank_loss(vectors, self.bank.listings, targets, right, composed.temperature)
            there = [at for at, i in enumerate(rows) if own[i].number in self.bank.perturbed]
            if composed.perturbed and there:
                written = [self.bank.perturbed[own[rows[at]].number] for at in there]
                captions = self.bank.captions[torch.tensor(written, device=device)]
                loss = loss + composed.perturbed * perturbed_loss(vectors[there], captions, composed.temperature)
            loss = loss / len(drawn)
            torch.autograd.backward(loss)
            whole += loss.detach()
        reader.embedder.vision.flush()
        return gather_rows(whole[None], self.world).sum(), sum(gather_objects(sum(lengths), self.world))


def captions_of(drawn: Sequence[Drawn], examples: Examples) -> tuple[list[str], list[int], list[int]]:
    """Return the different captions of a batch, and which is that of each reference and of each target, -1 for none."""
    number: dict[str, int] = {}
    ends: tuple[list[int], list[int]] = ([], [])
    for each in drawn:
        row = examples.rows[each.number]
        for listing, found in zip((row.reference, row.target), ends, strict=True):
            caption = examples.captions.get(listing, "")
            found.append(number.setdefault(caption, len(number)) if caption else -1)
    return list(number), *ends


def answers(drawn: Sequence[Drawn], examples: Examples) -> list[list[bool]]:
    """Return [n][n]: whether target j answers query i."""
    rows = [examples.rows[each.number] for each in drawn]
    return [[other.target in row.answers for other in rows] for row in rows]


def two_vectors(embedder: Embedder, batch: dict[str, Any]) -> Tensor:
    """Return [n, 2d]: the unit vector of each row, and beside it the one where its last photo ends (without a photo the
    same again). With a gradient where one is wanted.
    """
    there = embedder.vision.inputs(batch, embedder.loaded.device)
    hidden = embedder.loaded.trunk(**there, use_cache=False).last_hidden_state
    ids = there["input_ids"]
    # Known, not asked for: the next chunk is tokenised in another thread, and a tokenizer keeps how it pads.
    ends = ids == embedder.processor.image_end
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    at = torch.where(ends.any(dim=1), (ends * places).argmax(dim=1), ids.shape[1] - 1)
    two = torch.stack([hidden[:, -1], hidden[torch.arange(len(hidden), device=ids.device), at]], dim=1)
    return torch.nn.functional.normalize(two.float(), dim=-1).flatten(1)
