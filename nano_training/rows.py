"""From token rows and pictures to hidden states, faster than through the model's own forward.

Training sees pictures of one size only. Then the vision tower can take all of them in one batched attention (the
model's own forward goes picture by picture), and a picture that stands in several rows is encoded once. The numbers
are the same; a test holds them against the model's forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_GRID = 8
_MERGED = _GRID // 2
PICTURE_TOKENS = _MERGED * _MERGED


@dataclass(slots=True)
class Row:
    """One sequence: its tokens (each picture already as its 16 placeholders) and which pictures they stand for.

    `answer` counts the tokens at the end that are learnt; 0 for a row that only gives a vector.
    """

    tokens: list[int]
    pictures: list[int] = field(default_factory=list)
    answer: int = 0


def patches_of(photos: NDArray[np.uint8]) -> Tensor:
    """Return pictures [n, 112, 112, 3] as normalised patches [n, 64, 588], in the order of Qwen2-VL's image
    processor.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(photos)).permute(0, 3, 1, 2).float().div_(255)
    pixels = (pixels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
    blocks = pixels.view(-1, 3, _MERGED, 2, 14, _MERGED, 2, 14).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return blocks.reshape(-1, _GRID * _GRID, 3 * 14 * 14)


def _vision_angles(visual: Any) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the tower's rotary positions for one picture."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import get_vision_position_ids

    grid = torch.tensor([[1, _GRID, _GRID]])
    like = torch.zeros(_GRID * _GRID, visual.config.embed_dim)
    cos, sin = visual.rotary_pos_emb(like, get_vision_position_ids(grid, 2, kwargs={}))
    return cos, sin


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def vision_forward(visual: Any, patches: Tensor) -> Tensor:
    """Return the vision tower and merger: patches [n, 64, 588] -> picture tokens [n, 16, width]."""
    count = patches.shape[0]
    # A still picture is repeated in time, so both slices of the kernel see the same pixels.
    kernel = visual.patch_embed.proj.weight.sum(2).flatten(1)
    hidden = functional.linear(patches, kernel)
    cos, sin = _vision_angles(visual)
    for block in visual.blocks:
        attention = block.attn
        heads = attention.num_heads
        mixed = attention.qkv(block.norm1(hidden)).view(count, _GRID * _GRID, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = mixed.unbind(0)
        seen = functional.scaled_dot_product_attention(_turn(query, cos, sin), _turn(key, cos, sin), value)
        hidden = hidden + attention.proj(seen.transpose(1, 2).reshape(count, _GRID * _GRID, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: Tensor = visual.merger(hidden)
    return merged.view(count, PICTURE_TOKENS, -1)


def positions_of(row: Row, picture_token: int) -> NDArray[np.int64]:
    """Return Qwen2-VL's three position numbers of each token: text counts on, a picture's tokens stand on a 4 x 4
    board.
    """
    places = np.empty((3, len(row.tokens)), dtype=np.int64)
    at = place = 0
    while at < len(row.tokens):
        if row.tokens[at] == picture_token:
            board = np.arange(PICTURE_TOKENS)
            places[:, at : at + PICTURE_TOKENS] = np.stack([board * 0, board // _MERGED, board % _MERGED]) + place
            at, place = at + PICTURE_TOKENS, place + _MERGED
        else:
            places[:, at] = place
            at, place = at + 1, place + 1
    return places


def read_rows(
    model: Qwen2VLForConditionalGeneration, rows: list[Row], seen: Tensor, chunk: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the language model over all rows, in chunks of like length.

    Returns the last token's hidden state of every row [rows, width] and, for the rows with an answer, the hidden
    states that predict it and the tokens to be predicted (all answers one after the other).
    """
    text = model.model.language_model
    picture_token = model.config.image_token_id
    order = sorted(range(len(rows)), key=lambda n: len(rows[n].tokens))
    last: list[Tensor] = []
    predicting: list[Tensor] = []
    wanted: list[int] = []
    for start in range(0, len(order), chunk):
        part = [rows[n] for n in order[start : start + chunk]]
        longest = max(len(row.tokens) for row in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask = torch.zeros(len(part), longest, dtype=torch.long)
        places = torch.zeros(3, len(part), longest, dtype=torch.long)
        for n, row in enumerate(part):  # padded on the left, as in generation
            ids[n, longest - len(row.tokens) :] = torch.tensor(row.tokens)
            mask[n, longest - len(row.tokens) :] = 1
            places[:, n, longest - len(row.tokens) :] = torch.from_numpy(positions_of(row, picture_token))
        embedded = text.embed_tokens(ids)
        pictures = [picture for row in part for picture in row.pictures]
        if pictures:
            slots = (ids == picture_token).unsqueeze(-1)
            embedded = embedded.masked_scatter(slots, seen[torch.tensor(pictures)].reshape(-1, embedded.shape[-1]))
        hidden = text(
            inputs_embeds=embedded, attention_mask=mask, position_ids=places, use_cache=False
        ).last_hidden_state
        last.append(hidden[:, -1])
        for n, row in enumerate(part):
            if row.answer:
                predicting.append(hidden[n, -row.answer - 1 : -1])
                wanted += row.tokens[-row.answer :]
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    width = last[0].shape[-1]
    return (
        torch.cat(last)[back],
        torch.cat(predicting) if predicting else torch.zeros(0, width),
        torch.tensor(wanted, dtype=torch.long),
    )
