"""Many clients at a time: batches, a bounded queue, clients that go away, vectors that are swapped meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.types import ASGIApp, Message

from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.search import Query, Searcher, open_search
from afmrl_cli.serve import opened as opened_module
from afmrl_cli.serve.app import make_app
from afmrl_cli.serve.guard import Door
from afmrl_cli.serve.line import PHOTOS_AT_ONCE, Line
from afmrl_cli.serve.service import Service
from tests.retrieval.shop import shop_rows, write_shop
from tests.serve.shop import MEGABYTE, make_shop, opened, sentence, serving


class Slow:
    """A searcher whose model reads when it is let go, and notes what it reads at once."""

    def __init__(self, searcher: Searcher) -> None:
        self._inner, self.go, self.batches = searcher, threading.Event(), list[list[str]]()

    def encode(self, queries: Sequence[Any]) -> Any:
        self.batches.append([each.query.text for each in queries])
        assert self.go.wait(20)
        if len(queries) > 1 and any(each.query.text == "bad" for each in queries):
            raise RuntimeError("a batch with a bad query")
        if queries[0].query.text == "bad":
            raise ValueError("bad")
        return self._inner.encode(queries)


def texts(searcher: Searcher, *words: str) -> list[Any]:
    return [searcher.prepare(Query(word)) for word in words]


async def in_line(line: Line, slow: Slow, prepared: Sequence[Any]) -> list[Any]:
    """The first query alone, then all others while the model reads it."""
    first = asyncio.ensure_future(line.vector(slow, prepared[0]))  # type: ignore[arg-type]
    while not slow.batches:
        await asyncio.sleep(0.001)
    others = [asyncio.ensure_future(line.vector(slow, each)) for each in prepared[1:]]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for each, waiting in zip(prepared[1:], others, strict=True):
        if each.query.text == "gone":
            waiting.cancel()
    slow.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


@pytest.fixture
def searcher(embedded: Path, model: Path) -> Searcher:
    return open_search(opened(embedded, model))


def worked(searcher: Searcher, batch: int, *words: str) -> tuple[list[Any], list[list[str]]]:
    """What each query of a line comes to, and what was read at once."""
    line, slow = Line(batch), Slow(searcher)
    line.start()
    try:
        return asyncio.run(in_line(line, slow, texts(searcher, *words))), slow.batches
    finally:
        line.stop()


def test_queries_that_wait_together_are_read_together_and_come_to_the_same(searcher: Searcher) -> None:
    words = ["red shirt", "green", "blue jacket", "black", "orange"]
    found, batches = worked(searcher, 3, *words)
    assert [len(batch) for batch in batches] == [1, 3, 1]
    alone = [searcher.encode([each])[0] for each in texts(searcher, *words)]
    np.testing.assert_allclose(np.stack(found), np.stack(alone), atol=1e-4)


def test_a_client_that_is_gone_is_passed_over(searcher: Searcher) -> None:
    found, batches = worked(searcher, 8, "red", "gone", "green", "gone")
    assert batches == [["red"], ["green"]]
    assert isinstance(found[1], asyncio.CancelledError) and found[2].shape == found[0].shape


def test_one_bad_query_is_nobody_else_s_failure(searcher: Searcher) -> None:
    found, batches = worked(searcher, 8, "red", "green", "bad", "blue")
    assert batches == [["red"], ["green", "bad", "blue"], ["green"], ["bad"], ["blue"]]
    assert isinstance(found[2], ValueError) and all(isinstance(found[at], np.ndarray) for at in (0, 1, 3))


def test_photos_are_read_a_few_at_once_so_that_texts_need_not_wait(searcher: Searcher) -> None:
    line, slow = Line(16), Slow(searcher)
    photo = searcher.work.folder.root / "images" / "1.png"
    prepared = [*texts(searcher, "red"), *(searcher.prepare(Query(photos=(photo,))) for _ in range(6))]
    line.start()
    found = asyncio.run(in_line(line, slow, prepared))
    line.stop()
    assert [len(batch) for batch in slow.batches] == [1, PHOTOS_AT_ONCE, 2]
    np.testing.assert_allclose(found[1], found[6], atol=1e-4)


def asgi(app: ASGIApp, path: str, body: bytes, leave: asyncio.Event | None = None) -> Any:
    """POST to an application as a server does; the status, 0 where nobody was there any more."""

    async def run() -> int:
        status, sent = 0, False

        async def receive() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await (leave.wait() if leave else asyncio.Event().wait())
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        headers.append((b"content-length", str(len(body)).encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
        }
        scope |= {"headers": headers, "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9)}
        scope |= {"http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}}
        await app(scope, receive, send)
        return status

    return run()


def test_more_searches_than_the_queue_holds_are_refused_and_none_is_lost(shop: Path, model: Path) -> None:
    service = Service(opened(shop, model, **{"serve.queue": 5}), lambda message: None)
    service.start()
    app = make_app(service, Door.of("127.0.0.1", (), "", MEGABYTE))

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(asgi(app, "/search", b'{"text": "red"}') for _ in range(40)))

    statuses = asyncio.run(all_at_once())
    assert sorted(set(statuses)) == [200, 503] and 5 <= statuses.count(200) < 40
    assert asyncio.run(asgi(app, "/search", b'{"text": "red"}')) == 200, "afterwards there is room again"
    assert service.state()["searching"] == 0
    service.stop()


def test_a_client_that_goes_away_frees_its_place(shop: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(opened(shop, model, **{"serve.queue": 1}), lambda message: None)
    service.start()
    app, waiting = make_app(service, Door.of("127.0.0.1", (), "", MEGABYTE)), threading.Event()
    encode = Searcher.encode
    monkeypatch.setattr(Searcher, "encode", lambda self, queries: waiting.wait(20) and encode(self, queries))

    async def leave_and_come() -> tuple[int, int, int]:
        leave = asyncio.Event()
        first = asyncio.ensure_future(asgi(app, "/search", b'{"text": "red"}', leave))
        while not service.state()["searching"]:
            await asyncio.sleep(0.001)
        refused = await asgi(app, "/search", b'{"text": "green"}')
        leave.set()
        gone = await first
        waiting.set()
        return refused, gone, await asgi(app, "/search", b'{"text": "blue"}')

    assert asyncio.run(leave_and_come()) == (503, 499, 200)
    service.stop()


def test_what_takes_too_long_is_refused(shop: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Searcher.encode
    with serving(opened(shop, model, **{"serve.timeout": 0.3})) as client:

        def slowly(self: Searcher, queries: Sequence[Any]) -> Any:
            time.sleep(0.6)
            return encode(self, queries)

        monkeypatch.setattr(Searcher, "encode", slowly)
        answer = client.search(text="red")
        assert "not done within" in sentence(answer, 503) and answer.headers["retry-after"]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "never"
        time.sleep(0.02)


def test_new_vectors_are_taken_over_without_a_pause(shop: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_module, "WATCH_SECONDS", 0.05)
    with serving(opened(shop, model)) as client:
        catalog = client.service.catalog
        until(lambda: catalog.stale == 0)
        write_shop(shop, shop_rows(30))
        until(lambda: catalog.stale == 6)
        assert client.http.get("/products/s29").status_code == 404
        statuses: list[int] = []
        ended = threading.Event()

        def searching() -> None:
            while not ended.is_set():
                statuses.append(client.search(text="red").status_code)

        thread = threading.Thread(target=searching)
        thread.start()
        embed_catalog(opened(shop, model))
        until(lambda: client.http.get("/version").json()["vectors"] == "v2")
        ended.set()
        thread.join()
        assert set(statuses) == {200}
        assert client.http.get("/products/s29").status_code == 200 and catalog.stale == 0
        assert client.http.get("/filters").json()["listings"] == 30


def test_vectors_that_come_later_are_noticed(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_module, "WATCH_SECONDS", 0.05)
    write_shop(tmp_path / "shop", shop_rows(4))
    with serving(opened(tmp_path / "shop", model)) as client:
        assert "no vectors yet" in sentence(client.search(text="red"), 503)
        make_shop(tmp_path / "shop", model, 4)
        until(lambda: client.http.get("/healthz").status_code == 200)
        assert len(client.ids(text="red")) == 4


def test_damaged_new_vectors_leave_the_old_ones_in_use(
    shop: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_module, "WATCH_SECONDS", 0.05)
    with serving(opened(shop, model)) as client:
        [place] = (shop / ".afmrl" / "embeddings").iterdir()
        shutil.copytree(place / "v1", place / "v2")
        (place / "v2" / "vectors.npy").write_bytes(b"broken")
        (place / "current").write_text("v2\n")
        until(lambda: bool(client.service.catalog.problem))
        state = client.http.get("/version").json()
        assert state["vectors"] == "v1" and "damaged" in state["problem"] and str(shop) not in state["problem"]
        assert client.search(text="red").status_code == 200
