"""Rollouts: pairs of a batch with G sampled answers each, as read, and their rewards.

r = 1 where the verdict that an answer ends with is [class a = class b], else 0: unreadable and cut off answers, too

An answer's random numbers follow from (seed, step, which pair of the step it is about): processes that share the pairs
write what one would write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import TopPLogitsWarper

from ..rar.rollout import Drawing, sample, uniform
from ..training.parallel import World, divided
from .adjudicator import Adjudication, read_adjudication
from .batch_pairs import Pair
from .grpo import has_spread
from .model import Saga
from .replay import Group, Photos

Seed = tuple[int, ...]


@dataclass(frozen=True)
class JudgedPair:
    """A pair, the answers about it as tokens, as text and as read, and their rewards."""

    pair: Pair
    group: Group
    texts: Sequence[str]
    read: Sequence[Adjudication]
    rewards: Sequence[float]

    @property
    def differs(self) -> bool:
        """Tell whether the answers got different rewards, without which there is nothing to learn."""
        return has_spread(self.rewards)


class Nucleus(Drawing):
    """Draws from the most probable tokens alone, those that together have `top_p` of the probability."""

    def __init__(self, numbers: torch.Tensor, temperature: float, top_p: float) -> None:
        super().__init__(numbers, temperature)
        self.cut = TopPLogitsWarper(top_p)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` in which nothing is above the token that is drawn."""
        return super().__call__(input_ids, self.cut(input_ids, scores / self.temperature) * self.temperature)


def sample_pairs(
    saga: Saga, photos: Photos, pairs: Iterator[Pair], seed: Seed, world: World | None = None
) -> list[JudgedPair]:
    """Sample answers about pairs until as many as a step takes differ in their rewards, `VisionSettings.tries` times as
    many pairs at most; returns all that were asked about, of which some more may differ. Each process asks about its
    part of them, and has all answers.

    What is missing is asked for at once, by the share that differed so far: answers are written a token at a time, in
    which many take little longer than a few.
    """
    own, asked, differing = saga.settings, list[JudgedPair](), 0
    most = own.tries * own.pairs
    while differing < own.pairs and len(asked) < most:
        share = max(differing, 1) / len(asked) if asked else 1.0
        number = min(most - len(asked), math.ceil((own.pairs - differing) / share))
        some = [pair for _, pair in zip(range(number), pairs, strict=False)]
        if not some:
            break
        made = divided(len(some), partial(_sample_some, saga, photos, some, (*seed, len(asked))), world or World())
        asked += made
        differing += sum(each.differs for each in made)
    return asked


def sample_answers(saga: Saga, photos: Photos, pairs: Sequence[Pair], seeds: Sequence[Seed] | None) -> list[JudgedPair]:
    """Sample G answers about each of `pairs`, without gradient, by the random numbers of its seed; None: one answer, of
    the most probable tokens.
    """
    own, judge, asked = saga.settings, saga.judge, list[JudgedPair]()
    each, config = own.group if seeds else 1, saga.answering
    at_once = max(1, own.rollout_answers // each)
    for i in range(0, len(pairs), at_once):
        some = pairs[i : i + at_once]
        prompts = saga.prompts(photos, [pair[:2] for pair in some])
        shown = photos.shown([photo for a, b, _ in some for photo in (a, b)], saga.trunk)
        drawing = _drawing(saga, seeds[i : i + at_once]) if seeds else None
        made = sample(judge.loaded.causal, prompts | shown, each, config, judge.ends, drawing=drawing)
        for number, pair in enumerate(some):
            prompt = prompts["input_ids"][number][prompts["attention_mask"][number].bool()].tolist()
            group = Group(pair[:2], prompt, made[number * each : (number + 1) * each])
            asked.append(read_answers(saga, pair, group))
    return asked


def _sample_some(saga: Saga, photos: Photos, pairs: Sequence[Pair], seed: Seed, own: Sequence[int]) -> list[JudgedPair]:
    """Sample answers about pairs number `own`; the last of `seed` is the number of the first pair in its step."""
    seeds = [(*seed[:-1], seed[-1] + i) for i in own]
    return sample_answers(saga, photos, [pairs[i] for i in own], seeds) if own else []


def _drawing(saga: Saga, seeds: Sequence[Seed]) -> Nucleus:
    own = saga.settings
    numbers = torch.cat([uniform(seed, own.group, own.max_new_tokens) for seed in seeds]).to(saga.device)
    return Nucleus(numbers, own.temperature, own.top_p)


def read_answers(saga: Saga, pair: Pair, group: Group) -> JudgedPair:
    """Return answers as read, with their rewards."""
    ends, tokenizer = set(saga.judge.ends), saga.judge.processor.tokenizer
    whole = [[token for token in answer if token not in ends] for answer in group.answers]
    texts = tokenizer.batch_decode(whole, skip_special_tokens=True)
    read = [read_adjudication(text, saga.words) for text in texts]
    ended = [answer[-1] in ends for answer in group.answers]
    rewards = [float(each.same == pair[2] and done) for each, done in zip(read, ended, strict=True)]
    return JudgedPair(pair, group, texts, read, rewards)
