"""A generator behind an OpenAI-compatible server: POST {url}/v1/chat/completions, a few requests at a time.

A request that fails for a passing reason (429, 5xx, timeout, cut connection, nonsense) is tried again with growing,
jittered waits, or when the server's Retry-After says so; what still fails is an error of its row and ends nothing.
What is wrong with every request (key refused, no such model, wrong address, nobody there) ends the run with one
ModelError.

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
import json
import math
import os
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from ..attributes.parse import clean_value
from ..attributes.request import Generation, Request
from ..catalog.pictures import opened
from ..errors import ModelError, UsageError
from ..settings import AttributeSettings, ModelSettings
from ..store.files import hash_json
from ..trust import KEY_HOST_VARIABLE, check_endpoint, key_goes_to

KEY_VARIABLE = "AFMRL_API_KEY"
DEFAULT_MAX_PIXELS = 1280 * 28 * 28
MAX_BODY_BYTES = 4 * 2**20
SPECIAL_TOKEN = re.compile(r"<\|[\w.-]{1,40}\|>")
"""Special tokens as Qwen and others spell them: servers read them out of any text, and a shop's must open no turn."""
CHARS_PER_TOKEN = 4
"""A guess on the short side: the server's tokenizer is not here to count `model.max_text_tokens`."""
MAX_WAIT = 120.0
"""Seconds; a server that asks for a longer pause is not waited for."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
GIVE_UP_AFTER = 20
"""Requests that fail in a row, each after all its tries, before the server counts as out of order."""


class _Passing(Exception):
    """Worth another try, after `wait` seconds when the server said so."""

    def __init__(self, message: str, wait: float | None = None, *, nobody: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.nobody = nobody


class _Refused(Exception):
    """This request will never be answered; others may be."""


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
    ) -> None:
        """`api_key` None: the environment's; `first_wait` is the longest first pause in seconds, doubled each time."""
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
        self._failed_in_a_row = 0
        self._answered = False

    def __repr__(self) -> str:
        return f"Endpoint({self.id!r}, {self._target.shown!r})"

    def generate(self, requests: Sequence[Request], samples: int = 1) -> list[list[Generation]]:
        """Answers in the order of the requests; a row that failed holds its error."""
        return asyncio.run(self._generate(requests, samples))

    async def _generate(self, requests: Sequence[Request], samples: int) -> list[list[Generation]]:
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

            async def one(request: Request, sample: int) -> Generation:
                async with limit:
                    return await self._answer(client, self._body(request, sample))

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [[group.create_task(one(r, s)) for s in range(samples)] for r in requests]
            except BaseExceptionGroup as failed:
                stopped, others = failed.split(ModelError)
                if stopped is None or others is not None:
                    raise
                raise _first(stopped) from None
        return [[task.result() for task in row] for row in tasks]

    async def _answer(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Generation:
        for attempt in range(self._settings.retries + 1):
            try:
                generation = await self._ask(client, body)
            except _Refused as error:
                # The server is there and reads requests, so this says nothing about the next one.
                self._failed_in_a_row = 0
                return Generation("", False, self._safe(str(error)))
            except _Passing as error:
                wait = error.wait if error.wait is not None else self._backoff(attempt)
                if attempt == self._settings.retries or wait > MAX_WAIT:
                    return self._failed(error)
                await asyncio.sleep(wait)
            else:
                self._failed_in_a_row, self._answered = 0, True
                return generation
        raise AssertionError("the last attempt returns")

    def _failed(self, error: _Passing) -> Generation:
        self._failed_in_a_row += 1
        message = self._safe(str(error))
        if error.nobody and not self._answered:
            raise ModelError(f"{self._target.shown}: {message}", "is the server running, and the address right?")
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            raise ModelError(
                f"{self._target.shown}: {self._failed_in_a_row} requests in a row failed, the last one: {message}",
                "what was answered is stored: the same command goes on from there",
            )
        return Generation("", False, message)

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Generation:
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
            raise _Passing(f"can't connect: {error}", nobody=True) from error
        except httpx.TransportError as error:
            raise _Passing(f"connection cut: {error or type(error).__name__}") from error
        if response.status_code != 200:
            self._raise_for(response, content)
        return _read_completion(content)

    def _raise_for(self, response: httpx.Response, content: bytes) -> None:
        status, said = response.status_code, self._safe(_error_text(content))
        message = f"HTTP {status}" + (f": {said}" if said else "")
        where = f"{self._target.shown}: {message}"
        if status in (401, 403):
            raise ModelError(where, f"put the right key into the environment variable {KEY_VARIABLE}")
        if status in (404, 405):
            raise ModelError(where, f"is the address right, and is {self._settings.endpoint_model!r} served there?")
        if 300 <= status < 400:
            place = response.headers.get("location", "another place").split("?")[0][:200]
            raise ModelError(
                f"{where}: redirects to {self._safe(place)}", "redirects are not followed: give the address itself"
            )
        if status in PASSING:
            raise _Passing(message, _retry_after(response.headers.get("retry-after", "")))
        if "response_format" in said or "json_schema" in said:
            message += " (attributes.endpoint_schema=false asks without a JSON schema)"
        raise _Refused(message)

    def _backoff(self, attempt: int) -> float:
        longest = min(self._first_wait * 2.0**attempt, 30.0)
        return longest * random.uniform(0.5, 1.0)

    def _safe(self, message: str) -> str:
        return message.replace(self._key, "[key]") if self._key else message

    def _body(self, request: Request, sample: int) -> dict[str, Any]:
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
            body |= {"top_p": settings.top_p, "seed": settings.seed + sample}
        if request.schema is not None and settings.endpoint_schema:
            # Quotes and braces cost tokens that the budget for `key: value` text does not know of.
            body["max_tokens"] = 2 * settings.max_new_tokens
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "attributes", "schema": request.schema, "strict": "required" in request.schema},
            }
        return body


def endpoint_id(settings: AttributeSettings, model: ModelSettings) -> str:
    """Names the model there and what it is shown, as `presets.model_id` does, such as "qwen3-vl-8b-1a2b3c4d5e".

    The address is no part of it: the same model on another port has answered already.
    """
    if not settings.endpoint_model:
        raise UsageError("an endpoint needs the model's name", "give --model NAME (attributes.endpoint_model)")
    parts = {
        "endpoint": settings.endpoint_model,
        "json": settings.endpoint_schema,
        "pixels": model.max_pixels or DEFAULT_MAX_PIXELS,
        "images": model.max_images,
        "text": model.max_text_tokens,
    }
    readable = re.sub(r"[^a-z0-9.]+", "-", settings.endpoint_model.rpartition("/")[2].lower()).strip("-.")
    return f"{readable[:40] or 'model'}-{hash_json(parts)[:10]}"


def _target(address: str) -> _Target:
    """Where to POST: the address may end before /v1, with it, or with /chat/completions."""
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
    """certifi's authorities and the system's, where a company's own is installed."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _first(group: BaseExceptionGroup[ModelError]) -> ModelError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ModelError)
    return found


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise _Passing(f"an answer of more than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(content)


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header: a number or a date; None when it says nothing sensible."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _error_text(content: bytes) -> str:
    """What a server said about its error, short and on one line."""
    text = content[:4000].decode("utf-8", "replace")
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass  # not JSON: shown as it is
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))[:300]


def _read_completion(content: bytes) -> Generation:
    try:
        choice = json.loads(content)["choices"][0]
        said, reason = choice["message"].get("content"), choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise _Passing(f"not a chat completion: {_error_text(content[:200])!r}") from error
    if isinstance(said, list):
        said = "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    text = said if isinstance(said, str) else ""
    cut_off = reason == "length"
    return Generation(text if cut_off else attribute_text(text), cut_off)


def attribute_text(answer: str) -> str:
    """An answer that is a JSON object, fenced or not, as attribute text; any other answer as it is.

    Null and empty values are dropped (not seen), lists joined by commas. What attribute text can't hold, such as an
    object inside the object, stays JSON and so is invalid for the strict parser.
    """
    body = answer.strip()
    if body.startswith("```"):
        body = body.removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not body.startswith("{"):
        return answer
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs)  # a dict would hide a key that stands twice
    except (ValueError, RecursionError):
        return answer
    written = [(str(key), _value_text(value)) for key, value in pairs.items]
    if any(value is None for _, value in written):
        return answer
    return "; ".join(f"{key}: {value}" for key, value in written if value)


class _Pairs:
    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def _value_text(value: object) -> str | None:
    """A JSON value as a value of attribute text; None when that can't be done."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        parts = [_value_text(part) for part in value if not isinstance(part, list)]
        if len(parts) < len(value) or any(part is None for part in parts):
            return None
        return ", ".join(part for part in parts if part)
    return clean_value(str(value)) if isinstance(value, str | int | float) else None


def _data_url(image: Image.Image, max_pixels: int) -> str:
    pixels = image.width * image.height
    if pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
