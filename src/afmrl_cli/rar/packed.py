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
weighted a little otherwise. The mask keeps attention from flash kernels. A delta net (Qwen3.5) reads a row from its
beginning to its end, whatever a mask says: there each answer has a row with the prompt of its own, all else being so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Pictures = Callable[[list[int]], dict[str, Any]]
"""What the model takes of the pictures of these queries, in their order (`Vision.inputs`); nothing of none."""


@dataclass(frozen=True)
class Rows:
    """TRL's rows: `ids` and `mask` [rows, prompt + answer] with prompts padded on the left and answers on the right,
    `answer` tokens wide. `query_numbers` names each row's query: rows of one query have the same prompt, pictures
    included.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    answer: int
    query_numbers: Sequence[int]

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.ids[part], self.mask[part], self.answer, self.query_numbers[part])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def prompt(self) -> int:
        """Return how wide the prompts are, padding included."""
        return self.ids.shape[1] - self.answer


@dataclass(frozen=True)
class Packed:
    """What the model takes (`inputs`), and the places [rows, answer] that predict each answer's tokens."""

    inputs: dict[str, Any]
    groups: torch.Tensor
    """[rows, 1]: which row of `inputs` an answer is in."""
    places: torch.Tensor
    """[rows, answer]: where in it; 0 for padding."""
    labels: torch.Tensor
    """[rows, answer]: the answers' tokens; -100 for padding."""


def groups_of(rows: Rows, *, together: bool = True) -> list[list[int]]:
    """Return the rows of the same query, in the order in which the queries first come; not `together`: each alone."""
    if not together:
        return [[i] for i in range(len(rows))]
    found: dict[int, list[int]] = {}
    for i, query in enumerate(rows.query_numbers):
        found.setdefault(query, []).append(i)
    return list(found.values())


def pack(rows: Rows, trunk: Any, dtype: torch.dtype, pictures: Pictures, *, together: bool = True) -> Packed:
    """Pack one row a group, or a row an answer where they can't be kept apart in one; `trunk` counts positions, `dtype`
    is that of the mask.
    """
    groups, width, device = groups_of(rows, together=together), rows.prompt, rows.ids.device
    first = torch.tensor([group[0] for group in groups], device=device)
    shown = pictures([rows.query_numbers[group[0]] for group in groups])
    grids = shown.get("image_grid_thw")
    positions = prompt_positions(trunk, rows.ids[first, :width], rows.mask[first, :width], grids)
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
    inputs: dict[str, Any] = {
        "input_ids": pad([part[0] for part in parts], batch_first=True),
        "attention_mask": _mask(segments_, dtype) if together else (segments_ >= 0).long(),
        "position_ids": pad([part[1] for part in parts], batch_first=True).permute(2, 0, 1),
        **shown,
    }
    labels = rows.ids[:, width:].masked_fill(rows.mask[:, width:] == 0, -100)
    return Packed(inputs, owner.to(device), places.to(device), labels)


def prompt_positions(trunk: Any, ids: torch.Tensor, mask: torch.Tensor, grids: torch.Tensor | None) -> torch.Tensor:
    """Return the positions [3, prompts, width] of prompts that are padded on the left; `grids` where there are
    pictures.
    """
    if grids is None:
        found: torch.Tensor = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return found.expand(3, -1, -1)
    kinds = (ids == trunk.config.image_token_id).long()
    found = trunk.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids, attention_mask=mask)[0]
    return found


def _mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention [groups, 1, length, length]: 0 where a token sees another one, the lowest
    number elsewhere. `segments` [groups, length]: 0 the prompt, 1 .. G its answers, -1 padding, which sees the prompt.
    """
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    to, of = segments[:, None, :], segments[:, :, None]
    seen = before & ((to == 0) | ((to == of) & (to > 0)))
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=segments.device).masked_fill_(~seen, lowest)[:, None]


def packed_logps(
    model: Any, trunk: Any, rows: Rows, pictures: Pictures, *, together: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities and entropies [rows, answer] of the answers' tokens, 0 where there are none.

    `model` has TRL's fused head, `trunk` is what is under it.
    """
    packed = pack(rows, trunk, trunk.get_input_embeddings().weight.dtype, pictures, together=together)
    with _picking(trunk, packed):
        made = model(**packed.inputs, shift_labels=packed.labels, fused_lm_head=True)
    return made.log_probs, made.entropy


@contextlib.contextmanager
def _picking(trunk: Any, packed: Packed) -> Iterator[None]:
    """Make `trunk` give, inside the block, the hidden states [rows, answer, d] that predict tokens of answers, and no
    others.
    """

    def pick(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[packed.groups, packed.places]
        return output

    handle = trunk.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()
