"""What is learnt from answers about pairs: GRPO into the photos' tokens, and the teacher's attention into the pooler.

Answers run through the language model `vision.chunk_answers` at a time. In the same forward the teacher's layer is
watched where a rewarded answer writes the values of attributes: those about photo 1 attend to photo 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rar.packed import Packed
from ..training.parallel import World, gather_rows
from .anchoring import anchoring_loss, teacher_attention
from .grpo import advantages, grpo_loss
from .model import Saga, checkpointed
from .replay import Group, Photos, answer_logps, pack_groups
from .rollouts import JudgedPair
from .watch import Watch, watching

ValueTokens = tuple[list[int], list[int]]
"""Which tokens of an answer are values of photo 1, and of photo 2."""


@dataclass(frozen=True)
class Part:
    """Answers to one pair that run together: their advantages and, of rewarded ones, their values' tokens."""

    group: Group
    advantages: Sequence[float]
    values: Sequence[ValueTokens]


@dataclass(frozen=True)
class Alpha:
    """How an answer attends to a photo of the batch [tokens]."""

    photo: int
    attention: Tensor


def learn(
    saga: Saga, photos: Photos, still: Photos, chosen: Sequence[JudgedPair], world: World | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Leave the gradient of L_GRPO in `photos.rows` and that of L_KL in the pooler, of several processes this one's
    part; returns their weighted sum, and each by its name.

    `still` is `photos` without gradient; `chosen` are the pairs whose rewards differ: without one both are 0.
    """
    world, own = world or World(), saga.settings
    grpo, anchoring = torch.zeros(2, device=saga.device)
    tokens = sum(len(answer) for each in chosen for answer in each.group.answers)
    alphas: list[Alpha] = []
    for parts in _chunks(saga, world.part(chosen)):
        packed = pack_groups(
            [part.group for part in parts],
            photos if own.grpo else still,
            saga.trunk,
            together=saga.judge.processor.family.packs_answers,
        )
        watch, segments = _watch(parts, packed)
        with watching(saga.trunk, saga.layer, watch), torch.set_grad_enabled(bool(own.grpo)):
            with checkpointed(saga.trunk.language_model):
                logps = answer_logps(saga.judge.loaded.causal, packed, own.temperature)
            if own.grpo:
                weights = torch.tensor([a for part in parts for a in part.advantages], device=saga.device)
                loss = own.grpo * grpo_loss(logps, packed.labels >= 0, weights, tokens)
                torch.autograd.backward(loss)
                grpo = grpo + loss.detach()
        if own.anchoring and segments:
            alphas += _alphas(packed, watch, segments, still, saga)
    if alphas:
        rewarded = sum(reward > 0 for each in chosen for reward in each.rewards)
        beta = saga.pooler(saga.last_level(still.rows)).beta
        mean = anchoring_loss([each.attention for each in alphas], [beta[each.photo] for each in alphas])
        loss = mean * len(alphas) / rewarded  # of both photos of an answer together
        torch.autograd.backward(own.anchoring * loss)
        anchoring = loss.detach()
    grpo, anchoring = gather_rows(torch.stack([grpo, anchoring])[None], world).sum(0)
    losses = {"grpo": float(grpo) / own.grpo if own.grpo else 0.0, "anchoring": float(anchoring)}
    return grpo + own.anchoring * anchoring, losses


def _chunks(saga: Saga, chosen: Sequence[JudgedPair]) -> list[list[Part]]:
    """Divide the answers into chunks of `vision.chunk_answers`: whole groups together, or parts of a group."""
    most, chunks = saga.settings.chunk_answers, list[list[Part]]()
    for each in chosen:
        weights = advantages([each.rewards])[0]
        values = [value_tokens(saga, each, i) if saga.settings.anchoring else ([], []) for i in range(len(weights))]
        for i in range(0, len(weights), most):
            answers = each.group.answers[i : i + most]
            part = Part(
                Group(each.group.photos, each.group.prompt, answers), weights[i : i + most], values[i : i + most]
            )
            filled = sum(len(other.advantages) for other in chunks[-1]) if chunks else most
            if filled + len(answers) > most:
                chunks.append([])
            chunks[-1].append(part)
    return chunks


def value_tokens(saga: Saga, asked: JudgedPair, number: int) -> ValueTokens:
    """Return which tokens of answer `number` write values; none where it was not rewarded."""
    return written_values(saga, asked, number) if asked.rewards[number] > 0 else ([], [])


def written_values(saga: Saga, asked: JudgedPair, number: int) -> ValueTokens:
    """Return which tokens of answer `number` write values, rewarded or not."""
    ends = [len(text) for text in saga.judge.texts_so_far(list(asked.group.answers[number]))]
    spans = list(zip([0, *ends], ends, strict=False))
    read = asked.read[number]
    first, second = (
        [i for i, (begin, end) in enumerate(spans) if any(begin < last and end > start for start, last in values)]
        for values in (read.first, read.second)
    )
    return first, second


@torch.no_grad()
def attention_of(saga: Saga, photos: Photos, asked: JudgedPair, number: int = 0) -> list[Alpha]:
    """Return how answer `number` attends to the photos that it writes values about, rewarded or not."""
    group, values = asked.group, written_values(saga, asked, number)
    part = Part(Group(group.photos, group.prompt, [group.answers[number]]), [0.0], [values])
    packed = pack_groups([part.group], photos, saga.trunk, together=saga.judge.processor.family.packs_answers)
    watch, segments = _watch([part], packed)
    if not segments:
        return []
    with watching(saga.trunk, saga.layer, watch):
        saga.judge.loaded.causal.model(**packed.inputs, use_cache=False)
    return _alphas(packed, watch, segments, photos, saga)


Segment = tuple[int, int, int, int]
"""A row of the batch, the photo of the pair (0 or 1), and from which watched token to which."""


def _watch(parts: Sequence[Part], packed: Packed) -> tuple[Watch, list[tuple[int, Segment]]]:
    """Return what is to be watched, and of each answer and photo (by number) which of it."""
    rows, places, segments = list[Tensor](), list[Tensor](), list[tuple[int, Segment]]()
    answer = at = 0
    for part in parts:
        for values in part.values:
            for side, tokens in enumerate(values):
                if tokens:
                    row = packed.groups[answer, 0]
                    # A token stands where the one after it is predicted.
                    places.append(packed.places[answer, torch.tensor(tokens) + 1])
                    rows.append(row.expand(len(tokens)))
                    segments.append((part.group.photos[side], (int(row), side, at, at + len(tokens))))
                    at += len(tokens)
            answer += 1
    none = packed.places.new_zeros(0)
    return Watch(torch.cat([none, *rows]), torch.cat([none, *places])), segments


def _alphas(
    packed: Packed, watch: Watch, segments: Sequence[tuple[int, Segment]], photos: Photos, saga: Saga
) -> list[Alpha]:
    """Return how each rewarded answer attends to each of its photos."""
    weights, image = watch.weights, saga.trunk.config.image_token_id
    assert weights is not None
    found = []
    for photo, (row, side, start, stop) in segments:
        columns = (packed.inputs["input_ids"][row] == image).nonzero()[:, 0]
        size = len(photos.rows[photo])
        patches = columns[-size:] if side else columns[:size]
        found.append(Alpha(photo, teacher_attention(weights[:, start:stop], patches)))
    return found
