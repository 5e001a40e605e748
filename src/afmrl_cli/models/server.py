"""One OpenAI-compatible server: where to POST, with which key, what an answer's status means, and when to try again.

A request that fails for a passing reason (429, 5xx, timeout, cut connection, nonsense) is tried again with
growing, jittered waits, or when the server's Retry-After says so. What is wrong with every request (key refused, no
such model, wrong address, server unreachable) is a ModelError at once; what the server has against one request is
`Refused`.

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
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import httpx
from PIL import Image

from ..errors import ModelError, UsageError
from ..section import EndpointSettings
from ..trust import KEY_HOST_VARIABLE, check_endpoint, key_goes_to
from .completion import error_text

KEY_VARIABLE = "AFMRL_API_KEY"
DEFAULT_MAX_PIXELS = 1280 * 28 * 28
MAX_BODY_BYTES = 4 * 2**20
CHARS_PER_TOKEN = 4
"""A guess on the short side: the server's tokenizer is not here to count `model.max_text_tokens`."""
MAX_WAIT = 120.0
"""Seconds; a server that asks for a longer pause is not waited for."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
NO_CREDIT = re.compile(r"insufficient[_ ](?:quota|funds|balance|credit)|out of credit|credit balance|payment required")
NO_KEY = re.compile(r"api.?key|authenticat|unauthori[sz]ed|credentials|token is (?:invalid|expired)|access denied")
NO_MODEL = re.compile(
    r"model.{0,80}(?:not found|not exist|n['’]t exist|unknown|invalid|not supported|not a valid|not available|not load)"
    r"|(?:no such|unknown|invalid|unsupported|not a valid) model|model_not_found|no models? loaded"
)
OWN_CONTENT = re.compile(
    r"content.?(?:filter|management|policy)|moderat|safety|flagged|inappropriate|sensitive|harm|violat|blocked"
)
GOES_ON = "what was answered is stored: the same command goes on from there"
Answer = TypeVar("Answer")


class Passing(Exception):
    """Worth another try, after `wait` seconds when the server said so. `status` 0: no answer by HTTP."""

    def __init__(self, message: str, wait: float | None = None, *, unreachable: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.wait, self.unreachable, self.status = wait, unreachable, status


class Refused(Exception):
    """This request will never be answered; others may be."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """The server that one section's `endpoint` names, and how it is asked."""

    def __init__(
        self,
        settings: EndpointSettings,
        section: str,
        path: str,
        *,
        api_key: str | None = None,
        first_wait: float = 0.5,
    ) -> None:
        """Take the endpoint of the settings' `section`; requests go to `path`, such as "/embeddings". `api_key` None:
        the environment's; `first_wait` is the longest first pause in seconds, doubled each time. Raises UsageError.
        """
        self._url = _target(settings.endpoint, section, path)
        own_word = check_endpoint(settings, settings.endpoint, section)
        self._settings, self._first_wait = settings, first_wait
        self.shown = str(self._url.copy_with(query=None))
        key = checked_key(os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key)
        self._key = key if key and key_goes_to(settings.endpoint, own_word) else ""
        self.destination = f"asking {settings.endpoint_model} at {self.shown}"
        if key and not self._key:
            self.destination += f", without the key in {KEY_VARIABLE}: {KEY_HOST_VARIABLE} says what it is for"

    def client(self) -> httpx.AsyncClient:
        """Return a client for `post`, to be closed by the caller."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return httpx.AsyncClient(
            headers=headers,
            timeout=self._settings.timeout,
            trust_env=False,
            follow_redirects=False,
            verify=trusted_authorities() if self._url.scheme == "https" else False,
            limits=httpx.Limits(max_connections=self._settings.concurrency),
        )

    async def tried(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return what `ask` does, tried again while it fails for passing reasons. Raises the last Passing, and Refused
        and ModelError at once.
        """
        for attempt in range(self._settings.retries + 1):
            try:
                return await ask()
            except Passing as error:
                wait = error.wait if error.wait is not None else self._backoff(attempt)
                if attempt == self._settings.retries or wait > MAX_WAIT:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def post(self, client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[bytes, httpx.Headers]:
        """Return content and headers of the answer of status 200. Raises Passing, Refused and ModelError."""
        try:
            # httpx's timeout is per read; a server that drips a byte a second needs one for the whole request.
            async with (
                asyncio.timeout(self._settings.timeout),
                client.stream("POST", self._url, json=body) as response,
            ):
                content = await _bounded(response)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Passing(f"no answer within {self._settings.timeout:g} s") from error
        except httpx.ConnectError as error:
            raise Passing(f"can't connect: {error}", unreachable=True) from error
        except httpx.TransportError as error:
            raise Passing(f"connection cut: {error or type(error).__name__}") from error
        if response.status_code != 200:
            self.raise_for(response.status_code, error_text(content), response.headers)
        return content, response.headers

    def raise_for(self, status: int, said: str, headers: httpx.Headers) -> NoReturn:
        """Raise what a status with those words means: Passing, Refused, or ModelError for all requests."""
        said = self.safe(said)
        message = f"HTTP {status}" + (f": {said}" if said else "")
        where, plain = f"{self.shown}: {message}", said.casefold()
        if status == 200 and not any(kind.search(plain) for kind in (NO_CREDIT, NO_KEY, NO_MODEL)):
            raise Passing(f"an error in place of an answer: {said}", status=400)
        if status in (401, 403) and not OWN_CONTENT.search(plain):
            raise ModelError(where, f"put the right key into the environment variable {KEY_VARIABLE}")
        if status in (404, 405):
            raise ModelError(where, f"is the address right, and is {self._settings.endpoint_model!r} served there?")
        if 300 <= status < 400:
            place = headers.get("location", "another place").split("?")[0][:200]
            raise ModelError(
                f"{where}: redirects to {self.safe(place)}", "redirects are not followed: give the address itself"
            )
        if status in PASSING and not NO_CREDIT.search(plain):
            raise Passing(message, _retry_after(headers.get("retry-after", "")), status=status)
        raise Refused(message, status)

    def hint(self, status: int, said: str, otherwise: str = GOES_ON) -> str:
        """Return what to do about a refusal of every request; `otherwise` where the words tell nothing."""
        if status == 402 or NO_CREDIT.search(said):
            return "is there credit left? What was answered is stored: the same command goes on from there"
        if NO_KEY.search(said):
            return f"put the right key into the environment variable {KEY_VARIABLE}"
        if NO_MODEL.search(said):
            return f"is {self._settings.endpoint_model!r} served there? --model names another"
        return otherwise

    def unreachable(self, message: str) -> ModelError:
        """Return the error of a server that has not answered once."""
        return ModelError(f"{self.shown}: {message}", "is the server running, and the address right?")

    def safe(self, message: str) -> str:
        """Return `message` without the key."""
        return message.replace(self._key, "[key]") if self._key else message

    def _backoff(self, attempt: int) -> float:
        longest = min(self._first_wait * 2.0**attempt, 30.0)
        return longest * random.uniform(0.5, 1.0)


def first_error(group: BaseExceptionGroup[ModelError]) -> ModelError:
    """Return the first of the errors that ended tasks that ran side by side."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ModelError)
    return found


def readable_name(model: str) -> str:
    """Return the beginning of an id for a model that a server calls so."""
    return re.sub(r"[^a-z0-9.]+", "-", model.rpartition("/")[2].lower()).strip("-.")[:40] or "model"


def _target(address: str, section: str, path: str) -> httpx.URL:
    """Return where to POST: the address may end before /v1, with it, or with `path`."""
    try:
        url = httpx.URL(address.strip())
    except httpx.InvalidURL as error:
        raise UsageError(f"{section}.endpoint: {error}", "for example http://127.0.0.1:8000/v1") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"{section}.endpoint: not an http or https address", "for example http://127.0.0.1:8000/v1")
    if url.userinfo:
        raise UsageError(f"{section}.endpoint: no name or password in the address", f"the key goes into {KEY_VARIABLE}")
    place = url.path.rstrip("/")
    if not place.endswith(path):
        place += path if place.endswith("/v1") else f"/v1{path}"
    return url.copy_with(path=place, fragment=None)


def checked_key(key: str, variable: str = KEY_VARIABLE) -> str:
    """Return the key that an environment `variable` holds. UsageError where no header can carry it."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"{variable} holds characters that no HTTP header can carry", "set it again")
    return key


def trusted_authorities() -> ssl.SSLContext:
    """Return certifi's authorities and the system's, where a company's own is installed."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise Passing(f"an answer of more than {MAX_BODY_BYTES >> 20} MiB")
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


def data_url(image: Image.Image, max_pixels: int) -> str:
    """Return the picture as a JPEG of at most `max_pixels` in a data URL."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
