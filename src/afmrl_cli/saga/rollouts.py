"""Rollouts: pairs of a batch with G sampled answers each, as read, and their rewards.

r = 1 where the verdict that an answer ends with is [class a = class b], else 0: unreadable and cut off answers, too
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..rar.rollout import sample
from .adjudicator import Adjudication, read_adjudication
from .batch_pairs import Pair
from .grpo import has_spread
from .model import Saga
from .replay import Group, Photos


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


def sample_pairs(saga: Saga, photos: Photos, pairs: Iterator[Pair]) -> list[JudgedPair]:
    """Sample answers about pairs until as many as a step takes differ in their rewards, `VisionSettings.tries` times as
    many pairs at most; returns all that were asked about, of which some more may differ.

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
        made = sample_answers(saga, photos, some)
        asked += made
        differing += sum(each.differs for each in made)
    return asked


def sample_answers(saga: Saga, photos: Photos, pairs: Sequence[Pair], *, greedy: bool = False) -> list[JudgedPair]:
    """Sample G answers about each of `pairs`, without gradient; `greedy`: one answer, of the most probable tokens."""
    own, judge, asked = saga.settings, saga.judge, list[JudgedPair]()
    each, config = 1 if greedy else own.group, saga.answering(greedy=greedy)
    at_once = max(1, own.rollout_answers // each)
    for i in range(0, len(pairs), at_once):
        some = pairs[i : i + at_once]
        prompts = saga.prompts(photos, [pair[:2] for pair in some])
        shown = photos.shown([photo for a, b, _ in some for photo in (a, b)], saga.trunk)
        made = sample(judge.loaded.causal, prompts | shown, each, config, judge.ends)
        for number, pair in enumerate(some):
            prompt = prompts["input_ids"][number][prompts["attention_mask"][number].bool()].tolist()
            group = Group(pair[:2], prompt, made[number * each : (number + 1) * each])
            asked.append(read_answers(saga, pair, group))
    return asked


def read_answers(saga: Saga, pair: Pair, group: Group) -> JudgedPair:
    """Return answers as read, with their rewards."""
    ends, tokenizer = set(saga.judge.ends), saga.judge.processor.tokenizer
    whole = [[token for token in answer if token not in ends] for answer in group.answers]
    texts = tokenizer.batch_decode(whole, skip_special_tokens=True)
    read = [read_adjudication(text, saga.words) for text in texts]
    ended = [answer[-1] in ends for answer in group.answers]
    rewards = [float(each.same == pair[2] and done) for each, done in zip(read, ended, strict=True)]
    return JudgedPair(pair, group, texts, read, rewards)
