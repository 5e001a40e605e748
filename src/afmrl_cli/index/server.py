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
from .engine import BUILD_EFFORT, EXACT_KB, INDEX_KEY_VARIABLE, LINKS, Near, number_in
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
        self._name, self._collection, self._answered = name, "", False
        self.shown = f"{address.rstrip('/')}{PATH}{name}"

    def check_version(self) -> None:
        """Raise ModelError for a server that is too old."""
        said = str(self._asked(self._client.info).version)
        numbers = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
        if numbers < LEAST:
            least = ".".join(map(str, LEAST))
            raise ModelError(f"{self.shown}: the server is Qdrant {said[:40]}", f"it has to be {least} or later")

    def open(self) -> Card | None:
        """Open the collection that counts; None where there is none."""
        aliases = self._asked(self._client.get_aliases).aliases
        found = [each.collection_name for each in aliases if each.alias_name == self._name]
        if not found:
            if self._name in self._collections():
                hint = "give another name: http://.../collections/NAME"
                raise DataError(f"{self.shown}: is a collection that afmrl did not make", hint)
            return None
        self._collection = found[0]
        return self._card(self._about())

    def _collections(self) -> list[str]:
        return [each.name for each in self._asked(self._client.get_collections).collections]

    def _about(self) -> Any:
        return self._asked(lambda: self._client.get_collection(self._collection))

    def _card(self, about: Any) -> Card:
        """Return the card of a collection, whose vectors have to be as it says."""
        content = (about.config.metadata or {}).get(METADATA)
        card = read_card(content if isinstance(content, dict) else {}, self.shown)
        size = getattr(about.config.params.vectors, "size", None)
        if size != card.dimension:
            raise ModelError(
                f"{self.shown}: its collection has vectors of {size} numbers, afmrl wrote {card.dimension}",
                f"remove the collection {self._collection} and {PUSH_HINT}",
            )
        return card

    def prepare(self, card: Card) -> None:
        """Open the collection of `card.version`, made where there is none."""
        models = self._models
        self._collection = f"{self._name}.{card.version}"
        if self._collection in self._collections():
            self._card(self._about())
            return
        self._asked(
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
        self._asked(lambda: self._client.create_payload_index(self._collection, field, schema, wait=True))

    def held(self) -> tuple[Numbers, Numbers]:
        """Return numbers and prints of all points [n], by number."""
        numbers, prints, offset = list[int](), list[int](), None
        while True:
            records, offset = self._asked(
                lambda at=offset: self._client.scroll(  # type: ignore[misc]
                    self._collection, limit=PAGE, offset=at, with_payload=[PRINT], with_vectors=False
                )
            )
            for record in records:
                numbers.append(number_in(record.id))
                prints.append(int((record.payload or {}).get(PRINT) or "0", 16))
            if offset is None:
                return np.array(numbers, dtype=np.uint64), np.array(prints, dtype=np.uint64)

    def put(self, numbers: Sequence[int], vectors: NDArray[np.float32], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points, in place of those with the same numbers."""
        points = [
            self._models.PointStruct(id=int(number), vector=vector.tolist(), payload=payload)
            for number, vector, payload in zip(numbers, vectors, payloads, strict=True)
        ]
        self._asked(lambda: self._client.upsert(self._collection, points, wait=True))

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove points."""
        for start in range(0, len(numbers), REMOVED_AT_ONCE):
            some = self._models.PointIdsList(points=[int(each) for each in numbers[start : start + REMOVED_AT_ONCE]])
            self._asked(lambda some=some: self._client.delete(self._collection, some, wait=True))  # type: ignore[misc]

    def finish(self, listener: Listener) -> None:
        """Wait until the server has indexed all points."""
        while True:
            about = self._about()
            status = str(about.status)
            if status == "red":
                said = str(getattr(about.optimizer_status, "error", about.optimizer_status))[:200]
                raise DataError(f"{self.shown}: the server can't index the points: {said}", "see its log")
            if status == "green":
                return
            if status == "grey":  # waits for a change before it goes on
                self._asked(
                    lambda: self._client.update_collection(
                        self._collection, optimizers_config=self._models.OptimizersConfigDiff()
                    )
                )
            listener.progress("indexing", int(about.indexed_vectors_count or 0), int(about.points_count or 0))
            time.sleep(POLL_SECONDS)

    def write_card(self, card: Card) -> None:
        """Keep the card with its collection."""
        metadata = {METADATA: card.describe()}
        self._asked(lambda: self._client.update_collection(self._collection, metadata=metadata))

    def replace(self) -> None:
        """Let the collection count from now on, in one request, and remove the others."""
        models = self._models
        aliases = {each.alias_name: each.collection_name for each in self._asked(self._client.get_aliases).aliases}
        if aliases.get(self._name) != self._collection:
            made = models.CreateAlias(collection_name=self._collection, alias_name=self._name)
            changes: list[Any] = [models.CreateAliasOperation(create_alias=made)]
            if self._name in aliases:
                gone = models.DeleteAlias(alias_name=self._name)
                changes.insert(0, models.DeleteAliasOperation(delete_alias=gone))
            self._asked(lambda: self._client.update_collection_aliases(changes))
        for name in self._collections():
            before, _, version = name.rpartition(".")
            if before == self._name and VERSION.fullmatch(version) and name != self._collection:
                self._asked(lambda name=name: self._client.delete_collection(name))  # type: ignore[misc]

    def count(self, condition: Condition | None = None) -> int:
        """Count the points that fulfil a condition."""
        found = self._asked(lambda: self._client.count(self._collection, self._filter(condition), exact=True))
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
        found = self._asked(
            lambda: self._client.query_points(
                self._collection,
                query=[float(number) for number in vector],
                query_filter=self._filter(condition),
                search_params=self._models.SearchParams(hnsw_ef=effort or None),
                limit=k,
                with_payload=payload,
            )
        )
        return [Near(number_in(each.id), float(each.score), each.payload or {}) for each in found.points]

    def point(self, number: int) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """Return vector and payload of a point."""
        found = self._asked(lambda: self._client.retrieve(self._collection, [number], with_vectors=True))
        return (np.array(found[0].vector, dtype=np.float32), found[0].payload or {}) if found else None

    def disk(self) -> int | None:
        """Return None: a server does not say it by this interface."""
        return None

    def _filter(self, condition: Condition | None) -> Any:
        return None if condition is None else self._models.Filter(**condition)

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """Return what `ask` does, repeated while it fails for passing reasons once the server has answered."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            try:
                answer = ask()
            except ResponseHandlingException as error:
                source = error.source
                if not isinstance(source, httpx.TransportError):
                    raise ModelError(
                        f"{self.shown}: no answer of Qdrant: {self._safe(source)}", "is it one?"
                    ) from error
                if last or (not self._answered and isinstance(source, httpx.ConnectError)):
                    raise self._unreachable(source) from error
            except UnexpectedResponse as error:
                if last or error.status_code not in PASSING or _is_full(error.content):
                    raise self._refused(int(error.status_code or 0), error.content) from error
            except ResourceExhaustedResponse as error:
                if last:
                    raise self._refused(429, str(error).encode()) from error
            else:
                self._answered = True
                return answer
            time.sleep(min(WAIT * 2.0**attempt, 30.0) * random.uniform(0.5, 1.0))
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, source: Exception) -> DataError:
        said = self._safe(source) or type(source).__name__
        if self._answered:
            return DataError(f"{self.shown}: connection lost: {said}", "what was sent stays: the same command goes on")
        return DataError(f"{self.shown}: can't connect: {said}", "is the server running, and the address right?")

    def _refused(self, status: int, content: bytes) -> DataError:
        try:
            said = str(httpx.Response(200, content=content).json()["status"]["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            said = content[:200].decode("utf-8", "replace")
        message, hint = f"{self.shown}: HTTP {status}: {self._safe(said)}", "see the server's log"
        if status == 507 or _is_full(content):
            hint = "free some space there: what was sent stays, and the same command goes on"
        elif status in (401, 403):
            hint = f"put the right key into the environment variable {INDEX_KEY_VARIABLE}"
        elif 300 <= status < 400:
            hint = "redirects are not followed: give the address itself"
        elif status in PASSING:
            hint = "what was sent stays: the same command goes on"
        return DataError(message, hint)

    def _safe(self, said: object) -> str:
        text = " ".join(str(said).split())[:200]
        return text.replace(self._key, "[key]") if self._key else text


def _is_full(content: bytes) -> bool:
    return bool(re.search(rb"no space left|not enough space|disk (?:is )?full|os error 28", content, re.IGNORECASE))
