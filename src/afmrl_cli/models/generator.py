"""Prompts and photos -> attribute text, by a local model, in length-sorted batches padded on the left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ..attributes.parse import value_spans
from ..attributes.prompt import chat_messages
from ..attributes.request import Generation, Request
from ..by_model import value_by_model
from ..listener import Listener, Silent
from ..settings import AttributeSettings, CatalogSettings, ModelSettings
from ..store.checkpoints import Checkpoints
from .base import Bases, Opened, active_adapter, open_role
from .batching import Batches

if TYPE_CHECKING:
    from ..catalog.pictures import Picture


class LocalGenerator:
    """A base with its adapter, as a `Generator`. `load_generator` makes it."""

    def __init__(
        self,
        opened: Opened,
        *,
        attributes: AttributeSettings,
        max_text_tokens: int,
        listener: Listener,
    ) -> None:
        base = opened.base
        self.id = opened.id
        self.adapter, self.loaded = opened.adapter, opened.loaded
        self.vision = self.loaded.vision(base)
        self.processor = self.vision.processor
        self.max_text_tokens = max_text_tokens
        self.max_new_tokens = attributes.max_new_tokens
        self._temperature, self._top_p, self._seed = attributes.temperature, attributes.top_p, attributes.seed
        self.photos_left_out = 0
        self._listener = listener
        self._batches = Batches(
            attributes.batch_size or value_by_model("attributes.batch_size", base.name), listener, "generating"
        )
        tokenizer = self.processor.tokenizer
        self.processor.check_prompts(base.name)
        known = tokenizer.get_vocab()
        ends = {known[token] for token in base.family.end_tokens if token in known}
        self.ends = sorted(ends | {tokenizer.eos_token_id})
        self.never = sorted(known[token] for token in base.family.never_written if token in known)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer each request, in their order.

        Greedy at temperature 0, else sampled: the same requests with the same seed and batch size give the same
        answers, and a request that stands twice gets two. Raises ModelError when a prompt with its pictures is longer
        than the model's positions, OutOfMemory when a single one does not fit.
        """
        requests = [self._fitting(request) for request in requests]
        texts = [self.text(request) for request in requests]
        ids = self.processor.tokenizer(texts)["input_ids"] if texts else []
        lengths = [
            len(row) + sum(self.vision.image_tokens(image) for image in request.images)
            for row, request in zip(ids, requests, strict=True)
        ]

        def prepare(indices: list[int]) -> dict[str, Any]:
            images = [requests[i].images for i in indices]
            return self.vision.tensors([texts[i] for i in indices], images, self.max_new_tokens) if indices else {}

        devices = [self.loaded.device] if self.loaded.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seed)
            made = self._batches.run(lengths, prepare, self._tokens)
        self.vision.flush()
        # Decoded only now: a tokenizer must not be used while the other thread prepares a batch with it.
        return [self.generation(tokens, sure) for tokens, sure in made]

    def _fitting(self, request: Request) -> Request:
        """Return `request` with as many of its first photos as the model has positions for; warned of once."""
        tokens = [self.vision.image_tokens(image) for image in request.images]
        if sum(tokens) < self.processor.max_positions // 2:  # nearly always
            return request
        bare = self.text(replace(request, images=()))
        text = len(self.processor.tokenizer(bare)["input_ids"]) + self.max_new_tokens
        fit = self.processor.photos_that_fit(tokens, text)
        if fit == len(tokens):
            return request
        if not self.photos_left_out:
            self._listener.warn(
                f"a listing has {len(tokens)} photos and the model room for {fit}: of such listings the first are "
                "described; lower model.generator_images or model.max_pixels"
            )
        self.photos_left_out += len(tokens) - fit
        return replace(request, images=request.images[:fit])

    def load_image(self, path: Path, catalog: CatalogSettings) -> Picture:
        """Load the photo at `path` for a request, no larger than the model reads it; ImageProblem as `open_image`."""
        return self.vision.load_image(path, catalog)

    def text(self, request: Request) -> str:
        """Return the string that is tokenised for `request`: the chat template around the prompt, one slot per picture.

        Special tokens are taken out of the prompt, and the product's part of it is cut to `max_text_tokens`.
        """
        return self.processor.prompt(self.messages(request))

    def messages(self, request: Request) -> list[dict[str, object]]:
        """Return the conversation that `text` writes down: one turn, a slot per picture and the prompt."""
        prompt = request.prompt
        if request.product:
            prompt = prompt.replace(request.product, self.processor.cut(request.product, self.max_text_tokens), 1)
        return chat_messages(self.processor.clean(prompt), len(request.images))

    def _config(self) -> GenerationConfig:
        how: dict[str, Any] = {"do_sample": False}
        if self._temperature > 0:
            how = {"do_sample": True, "temperature": self._temperature, "top_p": self._top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            suppress_tokens=self.never,
            **how,
        )

    def _tokens(self, batch: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
        """Generate the new tokens of each row, with their probabilities."""
        there = self.vision.inputs(batch, self.loaded.device)
        sure = _Probabilities()
        with torch.inference_mode(), active_adapter(self.loaded.peft, self.adapter):
            tokens = self.loaded.causal.generate(
                **there, generation_config=self._config(), logits_processor=LogitsProcessorList([sure])
            )
            new = tokens[:, batch["input_ids"].shape[1] :]
            return list(zip(new.tolist(), sure.of(tokens).tolist(), strict=True))

    def generation(self, tokens: list[int], sure: Sequence[float] = ()) -> Generation:
        """Return what the model wrote, as an answer: the text up to its first end token. `sure`: the tokens'
        probabilities.
        """
        end = next((i for i, token in enumerate(tokens) if token in self.ends), None)
        text = self.processor.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        confidence = self._confidence(tokens[:end], sure, text) if sure else None
        return Generation(text.strip(), cut_off=end is None, confidence=confidence)

    def texts_so_far(self, tokens: list[int]) -> list[str]:
        """Return what stands there after each token."""
        prefixes = [tokens[: i + 1] for i in range(len(tokens))]
        texts: list[str] = self.processor.tokenizer.batch_decode(prefixes, skip_special_tokens=True)
        return texts

    def _confidence(self, tokens: list[int], sure: Sequence[float], text: str) -> dict[str, float]:
        """Return the probability of each pair's value, the product of its tokens', by key."""
        ends = [len(part) for part in self.texts_so_far(tokens)]
        spans = list(zip([0, *ends], ends, sure, strict=False))
        return {
            key: math.prod(p for begin, end, p in spans if begin < last and end > first)
            for key, (first, last) in value_spans(text).items()
        }


class _Probabilities(LogitsProcessor):  # type: ignore[misc]
    """Remembers how probable each token was that `generate` chose; it changes nothing."""

    def __init__(self) -> None:
        self._chosen: list[Tensor] = []
        self._scores: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take the last token's probability from the scores before it, and keep these scores for the next."""
        self._remember(input_ids)
        self._scores = scores
        return scores

    def _remember(self, input_ids: Tensor) -> None:
        if self._scores is not None:
            self._chosen.append(self._scores.float().softmax(-1).gather(1, input_ids[:, -1:]))

    def of(self, tokens: Tensor) -> Tensor:
        """Return the probabilities of the new ones of `tokens` [rows, new]; call once, at the end."""
        self._remember(tokens)
        return torch.cat(self._chosen, 1)


def load_generator(
    settings: ModelSettings,
    attributes: AttributeSettings,
    checkpoints: Checkpoints,
    *,
    bases: Bases | None = None,
    listener: Listener | None = None,
) -> LocalGenerator:
    """Return the local generator that the settings mean, ready in memory.

    `bases` shares weights with an embedder of the same command. Raises ModelError when base or adapter can't be had or
    don't fit each other.
    """
    listener = listener or Silent()
    opened = open_role(settings, "generator", checkpoints, bases, listener)
    return LocalGenerator(
        opened,
        attributes=attributes,
        max_text_tokens=settings.max_text_tokens,
        listener=listener,
    )
