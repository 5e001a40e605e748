"""Log-probabilities of all answers to a prompt, the prompt run through the policy once.

    a row          x_1 .. x_P   a^1_1 .. a^1_{n_1 - 1}   ...   a^G_1 .. a^G_{n_G - 1}
    a^g_t sees     x_1 .. x_P   a^g_1 .. a^g_t                                        at position p + t
    pi(a^g_t)      is read where a^g_{t-1} stands, pi(a^g_1) where x_P stands         G times at one place

p is the largest position in the prompt, as the model itself counts (M-RoPE: a picture takes as many positions as its
longer side). TRL runs G rows of prompt and answer, and G - 1 of the prompts for nothing: the prompt can't see the
answers. Here a row of the batch is a group, and a mask of four dimensions keeps its answers apart. Gradients reach the
prompt's tokens from all answers at once. It is one forward without a cache, so activation checkpointing, 4-bit bases
and switched adapters are as with TRL; DeepStack (Qwen3-VL) adds where pictures are, which is in the prompt. Padding of
prompts (left) and answers (right) is left out.

Departures from TRL's forward, with equal results but for rounding: the vocabulary head (TRL's own, with temperature and
entropy) is applied to what predicts an answer's token and to nothing else, which is done by a hook between trunk and
head; where prompts are padded, text positions begin at 0 instead of at the padding (rotary positions are relative). A
chunk holds whole groups instead of shuffled answers, so `kl` and `entropy`, which are logged as means over chunks, are
weighted a little otherwise. The mask keeps attention from flash kernels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Rows:
    """TRL's rows: `ids` and `mask` [rows, prompt + answer] with prompts padded on the left and answers on the right,
    `answer` tokens wide; each row's own pictures.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    answer: int
    pixels: Sequence[torch.Tensor]
    grids: Sequence[torch.Tensor]
    kinds: torch.Tensor | None
    """mm_token_type_ids [rows, prompt + answer], where there are pictures."""

    def __getitem__(self, part: slice) -> Rows:
        kinds = None if self.kinds is None else self.kinds[part]
        return Rows(self.ids[part], self.mask[part], self.answer, self.pixels[part], self.grids[part], kinds)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def prompt(self) -> int:
        """How wide the prompts are, padding included."""
        return self.ids.shape[1] - self.answer


@dataclass(frozen=True)
class Packed:
    """What the model takes (`inputs`), and the places [rows, answer] that predict each answer's tokens."""

    inputs: dict[str, torch.Tensor]
    groups: torch.Tensor
    """[rows, 1]: which row of `inputs` an answer is in."""
    places: torch.Tensor
    """[rows, answer]: where in it; 0 for padding."""
    labels: torch.Tensor
    """[rows, answer]: the answers' tokens; -100 for padding."""


def make_rows(
    ids: torch.Tensor,
    mask: torch.Tensor,
    answer: int,
    pixels: torch.Tensor | None,
    grids: torch.Tensor | None,
    num_images: Sequence[int] | None,
    kinds: torch.Tensor | None,
) -> Rows:
    """The rows from what TRL hands to `_get_per_token_logps_and_entropies`."""
    if pixels is None or grids is None or num_images is None:
        none = [ids.new_empty(0)] * len(ids)
        return Rows(ids, mask, answer, none, none, None)
    each = torch.split(grids, list(num_images))
    return Rows(ids, mask, answer, torch.split(pixels, [int(row.prod(-1).sum()) for row in each]), each, kinds)


def groups_of(rows: Rows) -> list[list[int]]:
    """Rows with the same prompt, pictures included, in the order in which they first come."""
    found: list[list[int]] = []
    for i in range(len(rows)):
        for group in found:
            if _same_prompt(rows, group[0], i):
                group.append(i)
                break
        else:
            found.append([i])
    return found


def _same_prompt(rows: Rows, i: int, j: int) -> bool:
    width = rows.prompt
    return (
        torch.equal(rows.ids[i, :width], rows.ids[j, :width])
        and torch.equal(rows.mask[i, :width], rows.mask[j, :width])
        and torch.equal(rows.grids[i], rows.grids[j])
        and torch.equal(rows.pixels[i], rows.pixels[j])
    )


def pack(rows: Rows, trunk: Any, dtype: torch.dtype) -> Packed:
    """One row a group; `trunk` counts positions, `dtype` is that of the mask."""
    groups, width, device = groups_of(rows), rows.prompt, rows.ids.device
    first = torch.tensor([group[0] for group in groups], device=device)
    grids = torch.cat([rows.grids[group[0]] for group in groups])
    positions = prompt_positions(
        trunk,
        rows.ids[first, :width],
        rows.mask[first, :width],
        None if rows.kinds is None else rows.kinds[first, :width],
        grids,
    )
    lengths = rows.mask[:, width:].sum(1).tolist()
    parts: list[list[torch.Tensor]] = []
    owner, places = torch.zeros(len(rows), 1, dtype=torch.long), torch.zeros(len(rows), rows.answer, dtype=torch.long)
    for number, group in enumerate(groups):
        real = rows.mask[group[0], :width].bool()
        ids, spots = [rows.ids[group[0], :width][real]], [positions[:, number, real]]
        segments = [ids[0].new_zeros(len(ids[0]))]
        last, end = len(ids[0]) - 1, len(ids[0])
        for which, row in enumerate(group, 1):
            inside = max(0, lengths[row] - 1)  # nothing is predicted from the last token
            steps = torch.arange(inside, device=device)
            ids.append(rows.ids[row, width : width + inside])
            spots.append((spots[0].amax() + 1 + steps).expand(3, -1))
            segments.append(torch.full_like(steps, which))
            owner[row], places[row, : lengths[row]] = (
                number,
                torch.tensor([last, *range(end, end + inside)])[: lengths[row]],
            )
            end += inside
        parts.append([torch.cat(ids), torch.cat(spots, 1).T, torch.cat(segments)])
    pad = torch.nn.utils.rnn.pad_sequence
    segments_ = pad([part[2] for part in parts], batch_first=True, padding_value=-1)
    inputs = {
        "input_ids": pad([part[0] for part in parts], batch_first=True),
        "attention_mask": _mask(segments_, dtype),
        "position_ids": pad([part[1] for part in parts], batch_first=True).permute(2, 0, 1),
    }
    if len(grids):
        inputs |= {"pixel_values": torch.cat([rows.pixels[group[0]] for group in groups]), "image_grid_thw": grids}
    labels = rows.ids[:, width:].masked_fill(rows.mask[:, width:] == 0, -100)
    return Packed(inputs, owner.to(device), places.to(device), labels)


def prompt_positions(
    trunk: Any, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor | None, grids: torch.Tensor | None
) -> torch.Tensor:
    """Positions [3, prompts, width] of prompts that are padded on the left; `kinds` and `grids` where there are
    pictures.
    """
    if kinds is None or grids is None or not len(grids):
        found: torch.Tensor = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return found.expand(3, -1, -1)
    found = trunk.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids, attention_mask=mask)[0]
    return found


def _mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention [groups, 1, length, length]: 0 where a token sees another one, the lowest number
    elsewhere. `segments` [groups, length]: 0 the prompt, 1 .. G its answers, -1 padding, which sees the prompt.
    """
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    to, of = segments[:, None, :], segments[:, :, None]
    seen = before & ((to == 0) | ((to == of) & (to > 0)))
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=segments.device).masked_fill_(~seen, lowest)[:, None]


def packed_logps(model: Any, trunk: Any, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies [rows, answer] of the answers' tokens, 0 where there are none.

    `model` has TRL's fused head, `trunk` is what is under it.
    """
    packed = pack(rows, trunk, trunk.get_input_embeddings().weight.dtype)
    with _picking(trunk, packed):
        made = model(**packed.inputs, shift_labels=packed.labels, fused_lm_head=True)
    return made.log_probs, made.entropy


@contextlib.contextmanager
def _picking(trunk: Any, packed: Packed) -> Iterator[None]:
    """Inside, `trunk` gives the hidden states [rows, answer, d] that predict tokens of answers, and no others."""

    def pick(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[packed.groups, packed.places]
        return output

    handle = trunk.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()
