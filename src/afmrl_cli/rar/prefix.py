"""Vectors of texts that begin alike: the shared beginning runs through the embedder once, each rest goes on from it.

    h(prefix + rest_g) = forward(rest_g | states of the prefix),   g = 1..G

The answers to one query share its pictures, the instruction, the product text and often their first pairs. What is
shared is found in the tokens: every text is tokenised whole, as the embedder does, and the prefix is the longest run of
tokens with which all of a group begin, so that no token is ever split or merged at the border. Prefixes of several
queries run together, padded on the left; their cache is repeated for each query's texts, whose rests are padded on the
right, and the vector is the last real token's. Positions are counted as the model itself counts them for the whole text
(M-RoPE: on from the largest position of the pictures), and DeepStack (Qwen3-VL) adds only where pictures are, which is
in the prefix.

A single text is encoded in full, together with those of other queries: nothing would be gained. All of it equals
encoding every text in full but for rounding, the same numbers being added in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ModelError
from ..models.batching import Batches
from ..models.embed_input import Item
from ..models.embedder import Embedder


@dataclass(frozen=True)
class Group:
    """Texts of one query as tokens, one image token standing for each whole picture.

    `rests` follow `prefix` (empty: each is encoded in full), all different and none empty; `place` says which of them
    each text of the group has.
    """

    item: Item
    prefix: list[int]
    rests: list[list[int]]
    place: list[int]


@dataclass(frozen=True)
class Batch:
    """What the two passes take: the prefixes' tensors (padded on the left), and the groups' rests."""

    tensors: dict[str, Any]
    groups: list[Group]


def encode_groups(
    embedder: Embedder, groups: Sequence[Sequence[Item]], *, instruction: str, batches: Batches
) -> list[NDArray[np.float32]]:
    """Return the unit vectors [texts, d] of each group, as `Embedder.encode` gives them.

    The items of a group show the same pictures, and no group is empty. To be called inside `frozen`. Raises as
    `Embedder.encode` does.
    """
    split = [split_group(embedder, items, instruction) for items in groups]
    shared = [group for group in split if group.prefix]

    def prepare(indices: list[int]) -> Batch:
        chosen = [shared[i] for i in indices]
        return Batch(_tensors(embedder, chosen) if chosen else {}, chosen)

    lengths = [len(group.prefix) + sum(embedder.image_tokens(image) for image in group.item.images) for group in shared]
    most = max((len(group.rests) for group in shared), default=1)
    rows = iter(batches.run(lengths, prepare, lambda batch: _forward(embedder, batch), most))
    single = [item for group, items in zip(split, groups, strict=True) if not group.prefix for item in items]
    whole = iter(embedder.encode(single, instruction=instruction))
    embedder.vision.flush()
    found = [
        next(rows)[group.place] if group.prefix else np.stack([next(whole) for _ in group.place]) for group in split
    ]
    if not all(np.isfinite(vectors).all() for vectors in found):
        raise ModelError(f"{embedder.id} gives vectors that are not numbers", "try model.precision=fp32")
    return found


def split_group(embedder: Embedder, items: Sequence[Item], instruction: str) -> Group:
    """Return the tokens that all of `items` begin with, and how each goes on: at least one token, for there the vector
    is.

    No prefix where nothing is gained: a single text, or not even the first token in common.
    """
    if any(item.images != items[0].images for item in items):
        raise ValueError("the items of a group must show the same pictures")
    items = embedder.fitting(items)
    photos = min(len(item.images) for item in items)
    items = [replace(item, images=item.images[:photos]) for item in items]
    ids: list[list[int]] = embedder.processor.tokenizer(embedder.texts(items, instruction))["input_ids"]
    shortest = min(len(row) for row in ids) - 1
    length = next((i for i in range(shortest) if len({row[i] for row in ids}) > 1), shortest)
    if len(set(map(tuple, ids))) == 1:
        length = 0
    rests = list(dict.fromkeys(tuple(row[length:]) for row in ids))
    number = {rest: i for i, rest in enumerate(rests)}
    return Group(
        items[0], ids[0][:length], [list(rest) for rest in rests], [number[tuple(row[length:])] for row in ids]
    )


def _tensors(embedder: Embedder, groups: Sequence[Group]) -> dict[str, Any]:
    """Return the prefixes as `Vision.inputs` takes them, photos opened where they are not known."""
    processor = embedder.processor
    image_token = int(processor.inner.image_token_id)
    pixels = embedder.vision.show([embedder.opened(image) for group in groups for image in group.item.images])
    merged = processor.inner.image_processor.merge_size**2
    counts = iter((pixels["image_grid_thw"].prod(1) // merged).tolist() if pixels else [])
    rows = [
        [part for token in group.prefix for part in ([token] * next(counts) if token == image_token else [token])]
        for group in groups
    ]
    longest = max(map(len, rows))
    processor.refuse_too_long(
        max(len(row) + max(map(len, group.rests)) for row, group in zip(rows, groups, strict=True))
    )
    ids = torch.full((len(rows), longest), int(processor.tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": (ids == image_token).long(), **pixels}


def _forward(embedder: Embedder, batch: Batch) -> list[NDArray[np.float32]]:
    """Return for each group the unit vectors [rests, d]."""
    trunk, device = embedder.loaded.trunk, embedder.loaded.device
    prefix = embedder.vision.inputs(batch.tensors, device)
    positions = trunk.get_rope_index(
        prefix["input_ids"],
        mm_token_type_ids=prefix["mm_token_type_ids"],
        image_grid_thw=prefix.get("image_grid_thw"),
        attention_mask=prefix["attention_mask"],
    )[0]
    cache = trunk(**prefix, position_ids=positions, use_cache=True).past_key_values

    sizes = [len(group.rests) for group in batch.groups]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    cache.reorder_cache(owner)  # the one way that delta nets' states know, too
    rests = [rest for group in batch.groups for rest in group.rests]
    ends = torch.tensor([len(rest) - 1 for rest in rests], device=device)
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(rest) for rest in rests],
        batch_first=True,
        padding_value=int(embedder.processor.tokenizer.pad_token_id),
    ).to(device)
    steps = torch.arange(ids.shape[1], device=device)
    mask = torch.cat([prefix["attention_mask"][owner], (steps <= ends[:, None]).long()], dim=1)
    first = positions.amax(dim=(0, 2)) + 1
    hidden = trunk(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(first[owner][:, None] + steps).expand(3, -1, -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    last = hidden[torch.arange(len(rests), device=device), ends]
    vectors = torch.nn.functional.normalize(last.float(), dim=-1).cpu().numpy()
    return np.split(vectors, np.cumsum(sizes)[:-1].tolist())
