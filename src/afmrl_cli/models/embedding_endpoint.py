"""An embedder behind an OpenAI-compatible server: POST {url}/v1/embeddings, a few requests at a time.

With photos each item is one request in vLLM's form, chat messages in place of `input`: pictures, then instruction and
text. Qwen3-VL-Embedding has its own turns: the instruction as system, an empty answer that is continued. Without photos
(`embed.endpoint_photos = false`) texts go as `input`, several in one request.

A vector that is missing, too many, of another length or no vector at all ends the run with one ModelError, and so does
a request that fails after all tries (see `server`): nothing of its group is kept, and the same command goes on there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ..attributes.answers import SPECIAL_TOKEN
from ..catalog.images import open_image
from ..catalog.pictures import opened
from ..catalog.product import enriched_text
from ..errors import DataError, ModelError, UsageError
from ..settings import Settings
from ..store.files import hash_json
from .completion import error_text
from .embed_input import Item
from .server import (
    CHARS_PER_TOKEN,
    DEFAULT_MAX_PIXELS,
    Passing,
    Refused,
    Server,
    data_url,
    first_error,
    readable_name,
)
from .templates import served_template

MOST_NUMBERS = 65_536
"""A longer vector is nobody's, and would fill the disk."""
TEXTS = 32
"""Of one request with plain `input`."""


class EmbeddingEndpoint:
    """A server's model as an encoder."""

    def __init__(self, settings: Settings, *, api_key: str | None = None, first_wait: float = 0.5) -> None:
        """Take the endpoint's settings. `api_key` None: the environment's; `first_wait` as in `Server`. Raises
        UsageError.
        """
        embed, model = settings.embed, settings.model
        self.id = embedding_endpoint_id(settings)
        self._server = Server(embed, "embed", "/embeddings", api_key=api_key, first_wait=first_wait)
        self.destination = self._server.destination
        self._embed, self._catalog = embed, settings.catalog
        self._max_pixels = model.embedder_pixels or model.max_pixels or DEFAULT_MAX_PIXELS
        self._max_chars = model.max_text_tokens * CHARS_PER_TOKEN
        self._dimension = 0
        self._answered = False
        self.texts_cut = 0

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] in the order of `items`. Raises ModelError when the server does not give them,
        DataError for an item of photos alone where none are sent.
        """
        if not items:
            return np.zeros((0, self._dimension), np.float32)
        texts = [self._text(item) for item in items]
        if self._embed.endpoint_photos:
            bodies = [(self._messages(item, text, instruction), 1) for item, text in zip(items, texts, strict=True)]
        else:
            if any(not text.strip() for text in texts):
                raise DataError(
                    "an item to embed has photos and no text, and embed.endpoint_photos = false sends no photos",
                    "give the product a title, or use an endpoint that reads photos",
                )
            whole = [f"{instruction}\n{text}" if instruction else text for text in texts]
            parts = [whole[start : start + TEXTS] for start in range(0, len(whole), TEXTS)]
            bodies = [({"input": part}, len(part)) for part in parts]
        try:
            rows = asyncio.run(self._all(bodies))
        except BaseExceptionGroup as failed:
            stopped, others = failed.split(ModelError)
            if stopped is None or others is not None:
                raise
            raise first_error(stopped) from None
        return np.concatenate(rows)

    def _text(self, item: Item) -> str:
        text = SPECIAL_TOKEN.sub(" ", item.text)
        attributes = SPECIAL_TOKEN.sub(" ", item.attributes)
        most = max(0, self._max_chars - len(attributes))
        self.texts_cut += len(text) > most
        return enriched_text(text[:most].rstrip(), attributes)

    def _messages(self, item: Item, text: str, instruction: str) -> dict[str, Any]:
        """Return the request of one item with its pictures."""
        pictures = [open_image(each, self._catalog) if isinstance(each, Path) else opened(each) for each in item.images]
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(picture, self._max_pixels)}} for picture in pictures
        ]
        template = served_template(self._embed.endpoint_model)
        if not template.end_token:
            words = "\n".join(filter(None, (instruction, text)))
            return {"messages": [{"role": "user", "content": [*content, _part(words)]}]}
        if text or not content:
            content.append(_part(text or template.empty))
        turns = [("system", [_part(template.instruction(instruction))]), ("user", content), ("assistant", [_part("")])]
        messages = [{"role": role, "content": said} for role, said in turns]
        return {"messages": messages, "continue_final_message": True, "add_special_tokens": True}

    async def _all(self, bodies: Sequence[tuple[dict[str, Any], int]]) -> list[NDArray[np.float32]]:
        limit = asyncio.Semaphore(self._embed.concurrency)
        async with self._server.client() as client:

            async def one(body: dict[str, Any], count: int) -> NDArray[np.float32]:
                async with limit:
                    return await self._answer(client, body, count)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(body, count)) for body, count in bodies]
        return [task.result() for task in tasks]

    async def _answer(self, client: httpx.AsyncClient, body: dict[str, Any], count: int) -> NDArray[np.float32]:
        server = self._server
        whole = {"model": self._embed.endpoint_model, **body, "encoding_format": "float"}
        try:
            content, _ = await server.tried(lambda: server.post(client, whole))
        except Passing as error:
            message = server.safe(str(error))
            if error.unreachable and not self._answered:
                raise server.unreachable(message) from error
            raise ModelError(f"{server.shown}: {message}", "the same command goes on where it was") from error
        except Refused as error:
            said = str(error).casefold()
            otherwise = "the server's own words are above; embed.endpoint_photos=false sends text alone, as `input`"
            raise ModelError(f"{server.shown}: {error}", server.hint(error.status, said, otherwise)) from error
        try:
            vectors = read_vectors(content, count)
        except ValueError as error:
            raise ModelError(f"{server.shown}: {server.safe(str(error))}", "is an embedder served there?") from error
        dimension = vectors.shape[1]
        if self._dimension and dimension != self._dimension:
            raise ModelError(
                f"{server.shown}: a vector of {dimension} numbers after vectors of {self._dimension}",
                "is more than one model served under that name?",
            )
        self._dimension, self._answered = dimension, True
        return vectors


def embedding_endpoint_id(settings: Settings) -> str:
    """Name the model there and what it is shown, as `presets.model_id` does. The address is no part of it. UsageError
    without the model's name, or where an adapter is named, too.
    """
    embed, model = settings.embed, settings.model
    if not embed.endpoint_model:
        raise UsageError("an endpoint needs the model's name", "give --model NAME (embed.endpoint_model)")
    for key in ("embedder_checkpoint", "vision_checkpoint"):
        if name := getattr(model, key):
            message = f"embed.endpoint is set, and model.{key} = {name} is of a local model"
            raise UsageError(message, "leave one of them empty")
    parts = {
        "embeddings": embed.endpoint_model,
        "photos": embed.endpoint_photos,
        "pixels": model.embedder_pixels or model.max_pixels or DEFAULT_MAX_PIXELS,
        "images": model.embedder_images,
        "text": model.max_text_tokens,
    }
    return f"{readable_name(embed.endpoint_model)}-{hash_json(parts)[:10]}"


def read_vectors(content: bytes, count: int) -> NDArray[np.float32]:
    """Return the unit vectors [count, d] of an answer, in the order of their `index`. ValueError, in words for the
    user, when they are not there.
    """
    flat = [number for numbers in _read_numbers(content, count) for number in numbers]
    if not all(type(number) in (int, float) for number in flat):
        raise ValueError("a vector holds something else than numbers")
    try:
        vectors = np.array(flat, dtype=np.float64).reshape(count, -1)
    except OverflowError as error:
        raise ValueError("a vector holds infinite or missing numbers") from error
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise ValueError("a vector holds infinite or missing numbers")
    if not norms.all():
        raise ValueError("a vector of zeros")
    unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
    return unit


def _read_numbers(content: bytes, count: int) -> list[list[Any]]:
    """Return the `count` lists of an answer, of one length, in the order of their `index`."""
    try:
        body = json.loads(content.decode("utf-8-sig"))
        data = body["data"]
        rows = [(each.get("index", place), each["embedding"]) for place, each in enumerate(data)]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no embeddings: {error_text(content[:200])}") from error
    if len(rows) != count:
        raise ValueError(f"{len(rows)} vectors for {count} input{'s' if count > 1 else ''}")
    by_index = {index: numbers for index, numbers in rows if type(index) is int}
    if set(by_index) != set(range(count)):
        raise ValueError(f"the vectors' indices are not 0 to {count - 1}, each once")
    if any(isinstance(numbers, str) for numbers in by_index.values()):
        raise ValueError("a vector is text, such as base64, where numbers were asked for (encoding_format = float)")
    lengths = {len(numbers) if isinstance(numbers, list) else -1 for numbers in by_index.values()}
    if len(lengths) > 1:
        raise ValueError("vectors of different lengths")
    if not 0 < lengths.pop() <= MOST_NUMBERS:
        raise ValueError(f"a vector is no list of 1 to {MOST_NUMBERS} numbers")
    return [by_index[place] for place in range(count)]


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
