"""Who is let in: the door before all routes, as ASGI.

1. Host: the service's own names, so that no page can reach it through a name of its own (DNS rebinding).
2. Origin: what changes or costs anything is not done for another site's page (CSRF).
3. Token: where one is set, all but /healthz, the style and the way in need it, as `Authorization: Bearer` or in the
   cookie that the page's form sets. It is compared in constant time; an address that gives too many wrong ones is let
   in no more for a while.
4. Size: no more of a body is read than may be sent.

And what a browser may do with an answer: no script but the page's own file, no frame, no guess at a content's type.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Refusal, refused, too_large

COOKIE = "afmrl_serve"
LEAST_TOKEN = 16
OPEN_PATHS = frozenset(("/healthz", "/login", "/page.css"))
"""What needs no token: whether the service lives, and the form in which one is given."""
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
WRONG_TOKENS, WINDOW_SECONDS, ADDRESSES = 10, 60.0, 1000
"""So many wrong tokens of an address in so many seconds; so many addresses are remembered."""
DRAIN_BYTES, DRAIN_SECONDS = 100_000_000, 5.0
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches `address`."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass
class Door:
    """Decides about requests. `hosts` are the names that the service goes by besides those of this machine; `token` is
    "" where none is needed; `most_bytes` is the largest body.
    """

    hosts: frozenset[str]
    token: str
    most_bytes: int
    others: bool = False
    """Whether other machines reach it: then by any of this machine's addresses, which are no names to rebind."""
    _wrong: dict[str, deque[float]] = field(default_factory=dict)

    @staticmethod
    def of(address: str, hosts: Iterable[str], token: str, most_bytes: int) -> Door:
        """Make the door of a service that listens on `address`."""
        names = frozenset(_bare(host) for host in (address, *hosts) if host)
        return Door(names, token, most_bytes, not is_loopback(address))

    @property
    def cookie(self) -> str:
        """Return what the page's cookie holds: it follows from the token, which it does not tell."""
        return hmac.new(self.token.encode(), b"afmrl serve, the page's cookie", hashlib.sha256).hexdigest()

    def check(self, scope: Scope) -> None:
        """Raise Refusal for a request that is not let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            raise Refusal(400, f"this service is not called {host[:100]!r}", "`serve.hosts` names what it is called")
        if scope["method"] not in SAFE_METHODS:
            _check_origin(headers, host)
        if self.token and scope["path"] not in OPEN_PATHS and not self._has_token(headers, client_of(scope)):
            hint = "send it as Authorization: Bearer TOKEN"
            raise Refusal(401, "this service needs its token", hint, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Refusal(400, "a content-length that is no number")
        if int(length) > self.most_bytes:
            raise too_large(self.most_bytes)

    def _is_own(self, host: str) -> bool:
        name = _bare(host)
        return bool(name) and (is_loopback(name) or name in self.hosts or (self.others and _is_address(name)))

    def _has_token(self, headers: Headers, client: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if given and scheme.lower() == "bearer":
            return self.opens(given.strip(), client)
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and _same(morsel.value, self.cookie)

    def opens(self, given: str, client: str) -> bool:
        """Tell whether `given` is the token. Raises Refusal, whatever is given, after too many wrong ones from the
        address `client`.
        """
        now, wrong = time.monotonic(), self._wrong.get(client, deque())
        if len(wrong) == WRONG_TOKENS and now - wrong[0] < WINDOW_SECONDS:
            wait = {"Retry-After": str(int(WINDOW_SECONDS))}
            raise Refusal(429, "too many wrong tokens", "try again in a minute", wait)
        if _same(given, self.token):
            return True
        if client not in self._wrong and len(self._wrong) >= ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        self._wrong.setdefault(client, deque(maxlen=WRONG_TOKENS)).append(now)
        return False


def client_of(scope: Scope) -> str:
    """Return the address that a request comes from, "" where it is not known."""
    return str(scope["client"][0]) if scope.get("client") else ""


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def _bare(host: str) -> str:
    """Return a host's name without its port, as names are compared; "" of what is none."""
    try:
        return (urlsplit(f"//{host.strip().lower()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: Headers, host: str) -> None:
    """Raise Refusal where a browser says that another site's page has sent this. Programs say neither."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is None:
        own = site in (None, "same-origin", "none")
    else:
        try:
            own = urlsplit(origin.lower()).netloc == host.strip().lower()
        except ValueError:
            own = False
    if not own:
        raise Refusal(403, "sent by the page of another site", "use the service's own page, or a program")


class Guard:
    """The door, as a layer around `app`."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a websocket: there is none here

        unread = True

        async def noting_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                if unread and message["status"] >= 400 and _has_body(scope):
                    await drained(receive)
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._door.check(scope)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, guarded_send)
            return
        await self._app(scope, noting_receive, guarded_send)


def _has_body(scope: Scope) -> bool:
    """Tell whether a client is sending a body now, whatever it is answered."""
    headers = Headers(scope=scope)
    sends = "transfer-encoding" in headers or headers.get("content-length", "0") not in ("", "0")
    return sends and "expect" not in headers


async def drained(receive: Receive) -> None:
    """Read what is left of a body and forget it, within bounds: a client that is still sending would miss the answer
    when the connection is closed.
    """
    read, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while more and read <= DRAIN_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
