"""A generator behind an OpenAI-compatible server: POST {url}/v1/chat/completions, a few requests at a time.

A request that fails for a passing reason (429, 5xx, timeout, cut connection, nonsense) is tried again with
growing, jittered waits, or when the server's Retry-After says so; what still fails is an error of its row and
ends nothing. What is wrong with every request (key refused, no such model, wrong address, server unreachable,
no credit left) ends the run with one ModelError, at once or after a few requests that were refused alike. Parts
of a request that a server refuses by name are left out or renamed, with one message (dialects.py).

Only the host that the user named is ever spoken to: redirects are not followed, and neither proxies nor .netrc are
taken from the environment, which would send photos and texts, or a password, somewhere else without a word. The key
comes from AFMRL_API_KEY alone; it goes into one header, to the host that it is for (see `trust`), and is struck out of
every message.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import io
import math
import os
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
from PIL import Image

from ..attributes.answers import SPECIAL_TOKEN, without_thinking
from ..attributes.request import Generation, Request, Stopped
from ..catalog.pictures import opened
from ..errors import ModelError, UsageError
from ..listener import Listener, Silent
from ..settings import AttributeSettings, ModelSettings
from ..store.files import hash_json
from ..trust import KEY_HOST_VARIABLE, check_endpoint, key_goes_to
from .completion import NotACompletion, ServerError, error_text, read_completion
from .dialects import SCHEMA_HINT, Dialect, about_schema, adapted
from .presets import generator_photos

KEY_VARIABLE = "AFMRL_API_KEY"
DEFAULT_MAX_PIXELS = 1280 * 28 * 28
MAX_BODY_BYTES = 4 * 2**20
CHARS_PER_TOKEN = 4
"""A guess on the short side: the server's tokenizer is not here to count `model.max_text_tokens`."""
MAX_WAIT = 120.0
"""Seconds; a server that asks for a longer pause is not waited for."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
GIVE_UP_AFTER = 20
"""Requests that fail in a row, each after all its tries, before the server counts as out of order."""
GIVE_UP_ALIKE = 6
"""Requests in a row that are refused with the same words: so will all others be."""
REWRITTEN = {400, 422, 500, 501}
"""Statuses of a refusal that may be about a part of the request that can be left out."""
NO_CREDIT = re.compile(r"insufficient[_ ](?:quota|funds|balance|credit)|out of credit|credit balance|payment required")
NO_KEY = re.compile(r"api.?key|authenticat|unauthori[sz]ed|credentials|token is (?:invalid|expired)|access denied")
NO_MODEL = re.compile(
    r"model.{0,80}(?:not found|not exist|n['’]t exist|unknown|invalid|not supported|not a valid|not available|not load)"
    r"|(?:no such|unknown|invalid|unsupported|not a valid) model|model_not_found|no models? loaded"
)
OWN_CONTENT = re.compile(
    r"content.?(?:filter|management|policy)|moderat|safety|flagged|inappropriate|sensitive|harm|violat|blocked"
)
OWN_SIZE = re.compile(r"context.?(?:length|window|size)|too (?:long|large|big|many)|maximum|exceed|payload|image")
"""What a server has against this request alone: what it shows, or how much."""


class _Passing(Exception):
    """Worth another try, after `wait` seconds when the server said so. `status` 0: no answer by HTTP."""

    def __init__(self, message: str, wait: float | None = None, *, unreachable: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.wait, self.unreachable, self.status = wait, unreachable, status


class _Refused(Exception):
    """This request will never be answered; others may be."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Target:
    url: str
    shown: str


class Endpoint:
    """`generate` as `attributes.request.Generator` has it."""

    def __init__(
        self,
        settings: AttributeSettings,
        model: ModelSettings,
        *,
        api_key: str | None = None,
        first_wait: float = 0.5,
        listener: Listener | None = None,
    ) -> None:
        """Take the endpoint's settings. `api_key` None: the environment's; `first_wait` is the longest first pause in
        seconds, doubled each time.
        """
        self.id = endpoint_id(settings, model)
        self._target = _target(settings.endpoint)
        own_word = check_endpoint(settings, settings.endpoint)
        self._settings = settings
        self._max_pixels = model.max_pixels or DEFAULT_MAX_PIXELS
        self._max_chars = model.max_text_tokens * CHARS_PER_TOKEN
        key = _checked_key(os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key)
        self._key = key if key and key_goes_to(settings.endpoint, own_word) else ""
        self.destination = f"asking {settings.endpoint_model} at {self._target.shown}"
        if key and not self._key:
            self.destination += f", without the key in {KEY_VARIABLE}: {KEY_HOST_VARIABLE} says what it is for"
        self._first_wait = first_wait
        self._listener = listener or Silent()
        self._dialect = Dialect()
        self._spoken = {self._dialect}
        self._warned_of_thinking = False
        self._failed_in_a_row = 0
        self._refused_alike = ("", 0)
        self._answered = False

    def __repr__(self) -> str:
        return f"Endpoint({self.id!r}, {self._target.shown!r})"

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer each request, in their order; an answer that failed holds its error."""
        return asyncio.run(self._generate(requests))

    async def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limit = asyncio.Semaphore(self._settings.concurrency)
        async with httpx.AsyncClient(
            headers=headers,
            timeout=self._settings.timeout,
            trust_env=False,
            follow_redirects=False,
            verify=_trusted_authorities() if self._target.url.startswith("https") else False,
            limits=httpx.Limits(max_connections=self._settings.concurrency),
        ) as client:

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
                raise Stopped(_first(stopped), [_result(task) for task in tasks]) from None
        return [task.result() for task in tasks]

    async def _answer(self, client: httpx.AsyncClient, body: dict[str, Any], prompt: str) -> Generation:
        for attempt in range(self._settings.retries + 1):
            try:
                generation = await self._ask(client, body, prompt)
            except _Refused as error:
                return self._refused(error)
            except _Passing as error:
                wait = error.wait if error.wait is not None else self._backoff(attempt)
                if attempt == self._settings.retries or wait > MAX_WAIT:
                    return self._failed(error)
                await asyncio.sleep(wait)
            else:
                self._failed_in_a_row, self._refused_alike, self._answered = 0, ("", 0), True
                return generation
        raise AssertionError("the last attempt returns")

    def _refused(self, error: _Refused) -> Generation:
        # The server is there and reads requests, so it is not out of order; but it may refuse each of them.
        self._failed_in_a_row = 0
        message, said = self._safe(str(error)), str(error).casefold()
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
                    f"{self._target.shown}: {number} requests in a row were refused alike: {message}",
                    self._hint(error.status, said),
                )
        return Generation("", False, message + (f" ({SCHEMA_HINT})" if about_schema(said) else ""))

    def _hint(self, status: int, said: str) -> str:
        if status == 402 or NO_CREDIT.search(said):
            return "is there credit left? What was answered is stored: the same command goes on from there"
        if NO_KEY.search(said):
            return f"put the right key into the environment variable {KEY_VARIABLE}"
        if NO_MODEL.search(said):
            return f"is {self._settings.endpoint_model!r} served there? --model names another"
        return SCHEMA_HINT if about_schema(said) else "what was answered is stored: the same command goes on from there"

    def _failed(self, error: _Passing) -> Generation:
        self._failed_in_a_row += 1
        message = self._safe(str(error))
        if error.unreachable and not self._answered:
            raise ModelError(f"{self._target.shown}: {message}", "is the server running, and the address right?")
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            raise ModelError(
                f"{self._target.shown}: {self._failed_in_a_row} requests in a row failed, the last one: {message}",
                "what was answered is stored: the same command goes on from there",
            )
        return Generation("", False, message)

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any], prompt: str) -> Generation:
        """Return the answer to `body` in the server's dialect, which is learnt from what it refuses."""
        while True:
            dialect = self._dialect
            sent = dialect.body(body, prompt)
            try:
                return await self._send(client, sent)
            except (_Refused, _Passing) as error:
                if self._dialect != dialect:  # learnt meanwhile, from another request
                    continue
                found = adapted(dialect, str(error), sent) if error.status in REWRITTEN else None
                if found is None or found[0] in self._spoken:
                    raise
                self._dialect, change = found
                self._spoken.add(self._dialect)
                self._listener.warn(f"{self._target.shown}: {self._safe(str(error))}: requested again {change}")

    async def _send(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Generation:
        try:
            # httpx's timeout is per read; a server that drips a byte a second needs one for the whole request.
            async with (
                asyncio.timeout(self._settings.timeout),
                client.stream("POST", self._target.url, json=body) as response,
            ):
                content = await _bounded(response)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _Passing(f"no answer within {self._settings.timeout:g} s") from error
        except httpx.ConnectError as error:
            raise _Passing(f"can't connect: {error}", unreachable=True) from error
        except httpx.TransportError as error:
            raise _Passing(f"connection cut: {error or type(error).__name__}") from error
        if response.status_code != 200:
            self._raise_for(response.status_code, error_text(content), response.headers)
        try:
            generation = read_completion(content)
        except NotACompletion as error:
            raise _Passing(str(error)) from error
        except ServerError as error:  # of the server, or of a provider behind it
            self._raise_for(error.status, str(error), response.headers)
        if generation.cut_off and not without_thinking(generation.text).strip() and not self._warned_of_thinking:
            self._warned_of_thinking = True
            self._listener.warn(
                f"{self._target.shown}: an answer was cut off before it began, by thinking it seems: switch thinking "
                "off at the server, or raise attributes.max_new_tokens"
            )
        return generation

    def _raise_for(self, status: int, said: str, headers: httpx.Headers) -> NoReturn:
        said = self._safe(said)
        message = f"HTTP {status}" + (f": {said}" if said else "")
        where, plain = f"{self._target.shown}: {message}", said.casefold()
        if status == 200 and not any(kind.search(plain) for kind in (NO_CREDIT, NO_KEY, NO_MODEL)):
            raise _Passing(f"an error in place of an answer: {said}", status=400)
        if status in (401, 403) and not OWN_CONTENT.search(plain):
            raise ModelError(where, f"put the right key into the environment variable {KEY_VARIABLE}")
        if status in (404, 405):
            raise ModelError(where, f"is the address right, and is {self._settings.endpoint_model!r} served there?")
        if 300 <= status < 400:
            place = headers.get("location", "another place").split("?")[0][:200]
            raise ModelError(
                f"{where}: redirects to {self._safe(place)}", "redirects are not followed: give the address itself"
            )
        if status in PASSING and not NO_CREDIT.search(plain):
            raise _Passing(message, _retry_after(headers.get("retry-after", "")), status=status)
        raise _Refused(message, status)

    def _backoff(self, attempt: int) -> float:
        longest = min(self._first_wait * 2.0**attempt, 30.0)
        return longest * random.uniform(0.5, 1.0)

    def _safe(self, message: str) -> str:
        return message.replace(self._key, "[key]") if self._key else message

    def _body(self, request: Request) -> tuple[dict[str, Any], str]:
        """Return the request as OpenAI has it, and its prompt."""
        settings = self._settings
        pictures = [
            {"type": "image_url", "image_url": {"url": _data_url(opened(image), self._max_pixels)}}
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


def endpoint_id(settings: AttributeSettings, model: ModelSettings) -> str:
    """Name the model there and what it is shown, as `presets.model_id` does, such as "qwen3-vl-8b-1a2b3c4d5e".

    The address is no part of it: the same model on another port has answered already.
    """
    if not settings.endpoint_model:
        raise UsageError("an endpoint needs the model's name", "give --model NAME (attributes.endpoint_model)")
    parts = {
        "endpoint": settings.endpoint_model,
        "json": settings.endpoint_schema,
        "pixels": model.max_pixels or DEFAULT_MAX_PIXELS,
        "images": generator_photos(model),
        "text": model.max_text_tokens,
    }
    readable = re.sub(r"[^a-z0-9.]+", "-", settings.endpoint_model.rpartition("/")[2].lower()).strip("-.")
    return f"{readable[:40] or 'model'}-{hash_json(parts)[:10]}"


def _target(address: str) -> _Target:
    """Return where to POST: the address may end before /v1, with it, or with /chat/completions."""
    try:
        url = httpx.URL(address.strip())
    except httpx.InvalidURL as error:
        raise UsageError(f"attributes.endpoint: {error}", "for example http://127.0.0.1:8000/v1") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(
            "attributes.endpoint: not an http or https address", "for example --endpoint http://127.0.0.1:8000/v1"
        )
    if url.userinfo:
        raise UsageError("attributes.endpoint: no name or password in the address", f"the key goes into {KEY_VARIABLE}")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") else "/v1/chat/completions"
    url = url.copy_with(path=path, fragment=None)
    return _Target(str(url), str(url.copy_with(query=None)))


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"{KEY_VARIABLE} holds characters that no HTTP header can carry", "set it again")
    return key


def _trusted_authorities() -> ssl.SSLContext:
    """Return certifi's authorities and the system's, where a company's own is installed."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _first(group: BaseExceptionGroup[ModelError]) -> ModelError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ModelError)
    return found


def _result(task: asyncio.Task[Generation]) -> Generation | None:
    return None if task.cancelled() or task.exception() is not None else task.result()


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise _Passing(f"an answer of more than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(content)


def _retry_after(value: str) -> float | None:
    """Return the seconds from a Retry-After header: a number or a date; None when it says nothing sensible."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _data_url(image: Image.Image, max_pixels: int) -> str:
    pixels = image.width * image.height
    if pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
