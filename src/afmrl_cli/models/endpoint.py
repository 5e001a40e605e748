"""A generator behind an OpenAI-compatible server: POST {url}/v1/chat/completions, a few requests at a time.

What still fails after all tries (see `server`) is an error of its row and ends nothing. What is wrong with every
request ends the run with one ModelError, at once or after a few requests that were refused alike. Parts of a request
that a server refuses by name are left out or renamed, with one message (dialects.py).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from ..attributes.answers import SPECIAL_TOKEN, attribute_text, without_thinking
from ..attributes.request import Generation, Request, Stopped
from ..catalog.pictures import opened
from ..errors import ModelError, UsageError
from ..listener import Listener, Silent
from ..settings import AttributeSettings, ModelSettings
from ..store.files import hash_json
from .completion import NotACompletion, ServerError, read_completion
from .dialects import SCHEMA_HINT, Dialect, about_schema, adapted
from .presets import generator_photos
from .server import (
    CHARS_PER_TOKEN,
    DEFAULT_MAX_PIXELS,
    GOES_ON,
    NO_CREDIT,
    NO_KEY,
    NO_MODEL,
    OWN_CONTENT,
    Passing,
    Refused,
    Server,
    data_url,
    first_error,
    readable_name,
)

GIVE_UP_AFTER = 20
"""Requests that fail in a row, each after all its tries, before the server counts as out of order."""
GIVE_UP_ALIKE = 6
"""Requests in a row that are refused with the same words: so will all others be."""
REWRITTEN = {400, 422, 500, 501}
"""Statuses of a refusal that may be about a part of the request that can be left out."""
OWN_SIZE = re.compile(r"context.?(?:length|window|size)|too (?:long|large|big|many)|maximum|exceed|payload|image")
"""What a server has against this request alone: what it shows, or how much."""


class Endpoint:
    """`generate` as `attributes.request.Generator` has it."""

    def __init__(
        self,
        settings: AttributeSettings,
        model: ModelSettings,
        *,
        section: str = "attributes",
        read: Callable[[str], str] = attribute_text,
        api_key: str | None = None,
        first_wait: float = 0.5,
        listener: Listener | None = None,
    ) -> None:
        """Take the endpoint's settings, those of the `section` that names it; `read` is what makes an answer of what
        the model wrote. `api_key` None: the environment's; `first_wait` is the longest first pause in seconds, doubled
        each time.
        """
        self.id = endpoint_id(settings, model, section)
        self._section, self._read = section, read
        self._listener = listener or Silent()
        self._server = Server(settings, section, "/chat/completions", api_key=api_key, first_wait=first_wait)
        self.destination = self._server.destination
        self._settings = settings
        self._max_pixels = model.generator_pixels or model.max_pixels or DEFAULT_MAX_PIXELS
        self._max_chars = model.max_text_tokens * CHARS_PER_TOKEN
        self._dialect = Dialect()
        self._spoken = {self._dialect}
        self._warned_of_thinking = False
        self._failed_in_a_row = 0
        self._refused_alike = ("", 0)
        self._answered = False

    def __repr__(self) -> str:
        return f"Endpoint({self.id!r}, {self._server.shown!r})"

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer each request, in their order; an answer that failed holds its error."""
        return asyncio.run(self._generate(requests))

    async def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        limit = asyncio.Semaphore(self._settings.concurrency)
        async with self._server.client() as client:

            async def one(request: Request) -> Generation:
                async with limit:
                    return await self._answer(client, *self._body(request))

            tasks: list[asyncio.Task[Generation]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    tasks += [group.create_task(one(request)) for request in requests]
            except BaseExceptionGroup as failed:
                stopped, others = failed.split(ModelError)
                if stopped is None or others is not None:
                    raise
                raise Stopped(first_error(stopped), [_result(task) for task in tasks]) from None
        return [task.result() for task in tasks]

    async def _answer(self, client: httpx.AsyncClient, body: dict[str, Any], prompt: str) -> Generation:
        try:
            generation = await self._server.tried(lambda: self._ask(client, body, prompt))
        except Refused as error:
            return self._refused(error)
        except Passing as error:
            return self._failed(error)
        self._failed_in_a_row, self._refused_alike, self._answered = 0, ("", 0), True
        return generation

    def _refused(self, error: Refused) -> Generation:
        # The server is there and reads requests, so it is not out of order; but it may refuse each of them.
        self._failed_in_a_row = 0
        message, said = self._server.safe(str(error)), str(error).casefold()
        everybody = error.status == 402 or any(kind.search(said) for kind in (NO_CREDIT, NO_KEY, NO_MODEL))
        if OWN_CONTENT.search(said) and not everybody:
            return Generation("", False, f"content filter: {message}", refused=True)
        if everybody or not OWN_SIZE.search(said):
            words, number = re.sub(r"[\w-]*\d[\w-]*", "", said), 1  # requests have numbers, and times
            if words == self._refused_alike[0]:
                number += self._refused_alike[1]
            self._refused_alike = (words, number)
            if number >= GIVE_UP_ALIKE:
                raise ModelError(
                    f"{self._server.shown}: {number} requests in a row were refused alike: {message}",
                    self._server.hint(error.status, said, SCHEMA_HINT if about_schema(said) else GOES_ON),
                )
        return Generation("", False, message + (f" ({SCHEMA_HINT})" if about_schema(said) else ""))

    def _failed(self, error: Passing) -> Generation:
        self._failed_in_a_row += 1
        message = self._server.safe(str(error))
        if error.unreachable and not self._answered:
            raise self._server.unreachable(message)
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            raise ModelError(
                f"{self._server.shown}: {self._failed_in_a_row} requests in a row failed, the last one: {message}",
                GOES_ON,
            )
        return Generation("", False, message)

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any], prompt: str) -> Generation:
        """Return the answer to `body` in the server's dialect, which is learnt from what it refuses."""
        while True:
            dialect = self._dialect
            sent = dialect.body(body, prompt)
            try:
                return await self._send(client, sent)
            except (Refused, Passing) as error:
                if self._dialect != dialect:  # learnt meanwhile, from another request
                    continue
                found = adapted(dialect, str(error), sent) if error.status in REWRITTEN else None
                if found is None or found[0] in self._spoken:
                    raise
                self._dialect, change = found
                self._spoken.add(self._dialect)
                self._listener.warn(f"{self._server.shown}: {self._server.safe(str(error))}: requested again {change}")

    async def _send(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Generation:
        content, headers = await self._server.post(client, body)
        try:
            generation = read_completion(content, self._read)
        except NotACompletion as error:
            raise Passing(str(error)) from error
        except ServerError as error:  # of the server, or of a provider behind it
            self._server.raise_for(error.status, str(error), headers)
        if generation.cut_off and not without_thinking(generation.text).strip() and not self._warned_of_thinking:
            self._warned_of_thinking = True
            self._listener.warn(
                f"{self._server.shown}: an answer was cut off before it began, by thinking it seems: switch thinking "
                f"off at the server, or raise {self._section}.max_new_tokens"
            )
        return generation

    def _body(self, request: Request) -> tuple[dict[str, Any], str]:
        """Return the request as OpenAI has it, and its prompt."""
        settings = self._settings
        pictures = [
            {"type": "image_url", "image_url": {"url": data_url(opened(image), self._max_pixels)}}
            for image in request.images
        ]
        prompt = request.prompt
        if len(request.product) > self._max_chars:
            prompt = prompt.replace(request.product, request.product[: self._max_chars].rstrip(), 1)
        prompt = SPECIAL_TOKEN.sub(" ", prompt)
        body: dict[str, Any] = {
            "model": settings.endpoint_model,
            "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}],
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
        }
        if settings.temperature > 0:
            body |= {"top_p": settings.top_p, "seed": settings.seed}
        if request.schema is not None and settings.endpoint_schema:
            # Quotes and braces cost tokens that the budget for `key: value` text does not know of.
            body["max_tokens"] = 2 * settings.max_new_tokens
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "attributes", "schema": request.schema, "strict": "required" in request.schema},
            }
        return body, prompt


def endpoint_id(settings: AttributeSettings, model: ModelSettings, section: str = "attributes") -> str:
    """Name the model there and what it is shown, as `presets.model_id` does, such as "qwen3-vl-8b-1a2b3c4d5e".

    The address is no part of it: the same model on another port has answered already.
    """
    if not settings.endpoint_model:
        raise UsageError("an endpoint needs the model's name", f"--set {section}.endpoint_model=NAME")
    parts = {
        "endpoint": settings.endpoint_model,
        "json": settings.endpoint_schema,
        "pixels": model.generator_pixels or model.max_pixels or DEFAULT_MAX_PIXELS,
        "images": generator_photos(model),
        "text": model.max_text_tokens,
    }
    return f"{readable_name(settings.endpoint_model)}-{hash_json(parts)[:10]}"


def _result(task: asyncio.Task[Generation]) -> Generation | None:
    return None if task.cancelled() or task.exception() is not None else task.result()
