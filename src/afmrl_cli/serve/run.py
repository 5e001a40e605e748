"""Listening: the socket, uvicorn around the application, and its end.

The socket is bound before anything is loaded, so that a port in use is told at once, and listens when all is loaded.
Ctrl-C and SIGTERM are how a service ends: what is being answered is answered (for a few seconds), then it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from ..errors import UsageError
from ..serve_settings import ServeSettings
from ..trust import SERVE_TOKEN_VARIABLE
from .guard import LEAST_TOKEN, is_loopback

BACKLOG = 2048
LAST_SECONDS = 5
OPEN_FILES = 16_384
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def token_for(settings: ServeSettings) -> str:
    """Return the token of the environment, "" for none. Raises UsageError where other machines reach the address and
    there is none, or a short one.
    """
    token = os.environ.get(SERVE_TOKEN_VARIABLE, "").strip()
    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(
            f"{SERVE_TOKEN_VARIABLE}: at least {LEAST_TOKEN} characters of ASCII are needed, as nobody guesses them",
            f"such as {SERVE_TOKEN_VARIABLE}=$(openssl rand -hex 16)",
        )
    if not token and not is_loopback(settings.address):
        raise UsageError(
            f"{settings.address} is reached from other machines: that needs a token",
            f"set {SERVE_TOKEN_VARIABLE}, such as to $(openssl rand -hex 16), or listen on 127.0.0.1",
        )
    return token


def bound(address: str, port: int) -> socket.socket:
    """Return a socket that is bound to `address` and `port` (0: any). Raises UsageError where that can't be."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"serve.address {address[:100]}: no such address", "such as 127.0.0.1 or ::1") from error
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(place)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {address} is in use", "another with --port; 0: any") from error
        if error.errno == errno.EACCES:
            raise UsageError(f"port {port} is not allowed", "one from 1024 on with --port") from error
        raise UsageError(f"{address}, port {port}: {error.strerror}", "such as 127.0.0.1") from error
    return opened


def link_of(opened: socket.socket) -> str:
    """Return the address of the page behind a bound socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """One whose end by a signal is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let the signals end the service, without raising them again afterwards."""
        before = {each: signal.signal(each, self.handle_exit) for each in END_SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def listen(app: ASGIApp, opened: socket.socket, ready: Callable[[], None]) -> None:
    """Serve `app` on a bound socket until a signal ends it; `ready` is called once requests are answered."""
    _allow_open_files()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http="h11",
        loop="asyncio",
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=LAST_SECONDS,
        timeout_keep_alive=15,
    )
    server = _Server(config)

    async def serve() -> None:
        serving = asyncio.ensure_future(server.serve([opened]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving

    asyncio.run(serve())


def _allow_open_files() -> None:
    """Raise the limit of open files as far as is allowed: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
