"""The index on a Qdrant server, by its REST interface.

    http://127.0.0.1:6333                           the alias afmrl-<catalog's folder>
    http://127.0.0.1:6333/collections/luma          the alias luma

The alias leads to the collection that counts, `<alias>.<version>`; its card is the collection's metadata. Only the host
that was given is spoken to: redirects are not followed, no proxy and no .netrc is taken from the environment. The key
comes from AFMRL_INDEX_KEY alone, goes into one header, and is struck out of messages. Every request may be repeated
without harm, so one that fails for a passing reason is, with growing waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ModelError, UsageError
from ..listener import Listener
from ..models.server import PASSING, checked_key, trusted_authorities
from .card import PUSH_HINT, Card, read_card
from .conditions import Condition
from .engine import BUILD_EFFORT, EXACT_KB, INDEX_KEY_VARIABLE, LINKS, Near, Refused, near_in, numbers_in, prints_in
from .points import NUMBERS, PRINT, TAGS, Numbers

LEAST = (1, 20)
"""The first version of the server that is known to have all that is used here."""
METADATA = "afmrl"
PATH = "/collections/"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
VERSION = re.compile(r"[0-9a-f]{12}")
PAGE, REMOVED_AT_ONCE = 10_000, 10_000
TIMEOUT, TRIES = 120, 5
WAIT = 0.5
"""Seconds: the longest first pause before a request is repeated, doubled each time."""
POLL_SECONDS = 0.5
MOST_BYTES, BYTES_A_NUMBER, TOO_LARGE = 8 * 2**20, 22, 413
"""Of points, about, in one request, as JSON; Qdrant itself takes 32 MiB."""
Answer = TypeVar("Answer")


@contextlib.contextmanager
def open_server(place: str, root: Path) -> Iterator[Server]:
    """Connect to the server at `place`. UsageError for an address that is none, DataError where nothing answers."""
    from qdrant_client import QdrantClient

    address, name = read_address(place, root)
    key = checked_key(os.environ.get(INDEX_KEY_VARIABLE, ""), INDEX_KEY_VARIABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plain http, which the command warns of itself
        client = QdrantClient(
            url=address,
            api_key=key or None,
            timeout=TIMEOUT,
            prefer_grpc=False,
            check_compatibility=False,
            trust_env=False,
            follow_redirects=False,
            verify=trusted_authorities() if address.startswith("https:") else False,
        )
    with contextlib.closing(client):
        server = Server(client, address, name, key)
        server.check_version()
        yield server


def read_address(place: str, root: Path) -> tuple[str, str]:
    """Return a server's address and the name of the index there, by default that of the catalog's folder `root`."""
    example = "for example http://127.0.0.1:6333/collections/my-shop"
    try:
        url = httpx.URL(place.strip())
    except httpx.InvalidURL as error:
        raise UsageError(f"{place[:200]}: {error}", example) from error
    if not url.host:
        raise UsageError(f"{place[:200]}: not an http or https address", example)
    if url.userinfo:
        raise UsageError("no name or password in the address of an index", f"the key goes into {INDEX_KEY_VARIABLE}")
    before, found, name = url.path.partition(PATH)
    if not found:
        name = "afmrl-" + (re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")[:80] or "catalog")
    if not NAME.fullmatch(name):
        raise UsageError(f"{place[:200]}: {name[:100]!r} can't be the name of an index", example)
    port = url.port or (443 if url.scheme == "https" else 80)
    return str(url.copy_with(port=port, path=before.rstrip("/"), query=None, fragment=None)), name


class Server:
    """An index on a server; see `engine.Engine`."""

    def __init__(self, client: Any, address: str, name: str, key: str) -> None:
        from qdrant_client import models

        self._client, self._models, self._key = client, models, key
        self._name, self._collection, self._has_answered = name, "", False
        self.shown = f"{address.rstrip('/')}{PATH}{name}"

    def check_version(self) -> None:
        """Raise ModelError for a server that is too old."""
        version = str(self._request(self._client.info).version)
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < LEAST:
            least = ".".join(map(str, LEAST))
            raise ModelError(f"{self.shown}: the server is Qdrant {version[:40]}", f"it has to be {least} or later")

    def open(self) -> Card | None:
        """Open the collection that counts; None where there is none."""
        self._collection = self._aliases().get(self._name, "")
        if not self._collection:
            if self._name in self._collections():
                hint = "give another name: http://.../collections/NAME"
                raise DataError(f"{self.shown}: is a collection that afmrl did not make", hint)
            return None
        about = self._about()
        content = (about.config.metadata or {}).get(METADATA)
        card = read_card(content if isinstance(content, dict) else {}, self.shown)
        self._check_dimension(about, card.dimension)
        return card

    def _collections(self) -> list[str]:
        return [each.name for each in self._request(self._client.get_collections).collections]

    def _about(self) -> Any:
        return self._request(lambda: self._client.get_collection(self._collection))

    def _check_dimension(self, about: Any, dimension: int) -> None:
        """Raise ModelError unless a collection's vectors have `dimension` numbers."""
        size = getattr(about.config.params.vectors, "size", None)
        if size != dimension:
            raise ModelError(
                f"{self.shown}: its collection has vectors of {size} numbers, afmrl wrote {dimension}",
                f"remove the collection {self._collection} and {PUSH_HINT}",
            )

    def prepare(self, card: Card) -> None:
        """Open the collection of `card.version`, made where there is none."""
        models = self._models
        self._collection = f"{self._name}.{card.version}"
        if self._collection in self._collections():
            self._check_dimension(self._about(), card.dimension)  # its card may be damaged: the end writes it anew
            return
        self._request(
            lambda: self._client.create_collection(
                self._collection,
                vectors_config=models.VectorParams(size=card.dimension, distance=models.Distance.COSINE),
                hnsw_config=models.HnswConfigDiff(m=LINKS, ef_construct=BUILD_EFFORT, full_scan_threshold=EXACT_KB),
                on_disk_payload=True,
                metadata={METADATA: card.describe()},
            )
        )
        self._index_tags()

    def _index_tags(self) -> None:
        self._create_index(TAGS, self._models.KeywordIndexParams(type="keyword", prefix=True, enable_hnsw=False))

    def index(self, fields: Sequence[str]) -> None:
        """Have the numbers of `fields` indexed."""
        there = self._about().payload_schema
        if TAGS not in there:  # cut off between both requests of `prepare`
            self._index_tags()
        for name in (f"{NUMBERS}.{field}" for field in fields):
            if name not in there:
                self._create_index(name, self._models.FloatIndexParams(type="float", enable_hnsw=False))

    def _create_index(self, field: str, schema: Any) -> None:
        self._request(lambda: self._client.create_payload_index(self._collection, field, schema, wait=True))

    def held(self) -> tuple[Numbers, Numbers]:
        """Return numbers and prints of all points [n], by number. ModelError where some are not afmrl's."""
        return prints_in(self._points(), self.shown)

    def there(self) -> Numbers | None:
        """Return the numbers of the points of what counts, whatever its card says."""
        self._collection = self._aliases().get(self._name, "")
        return numbers_in(self._points()) if self._collection else np.array([], dtype=np.uint64)

    def _points(self) -> Iterator[Any]:
        offset = None
        while True:
            records, offset = self._request(
                lambda at=offset: self._client.scroll(  # type: ignore[misc]
                    self._collection, limit=PAGE, offset=at, with_payload=[PRINT], with_vectors=False
                )
            )
            yield from records
            if offset is None:
                return

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""
        some, size = list[Any](), 0
        for number, vector, payload in zip(numbers, vectors, payloads, strict=True):
            takes = len(json.dumps(payload)) + len(vector) * BYTES_A_NUMBER
            if some and size + takes > MOST_BYTES:
                self._send(some)
                some, size = [], 0
            some.append(self._models.PointStruct(id=int(number), vector=vector.tolist(), payload=payload))
            size += takes
        if some:
            self._send(some)

    def _send(self, points: Sequence[Any]) -> None:
        """Write points; in halves where a server or a proxy before it does not take so much at once."""
        try:
            self._request(lambda: self._client.upsert(self._collection, points, wait=True))
        except Refused as error:
            if error.status != TOO_LARGE or len(points) == 1:
                raise
            self._send(points[: len(points) // 2])
            self._send(points[len(points) // 2 :])

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""
        for start in range(0, len(numbers), REMOVED_AT_ONCE):
            some = self._models.PointIdsList(points=[int(each) for each in numbers[start : start + REMOVED_AT_ONCE]])
            self._request(lambda some=some: self._client.delete(self._collection, some, wait=True))  # type: ignore[misc]

    def finish(self, listener: Listener) -> None:
        """Wait until the server has indexed all points."""
        while True:
            about = self._about()
            status = str(about.status)
            if status == "red":
                reason = str(getattr(about.optimizer_status, "error", about.optimizer_status))[:200]
                raise DataError(f"{self.shown}: the server can't index the points: {reason}", "see its log")
            if status == "green":
                return
            if status == "grey":  # waits for a change before it goes on
                self._request(
                    lambda: self._client.update_collection(
                        self._collection, optimizers_config=self._models.OptimizersConfigDiff()
                    )
                )
            listener.progress("indexing", int(about.indexed_vectors_count or 0), int(about.points_count or 0))
            time.sleep(POLL_SECONDS)

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""
        metadata = {METADATA: card.describe()}
        self._request(lambda: self._client.update_collection(self._collection, metadata=metadata))

    def replace(self) -> None:
        """Let the collection count from now on, in one request, and remove the one that counted before. No other:
        another push may be filling it.
        """
        models, before = self._models, self._aliases().get(self._name, "")
        if before == self._collection:
            return
        made = models.CreateAlias(collection_name=self._collection, alias_name=self._name)
        changes: list[Any] = [models.CreateAliasOperation(create_alias=made)]
        if before:
            gone = models.DeleteAlias(alias_name=self._name)
            changes.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        self._request(lambda: self._client.update_collection_aliases(changes))
        name, _, version = before.rpartition(".")
        if name == self._name and VERSION.fullmatch(version):
            self._request(lambda: self._client.delete_collection(before))

    def _aliases(self) -> dict[str, str]:
        """Return which collection each alias leads to."""
        return {each.alias_name: each.collection_name for each in self._request(self._client.get_aliases).aliases}

    def count(self, condition: Condition | None = None) -> int:
        """Count the points that fulfil a condition."""
        found = self._request(lambda: self._client.count(self._collection, self._filter(condition), exact=True))
        return int(found.count)

    def nearest(
        self,
        vector: NDArray[np.float32],
        k: int,
        condition: Condition | None = None,
        effort: int = 0,
        payload: bool = True,
    ) -> list[Near]:
        """Return the k points nearest to `vector` [d] that fulfil a condition, best first; `effort` is HNSW's ef."""
        models = self._models
        acorn = None if condition is None else models.AcornSearchParams(enable=True, max_selectivity=1.0)
        found = self._request(
            lambda: self._client.query_points(
                self._collection,
                query=[float(number) for number in vector],
                query_filter=self._filter(condition),
                search_params=models.SearchParams(hnsw_ef=effort or None, acorn=acorn),
                limit=k,
                with_payload=payload,
            )
        )
        return near_in(found.points)

    def point(self, number: int) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """Return vector and payload of a point."""
        found = self._request(lambda: self._client.retrieve(self._collection, [number], with_vectors=True))
        return (np.array(found[0].vector, dtype=np.float32), found[0].payload or {}) if found else None

    def disk(self) -> int | None:
        """Return None: a server does not say it by this interface."""
        return None

    def _filter(self, condition: Condition | None) -> Any:
        return None if condition is None else self._models.Filter(**condition)

    def _request(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` does, repeated while it fails for passing reasons once the server has answered."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            try:
                answer = call()
            except ResponseHandlingException as error:
                source = error.source
                if not isinstance(source, httpx.TransportError):
                    raise ModelError(
                        f"{self.shown}: no answer of Qdrant: {self._safe(source)}", "is it one?"
                    ) from error
                if last or (not self._has_answered and isinstance(source, httpx.ConnectError)):
                    raise self._unreachable(source) from error
            except UnexpectedResponse as error:
                if last or error.status_code not in PASSING or _is_full(error.content):
                    raise self._refused(int(error.status_code or 0), error.content) from error
            except ResourceExhaustedResponse as error:
                if last:
                    raise self._refused(429, str(error).encode()) from error
            else:
                self._has_answered = True
                return answer
            time.sleep(min(WAIT * 2.0**attempt, 30.0) * random.uniform(0.5, 1.0))
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, source: Exception) -> DataError:
        reason = self._safe(source) or type(source).__name__
        if self._has_answered:
            return DataError(
                f"{self.shown}: connection lost: {reason}", "what was sent stays: the same command goes on"
            )
        return DataError(f"{self.shown}: can't connect: {reason}", "is the server running, and the address right?")

    def _refused(self, status: int, content: bytes) -> Refused:
        try:
            reason = str(httpx.Response(200, content=content).json()["status"]["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = content[:200].decode("utf-8", "replace")
        message, hint = f"{self.shown}: HTTP {status}: {self._safe(reason)}", "see the server's log"
        if status == 507 or _is_full(content):
            hint = "free some space there: what was sent stays, and the same command goes on"
        elif status in (401, 403):
            hint = f"put the right key into the environment variable {INDEX_KEY_VARIABLE}"
        elif 300 <= status < 400:
            hint = "redirects are not followed: give the address itself"
        elif status in PASSING:
            hint = "what was sent stays: the same command goes on"
        return Refused(status, message, hint)

    def _safe(self, words: object) -> str:
        text = " ".join(str(words).split())[:200]
        return text.replace(self._key, "[key]") if self._key else text


def _is_full(content: bytes) -> bool:
    return bool(re.search(rb"no space left|not enough space|disk (?:is )?full|os error 28", content, re.IGNORECASE))
