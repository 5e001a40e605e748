"""The generator in training: what it is asked about each query, the same in rollouts, at held-out looks and afterwards.

A query is shown to the generator as it is to the embedder: its text, its photos, or both, in the prompt that
`afmrl attributes` uses. The adapter that is trained is `default`; `ref`, a frozen copy of it, is TRL's reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..attributes.request import Generation, Request
from ..attributes.task import AttributeTask
from ..catalog.images import open_image
from ..models.generator import LocalGenerator
from ..settings import Settings
from .queries import RarQuery

REFERENCE = "ref"


class Policy:
    """`generator` with the trained adapter, and the task that it is trained for."""

    def __init__(self, generator: LocalGenerator, task: AttributeTask, settings: Settings) -> None:
        self.generator, self.task = generator, task
        self._catalog = settings.catalog

    def request(self, query: RarQuery) -> Request:
        """What the generator is asked about `query`; its photos opened, and no larger than the model looks at."""
        pictures = [open_image(photo.path, self._catalog) for photo in query.side.photos]
        small = [self.generator.processor.resized(picture) for picture in pictures]
        return self.task.ask(query.side.text, query.category, small)

    def row(self, query: RarQuery) -> dict[str, Any]:
        """`query` as a row of TRL's: the very prompt that `generate` writes. ModelError when it is too long."""
        request = self.request(query)
        processor = self.generator.processor
        ids = processor.tokenizer(self.generator.text(request))["input_ids"]
        pictures = sum(processor.image_tokens(image.size) for image in request.images)
        processor.refuse_too_long(len(ids) + pictures + self.generator.max_new_tokens)
        return {"prompt": self.generator.messages(request), "images": list(request.images)}

    def answers(self, queries: Sequence[RarQuery]) -> list[Generation]:
        """One answer for each query, as `afmrl attributes` gives it: greedy, unless attributes.temperature is set."""
        with evaluating(self.generator.loaded.causal):
            return [row[0] for row in self.generator.generate([self.request(query) for query in queries])]


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """`model` in eval mode, where caches work in spite of activation checkpointing; as before afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
