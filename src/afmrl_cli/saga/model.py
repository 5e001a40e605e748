"""What is trained, the tower and the pooler, and what it is trained through: the frozen language model behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from ..attributes.prompt import chat_messages
from ..catalog.pictures import Picture
from ..models.generator import LocalGenerator
from ..models.vision import tower_features
from ..vision_settings import VisionSettings
from .adjudicator import Question
from .pooler import Pooler
from .replay import Photos, at_least_fp32
from .watch import teacher_layer


@contextlib.contextmanager
def checkpointed(module: torch.nn.Module) -> Iterator[None]:
    """Make the layers of `module` that have activation checkpointing keep nothing for the backward inside the block.

    They do so in training mode alone, in which the frozen adapter would have its dropout, too: so only they are in it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = torch.is_grad_enabled()
    try:
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.training = mode


class Saga:
    """One base: its tower, pooler and proxies (`metric`), and `judge`, its language model with an adapter that can
    judge pairs.
    """

    def __init__(
        self,
        judge: LocalGenerator,
        pooler: Pooler,
        metric: torch.nn.Module,
        question: Question,
        words: tuple[str, str],
        settings: VisionSettings,
    ) -> None:
        self.judge, self.pooler, self.metric = judge, pooler, metric
        self.question, self.words, self.settings = question, words, settings
        self.trunk = judge.loaded.trunk
        self.width = int(self.trunk.config.get_text_config().hidden_size)
        self.layer = teacher_layer(self.trunk, settings.layer)
        self.text = judge.processor.prompt(chat_messages(judge.processor.clean(question.prompt), 2))

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return self.judge.loaded.device

    def features(self, shown: dict[str, Any]) -> list[Tensor]:
        """Return what the tower makes of photos (`Vision.show`) [tokens, width], in fp32 at least."""
        there = {name: shown[name].to(self.device) for name in ("pixel_values", "image_grid_thw")}
        with checkpointed(self.trunk.visual):
            return [at_least_fp32(row) for row in tower_features(self.trunk, *there.values())]

    def last_level(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Return what the pooler reads of `features`."""
        return [row[:, : self.width] for row in rows]

    def encode(self, pictures: Sequence[Picture]) -> Tensor:
        """Return the unit vectors [n, d] of photos, without gradient."""
        chunk, made = self.settings.chunk_photos, []
        with torch.no_grad():
            for i in range(0, len(pictures), chunk):
                rows = self.features(self.judge.vision.show(pictures[i : i + chunk]))
                made.append(self.pooler(self.last_level(rows)).vectors)
        return torch.cat(made) if made else torch.zeros(0, self.pooler.dimension, device=self.device)

    def prompts(self, photos: Photos, pairs: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the question about pairs of `photos` (by number) as tokens, padded on the left. ModelError when one is
        too long.
        """
        processor = self.judge.processor
        grids = photos.grids[torch.tensor([photo for pair in pairs for photo in pair], device=photos.grids.device)]
        made = processor.tokens([self.text] * len(pairs), [2] * len(pairs), grids, self.settings.max_new_tokens)
        return {name: tensor.to(self.device) for name, tensor in made.items()}

    @property
    def answering(self) -> GenerationConfig:
        """Return how answers are written, but for the tokens that are drawn (`rollouts`)."""
        judge = self.judge
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=judge.ends,
            pad_token_id=judge.processor.tokenizer.pad_token_id,
            suppress_tokens=judge.never,
            disable_compile=True,
        )
