"""`afmrl index push` to a server and `afmrl search` there, by qdrant-client and HTTP on 127.0.0.1; and its faults."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import qdrant_edge as edge

from afmrl_cli.cli.options import is_plain_and_far
from afmrl_cli.index.points import number_of
from tests.cli.calls import call

from .rest import Fault, Rest, rest_server
from .test_folder import refused
from .test_push import edit, found, push


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    monkeypatch.setattr("afmrl_cli.index.server.WAIT", 0.01)
    monkeypatch.setattr("afmrl_cli.index.server.POLL_SECONDS", 0.01)
    with rest_server(tmp_path / "server") as running:
        yield running


def put(request: str) -> bool:
    return request.startswith("PUT") and request.endswith("/points")


def test_a_server_gets_what_a_folder_gets(shop: Path, place: Path, server: Rest) -> None:
    summary = push(server.url)
    assert (summary["sent"], summary["recall"], summary["bytes"]) == (24, 1.0, None)
    assert summary["index"] == f"{server.url}/collections/afmrl-shop"
    [(alias, collection)] = server.aliases.items()
    assert alias == "afmrl-shop" and [*server.collections] == [collection]
    push(place)
    for words in (
        ("red shirt", "--filter", "price<20", "--filter", "color=navy", "--not", "brand: acme"),
        ("--like", "s3", "--filter", "category=wom"),
    ):
        assert found(*words, index=server.url) == found(*words, index=place) != []
        asked = [each["params"] for each in server.bodies if "filter" in each and "params" in each]
        assert asked[-1] == {"hnsw_ef": 64, "acorn": {"enable": True, "max_selectivity": 1.0}}
    edit(shop, lambda rows: [{**row, "price": "99"} if row["id"] == "s7" else row for row in rows if row["id"] != "s3"])
    summary = push(server.url)
    assert (summary["sent"], summary["removed"], summary["products"]) == (1, 1, 23)
    assert push(server.url)["sent"] == 0
    assert len(server.collections[collection].metadata["afmrl"]["keys"]) > 5


def test_another_embedder_gets_a_collection_of_its_own_and_then_the_alias(shop: Path, server: Rest) -> None:
    place = f"{server.url}/collections/luma"
    push(place)
    [before] = server.collections
    assert call("embed", "--dimensions", "16").exit_code == 0
    steps = len(server.requests)
    assert push(place, "--set", "embed.dimensions=16")["replaced"]
    [after] = server.collections
    assert after != before and server.aliases == {"luma": after}
    made = [request for request in server.requests[steps:] if not request.startswith("GET")]
    assert made[-2:] == ["POST /collections/aliases", f"DELETE /collections/{before}"]
    assert "holds vectors of" in refused("search", "shirt", "--index", place, code=4)


@pytest.mark.parametrize("kind", ["lost", "cut", 503])
def test_a_request_that_fails_for_a_passing_reason_is_repeated(shop: Path, server: Rest, kind: str | int) -> None:
    failed: list[str] = []

    def fault(request: str, number: int) -> Fault:
        if number % 3 and failed.count(request) < 2 and number:
            failed.append(request)
            return kind if isinstance(kind, str) else (kind, "busy")
        return None

    server.fault = fault
    assert push(server.url)["sent"] == 24
    assert len(failed) > 5
    assert dict(found("shirt", index=server.url)).keys() == dict(found("shirt")).keys()


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_a_network_that_drops_in_the_middle_is_told_and_the_push_goes_on(
    shop: Path, server: Rest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("afmrl_cli.index.push.MOST_AT_ONCE", 4)
    push(server.url)
    assert call("embed", "--dimensions", "16").exit_code == 0
    old = found("shirt", index=server.url)
    sent: list[str] = []

    def fault(request: str, number: int) -> Fault:
        sent.extend([request] * put(request))
        return kind if len(sent) > 3 else None

    server.fault = fault
    said = refused("index", "push", "--to", server.url, "--set", "embed.dimensions=16", code=3)
    assert "connection lost" in said and "the same command goes on" in said
    server.fault = lambda request, number: None
    assert found("shirt", index=server.url) == old
    summary = push(server.url, "--set", "embed.dimensions=16")
    assert summary["sent"] == 24 - (12 if kind == "lost" else 16)
    assert len(server.collections) == 1


@pytest.mark.parametrize(
    ("status", "words", "hint"),
    [
        (507, "Insufficient Storage", "free some space"),
        (500, "Service internal error: No space left on device (os error 28)", "free some space"),
        (403, "Forbidden", "AFMRL_INDEX_KEY"),
        (400, "Wrong input", "see the server's log"),
    ],
)
def test_a_server_that_refuses_points_is_told_and_nothing_is_replaced(
    shop: Path, server: Rest, status: int, words: str, hint: str
) -> None:
    push(server.url)
    old, aliases = found("shirt", index=server.url), dict(server.aliases)
    assert call("embed", "--dimensions", "16").exit_code == 0
    asked: list[str] = []

    def fault(request: str, number: int) -> Fault:
        asked.extend([request] * put(request))
        return (status, words) if put(request) else None

    server.fault = fault
    said = refused("index", "push", "--to", server.url, "--set", "embed.dimensions=16", code=3)
    assert f"HTTP {status}: {words}" in said and hint in said
    assert len(asked) == 1, "what will not pass is not repeated"
    assert found("shirt", index=server.url) == old and server.aliases == aliases


def test_a_server_that_is_not_there_is_told_at_once(shop: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{free.getsockname()[1]}"
    for words in (("index", "push", "--to", place), ("search", "shirt", "--index", place)):
        assert "can't connect" in refused(*words, code=3)


def test_a_server_that_redirects_is_not_followed(shop: Path, server: Rest) -> None:
    server.fault = lambda request, number: (307, "")
    assert "redirects are not followed" in refused("index", "push", "--to", server.url, code=3)


def test_something_that_is_no_qdrant_and_an_old_one_are_told(shop: Path, server: Rest) -> None:
    server.version = "1.9.2"
    assert "is Qdrant 1.9.2" in refused("index", "push", "--to", server.url, code=4)
    server.fault = lambda request, number: (200, "hello")
    assert "no answer of Qdrant" in refused("index", "push", "--to", server.url, code=4)
    assert not server.collections


def test_a_collection_of_another_program_is_left_alone(shop: Path, server: Rest) -> None:
    server.answer("PUT", "/collections/mine", {"vectors": {"size": 8, "distance": "Cosine"}})
    assert "afmrl did not make" in refused("index", "push", "--to", f"{server.url}/collections/mine", code=3)
    server.aliases["theirs"] = "mine"
    said = refused("index", "push", "--to", f"{server.url}/collections/theirs", code=4)
    assert "was not made by afmrl" in said
    assert [*server.collections] == ["mine"]


def test_points_that_another_program_added_are_told(shop: Path, server: Rest) -> None:
    push(server.url)
    [name] = server.collections
    size = server.collections[name].vectors["size"]
    point = {"id": "5c56c793-69f3-4fbf-87e6-c4bf54c28c26", "vector": [1.0] * size, "payload": {}}
    server.answer("PUT", f"/collections/{name}/points", {"points": [point]})
    for _ in range(2):
        said = refused("index", "push", "--to", server.url, code=4)
        assert "1 of its 25 points were not written by afmrl" in said


def test_a_print_that_is_none_is_told(shop: Path, server: Rest) -> None:
    push(server.url)
    [collection] = server.collections.values()
    collection.shard.update(edge.UpdateOperation.set_payload([number_of("s1")], {"print": "none"}))
    collection.metadata["afmrl"]["state"] = ""
    said = refused("index", "push", "--to", server.url, code=4)
    assert "1 of its 24 points were not written by afmrl" in said


def test_what_is_too_large_for_a_server_is_sent_in_smaller_parts(
    shop: Path, server: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.most_bytes = 8_000
    assert push(server.url)["sent"] == 24
    refusals = len([each for each in server.requests if put(each)])
    server.most_bytes = 400
    assert "HTTP 413" in refused("index", "push", "--to", f"{server.url}/collections/other", code=3)
    server.most_bytes, before = 8_000, len(server.requests)
    monkeypatch.setattr("afmrl_cli.index.server.MOST_BYTES", 4_000)
    assert push(f"{server.url}/collections/third")["sent"] == 24
    assert refusals > len([each for each in server.requests[before:] if put(each)]) > 1, "none had to be refused"


def test_a_card_that_is_damaged_is_written_anew(shop: Path, server: Rest) -> None:
    push(server.url)
    [collection] = server.collections.values()
    del collection.metadata["afmrl"]["effort"]
    assert "run `afmrl index push`" in refused("search", "shirt", "--index", server.url, code=4)
    assert push(server.url)["sent"] == 0
    assert found("shirt", index=server.url)


def test_a_search_survives_a_push_that_ends_meanwhile(shop: Path, server: Rest) -> None:
    push(server.url)
    lost: list[str] = []

    def fault(request: str, number: int) -> Fault:
        if request.endswith("/points/query") and not lost:
            lost.append(request)
            return (404, "Not found: Collection doesn't exist!")
        return None

    server.fault = fault
    assert found("shirt", index=server.url) and lost


def test_a_push_leaves_alone_what_another_one_is_filling(shop: Path, server: Rest) -> None:
    push(server.url)
    [before] = server.collections
    other = "afmrl-shop." + "0" * 12
    server.answer("PUT", f"/collections/{other}", {"vectors": {"size": 8, "distance": "Cosine"}})
    assert call("embed", "--dimensions", "16").exit_code == 0
    push(server.url, "--set", "embed.dimensions=16")
    assert other in server.collections and before not in server.collections


def test_another_dimension_and_an_older_form_are_refused(shop: Path, server: Rest) -> None:
    push(server.url)
    [(name, collection)] = server.collections.items()
    card = collection.metadata["afmrl"]
    collection.metadata["afmrl"] = {**card, "schema": "afmrl.index/0"}
    collection.metadata["afmrl"].pop("keys")
    said = refused("search", "shirt", "--index", server.url, code=4)
    assert "is of the form afmrl.index/0" in said
    server.answer("DELETE", f"/collections/{name}", {})
    made = {"vectors": {"size": 8, "distance": "Cosine"}, "metadata": {"afmrl": card}}
    server.answer("PUT", f"/collections/{name}", made)
    for words in (("search", "shirt", "--index", server.url), ("index", "push", "--to", server.url)):
        assert "has vectors of 8 numbers" in refused(*words, code=4)
    assert collection.metadata and server.collections[name].vectors["size"] == 8


def test_the_key_goes_into_one_header_and_into_no_message(
    shop: Path, server: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFMRL_INDEX_KEY", "s3cret-key")
    monkeypatch.setenv("AFMRL_API_KEY", "of-another-server")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    push(server.url)
    assert {each.get("api-key") for each in server.headers} == {"s3cret-key"}
    assert not any("of-another-server" in value for each in server.headers for value in each.values())
    server.fault = lambda request, number: (401, "Invalid API key s3cret-key")
    said = refused("index", "push", "--to", server.url, code=3)
    assert "[key]" in said and "s3cret" not in said


@pytest.mark.parametrize(
    ("place", "warned"),
    [
        ("http://127.0.0.1:1/", False),
        ("http://[::1]:1/", False),
        ("http://localhost:1/", False),
        ("http://localhost.shop.example:1/", True),
        ("http://127.shop.example:1/", True),
        ("HTTP://shop.example/a//localhost", True),
        ("https://shop.example", False),
        ("/srv/index", False),
    ],
)
def test_a_key_that_leaves_this_machine_in_the_clear_is_warned_of(place: str, warned: bool) -> None:
    assert is_plain_and_far(place) is warned


@pytest.mark.parametrize("place", ["http://", "http://user:s3cret@127.0.0.1:1", "http://127.0.0.1:1/collections/a/b"])
def test_addresses_that_name_no_index_are_refused(shop: Path, place: str) -> None:
    assert "s3cret" not in refused("index", "push", "--to", place, code=2)


def test_what_a_server_says_opens_no_file_outside_of_the_folder(shop: Path, server: Rest, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    push(server.url)
    [collection] = server.collections.values()
    for images in (["../private.png"], [str(tmp_path / "private.png")]):
        ids = [each.id for each in collection.shard.scroll(edge.ScrollRequest(limit=100))[0]]
        collection.shard.update(edge.UpdateOperation.set_payload(ids, {"images": images, "title": "<b>bold</b>"}))
        assert call("search", "shirt", "--index", server.url, "--html", "page.html").exit_code == 0
        page = (shop / "page.html").read_text("utf-8")
        assert "data:image" not in page and "<b>bold" not in page
