"""Photos that a catalog links to, fetched once into `.afmrl/images/`: what is there already is not fetched again.

Links come from a file that anybody may have written, so only http and https are followed, up to five redirects; the
address that a name resolves to is checked before each connection, and it is that address that is connected to: one of
this machine or a private network is refused (`catalog.fetch_private` allows it). Size, pixels and time are bounded, by
one clock from the first byte to the last, redirects and headers included; and the content must be a photo that can be
read. Proxies of the environment are not used: behind one nothing could be checked.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore
import httpx

from .. import __version__
from ..errors import DataError
from ..listener import Listener
from ..settings import CatalogSettings
from ..store.files import writing
from ..store.folder import CatalogFolder
from ..store.shards import Shard
from .addresses import is_public
from .images import ImageProblem, check_image
from .links import full_link, place_of
from .problems import Problem, Problems, clipped
from .read import open_catalog

AT_ONCE = 8
AHEAD = 64
RETRIES = 3
WAIT_SECONDS = 1.0
"""Before the first retry, doubled for each more; a server's Retry-After counts, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 30.0
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
PHOTO_SECONDS = 60.0
SLICE_SECONDS = 0.2
"""How long Ctrl-C may go unnoticed by a download that waits for bytes."""
HEADER_BYTES = 1 << 20
"""That may come beside a photo: headers, bodies of redirects, interim answers."""
REDIRECTS = 5
DEAD_AFTER = 5
"""Links to a host that can't be reached at all, one after the other, until no more of it are tried."""
HEADERS = {
    "User-Agent": f"afmrl/{__version__} (photos of a catalog)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class FetchSummary:
    """How many different links there are: fetched now, there already, and failed ones (reported in `problems`)."""

    fetched: int
    there: int
    failed: int
    bytes: int


@dataclass(frozen=True)
class _Link:
    url: str
    row: int
    column: str
    listing: str


class _Failed(Exception):
    """This link can't be fetched; the reason. `again` when another try may help, after `wait` seconds at least."""

    def __init__(self, reason: str, *, again: bool = False, wait: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.again, self.wait, self.reached = again, wait, reached


def fetch_images(
    folder: CatalogFolder,
    settings: CatalogSettings,
    problems: Problems,
    listener: Listener,
    shard: Shard | None = None,
) -> FetchSummary:
    """Fetch all photos that the catalog links to, or a shard of the links, and that are not there; call it holding the
    store's lock or the shard's.

    Links that fail go to `problems`; with `bad_images = fail` the first raises DataError.
    """
    counts: Counter[str] = Counter()
    waiting: deque[tuple[_Link, Future[int]]] = deque()

    def finish() -> None:
        """Wait for the oldest download, and count or report it."""
        link, future = waiting.popleft()
        try:
            counts["bytes"] += future.result()
            counts["fetched"] += 1
        except _Failed as failure:
            counts["failed"] += 1
            message = f"{clipped(link.url, 100)}: {failure}"
            found = Problem("failed download", link.row, message, link.column, link.listing)
            problems.report(found, settings.bad_images, folder.catalog)
        listener.progress("fetching", counts["fetched"] + counts["failed"])

    with _Fetcher(settings) as fetcher, ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for link in _links(folder, settings):
                if shard is not None and not shard.takes(link.url):
                    continue
                place = place_of(folder.root, link.url)
                if place.is_file():
                    counts["there"] += 1
                    continue
                waiting.append((link, pool.submit(fetcher.fetch, link.url, place)))
                if len(waiting) > AHEAD:
                    finish()
            while waiting:
                finish()
        except BaseException:
            fetcher.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return FetchSummary(counts["fetched"], counts["there"], counts["failed"], counts["bytes"])


def _links(folder: CatalogFolder, settings: CatalogSettings) -> Iterator[_Link]:
    """Yield the catalog's different links, in its order."""
    found: deque[_Link] = deque()
    seen: set[int] = set()

    def keep(cell: str, row: int, column: str, listing: str) -> None:
        url = full_link(cell)
        if url and hash(url) not in seen:
            seen.add(hash(url))
            found.append(_Link(url, row, column, listing))

    with open_catalog(folder, settings, Problems(), on_link=keep) as catalog:
        for _ in catalog.products:
            while found:
                yield found.popleft()
        yield from found  # of rows at the end that are no products without their photos


class _Fetcher:
    """What all downloads share: connections, and hosts that have been given up."""

    def __init__(self, settings: CatalogSettings) -> None:
        self._settings = settings
        self.stop = threading.Event()
        self._clock = _Clock(self.stop)
        self._client = httpx.Client(
            transport=_Transport(_Guard(self._clock, private=settings.fetch_private)),
            headers=HEADERS,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=True,
            max_redirects=REDIRECTS,
            trust_env=False,
        )
        self._unreached: Counter[str] = Counter()

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fetch(self, url: str, place: Path) -> int:
        """Fetch `url` to `place`; its size in bytes. Raises _Failed."""
        try:
            host = httpx.URL(url).host
        except (httpx.InvalidURL, ValueError) as error:  # ValueError: no name by the rules of IDNA
            raise _Failed(f"not a link: {clipped(str(error), 100)}") from error
        for attempt in range(RETRIES + 1):
            if self._unreached[host] >= DEAD_AFTER:
                raise _Failed(f"{host} can't be reached, as {DEAD_AFTER} links before", reached=False)
            try:
                size = self._download(url, place)
            except _Failed as failure:
                last = not failure.again or attempt == RETRIES
                if failure.reached:
                    self._unreached[host] = 0
                elif last:
                    self._unreached[host] += 1
                if last or self.stop.wait(max(failure.wait, WAIT_SECONDS * 2**attempt)):
                    raise
            else:
                self._unreached[host] = 0
                return size
        raise AssertionError  # the last attempt returns or raises

    def _download(self, url: str, place: Path) -> int:
        self._clock.start(self._settings.max_image_bytes + HEADER_BYTES)
        try:
            with self._client.stream("GET", url) as response:
                _refuse(response, self._settings.max_image_bytes)
                with writing(place) as target:
                    size = _save(response, target, self._settings.max_image_bytes)
                    check_image(target, self._settings)
                return size
        except ImageProblem as problem:
            raise _Failed(problem.reason) from problem
        except httpx.TooManyRedirects as error:
            raise _Failed(f"more than {REDIRECTS} redirects") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpcore.UnsupportedProtocol) as error:
            raise _Failed("leads to something that is neither http nor https") from error
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise _Failed(f"can't connect: {error or 'no answer'}", again=True, reached=False) from error
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _Failed(f"cut off: {str(error) or type(error).__name__}", again=True) from error
        except httpx.RemoteProtocolError as error:
            raise _Failed(f"a broken answer: {error}") from error
        except ValueError as error:  # a Location that holds no name by the rules of IDNA, an impossible port
            raise _Failed(f"leads to something that is no link: {clipped(str(error), 100)}") from error


def _refuse(response: httpx.Response, most: int) -> None:
    status = response.status_code
    if status == 429 or status >= 500:
        wait = response.headers.get("retry-after", "")
        seconds = min(LONGEST_WAIT, float(wait)) if wait.isascii() and wait.isdigit() else 0.0
        raise _Failed(f"the server says {status} {response.reason_phrase}".strip(), again=True, wait=seconds)
    if status != 200:
        raise _Failed(f"the server says {status} {response.reason_phrase}".strip())
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _Failed("packed, though it was requested unpacked")
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > most:
        raise _Failed(_too_big(most))


def _save(response: httpx.Response, target: Path, most: int) -> int:
    size = 0
    with target.open("wb") as file:
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > most:
                raise _Failed(_too_big(most))
            file.write(chunk)
    return size


def _too_big(most: int) -> str:
    return f"more than {most:,} bytes"


class _Clock(threading.local):
    """The time and the bytes that the download at hand in this thread has left, whatever connections it goes over."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._end, self._bytes = float("inf"), 0

    def start(self, most: int) -> None:
        """Begin a download of at most so many bytes."""
        self._end, self._bytes = time.monotonic() + PHOTO_SECONDS, most

    def left(self) -> float:
        """Return the seconds left; _Failed when there are none, or all downloads are to end."""
        if self._stop.is_set():
            raise _Failed("interrupted")
        if (seconds := self._end - time.monotonic()) <= 0:
            raise _Failed(f"takes longer than {PHOTO_SECONDS:.0f} s")
        return seconds

    def took(self, size: int) -> None:
        """Count what has come; _Failed when it is too much."""
        self._bytes -= size
        if self._bytes < 0:
            raise _Failed("sends more beside the photo than a photo may have")


class _Timed(httpcore.NetworkStream):
    """A connection under the clock: a server that drips headers, chunks or interim answers gets no more time."""

    def __init__(self, inner: httpcore.NetworkStream, clock: _Clock) -> None:
        self._inner, self._clock = inner, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read as httpcore.NetworkStream; waits in slices, so that Ctrl-C is noticed."""
        waited_until = time.monotonic() + (timeout or READ_SECONDS)
        while True:
            seconds = min(SLICE_SECONDS, self._clock.left())
            try:
                found = self._inner.read(max_bytes, seconds)
            except httpcore.ReadTimeout:
                if time.monotonic() >= waited_until:
                    raise
            else:
                self._clock.took(len(found))
                return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write as httpcore.NetworkStream does."""
        self._inner.write(buffer, min(timeout or READ_SECONDS, self._clock.left()))

    def close(self) -> None:
        """Close as httpcore.NetworkStream does."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Start TLS as httpcore.NetworkStream does."""
        seconds = min(timeout or CONNECT_SECONDS, self._clock.left())
        return _Timed(self._inner.start_tls(ssl_context, server_hostname, seconds), self._clock)

    def get_extra_info(self, info: str) -> Any:
        """Return extra info as httpcore.NetworkStream does."""
        return self._inner.get_extra_info(info)


class _Guard(httpcore.SyncBackend):
    """Connects to addresses that have been checked, and to no other: the name is resolved here and only once."""

    def __init__(self, clock: _Clock, *, private: bool) -> None:
        self._clock, self._private = clock, private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect as httpcore.SyncBackend: a connection to `host`; _Failed when one of its addresses is
        refused.
        """
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, OverflowError) as error:  # OverflowError: no such port
            raise httpcore.ConnectError(f"no such host {host}") from error
        addresses = list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))
        for address in addresses:
            if not self._private and not is_public(ipaddress.ip_address(address)):
                raise _Failed(f"{host} is {address}, which is not on the public internet (catalog.fetch_private)")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses:
            seconds = min(timeout or CONNECT_SECONDS, self._clock.left())
            try:
                stream = super().connect_tcp(address, port, seconds, local_address, socket_options)
                return _Timed(stream, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = failure or error
        raise failure or httpcore.ConnectError(f"no address of {host}")


class _Transport(httpx.BaseTransport):
    """httpx over httpcore with the guard, which httpx's own transport takes no argument for."""

    def __init__(self, guard: _Guard) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=AT_ONCE,
            max_keepalive_connections=AT_ONCE,
            keepalive_expiry=5.0,
            network_backend=guard,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request over the guarded pool."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


def nothing_fetched(folder: CatalogFolder, problems: Problems) -> DataError:
    """Return the error of a catalog of which no link led to a photo."""
    first = problems.first("failed download")[0]
    return DataError(f"{folder.catalog}: no link led to a photo; {first.where}: {first.message}", "see that they work")
