"""The generator in training: its prompt about each query, the same in rollouts, in validation and afterwards.

A query is shown to the generator as it is to the embedder: its text, its photos, or both, in the prompt that
`afmrl attributes` uses. The adapter that is trained is `default`; `ref`, a frozen copy of it, is TRL's reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..attributes.request import Generation, Request
from ..catalog.pictures import opened
from ..models.base import active_adapter
from ..models.generator import LocalGenerator
from ..training_settings import RarSettings, RecommenderSettings
from .environment import Environment
from .rollout import Allowed, Drawing, sample, uniform

REFERENCE = "ref"


class Policy:
    """`generator` with the adapter that is trained."""

    def __init__(self, generator: LocalGenerator) -> None:
        self.generator = generator

    def request(self, environment: Environment, number: int) -> Request:
        """Return the prompt about a query; its photos as the generator loads them."""
        return environment.request(number, partial(self.generator.load_image, catalog=environment.settings.catalog))

    def tokens(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Return the prompts that `generate` writes, as tensors padded on the left. ModelError when one is too long."""
        texts = [self.generator.text(request) for request in requests]
        images = [request.images for request in requests]
        return self.generator.vision.tokens(texts, images, self.generator.max_new_tokens)

    def pictures(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Return what the model takes of the requests' pictures."""
        vision = self.generator.vision
        return vision.inputs(vision.show([each for request in requests for each in request.images]), self._device)

    @property
    def _device(self) -> Any:
        return self.generator.loaded.device

    def sample(
        self,
        requests: Sequence[Request],
        own: RarSettings | RecommenderSettings,
        seeds: Sequence[Sequence[int]],
        allowed: Sequence[Allowed] = (),
    ) -> list[list[int]]:
        """Return the tokens of `own.group` sampled answers to each request, each prompt run once. An answer follows
        from its request and the request's seed; `allowed` says for each which tokens may follow.
        """
        loaded, made, most = self.generator.loaded, list[list[int]](), self.generator.max_new_tokens
        at_once = max(1, own.rollout_answers // own.group)
        config = GenerationConfig(
            do_sample=False,  # `Drawing` does
            max_new_tokens=most,
            eos_token_id=self.generator.ends,
            pad_token_id=self.generator.processor.tokenizer.pad_token_id,
            suppress_tokens=self.generator.never,
            disable_compile=True,
        )
        with evaluating(loaded.causal), active_adapter(loaded.peft, self.generator.adapter):
            for i in range(0, len(requests), at_once):
                some, chosen = requests[i : i + at_once], allowed[i : i + at_once]
                there = {name: tensor.to(self._device) for name, tensor in self.tokens(some).items()}
                numbers = torch.cat([uniform(seed, own.group, most) for seed in seeds[i : i + at_once]])
                drawing = Drawing(numbers.to(self._device), own.temperature)
                made += sample(
                    loaded.causal, there | self.pictures(some), own.group, config, self.generator.ends, chosen, drawing
                )
        self.generator.vision.flush()
        return made

    def row(self, environment: Environment, number: int) -> dict[str, Any]:
        """Return a query as a row of TRL's: the very prompt that `generate` writes, its photos opened and no larger
        than the model reads. ModelError when it is too long.
        """
        request = environment.request(number)
        small = tuple(self.generator.processor.resized(opened(image)) for image in request.images)
        shown = replace(request, images=small)
        self.tokens([shown])
        return {"prompt": self.generator.messages(shown), "images": list(small)}

    def answers(self, environment: Environment, numbers: Sequence[int] | None = None) -> list[Generation]:
        """Return one answer to each query, or to those of `numbers`, as `afmrl attributes` gives it: greedy, unless
        attributes.temperature is set.
        """
        with evaluating(self.generator.loaded.causal):
            chosen = range(len(environment.queries)) if numbers is None else numbers
            requests = [self.request(environment, number) for number in chosen]
            return self.generator.generate(requests)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run the block with `model` in eval mode, where caches work in spite of activation checkpointing; as before
    afterwards.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
