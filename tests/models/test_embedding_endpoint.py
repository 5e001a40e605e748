"""Vectors from a real HTTP server on 127.0.0.1: what it is sent, what is taken from it, what stops the run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedding_endpoint import EmbeddingEndpoint, embedding_endpoint_id, read_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests import NANO
from tests.chat_server import ChatServer, Reply, chat_server
from tests.conftest import kill_once
from tests.retrieval.shop import shop_rows, write_shop

KEY = "sk-not-a-real-key-0123456789"
Script = Callable[[int, dict[str, Any]], Reply]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.script = answering()
        yield running


def vector_of(words: str, dimension: int) -> list[float]:
    seed = sum(i * ord(sign) for i, sign in enumerate(words, 1))
    return [float(x) for x in np.random.default_rng(seed).normal(size=dimension)]


def answer(body: dict[str, Any], dimension: int = 6) -> dict[str, Any]:
    """A server's vectors, which stand in another order than the inputs."""
    inputs = body.get("input") or [json.dumps(body["messages"])]
    data = [{"index": i, "embedding": vector_of(words, dimension)} for i, words in enumerate(inputs)]
    return {"object": "list", "data": data[::-1]}


def answering(dimension: int = 6) -> Script:
    return lambda number, body: Reply(body=json.dumps(answer(body, dimension)).encode())


def endpoint(server: ChatServer, api_key: str = "", **changed: object) -> EmbeddingEndpoint:
    flags = {"endpoint": server.url, "endpoint_model": "m", "retries": 1, "timeout": 5.0, **changed}
    return EmbeddingEndpoint(
        load_settings(None, {f"embed.{key}": value for key, value in flags.items()}, NANO),
        api_key=api_key,
        first_wait=0.01,
    )


def run(*words: object) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop", shop_rows(8))


def embed(server: ChatServer, shop: CatalogFolder, *more: object) -> Any:
    return run("embed", shop.root, "--endpoint", server.url, "--model", "m", "--set", "embed.retries=0", *more)


def stored(shop: CatalogFolder) -> list[Path]:
    return list(shop.embeddings.glob("*/current"))


def test_photos_go_as_messages_and_come_back_as_unit_vectors_in_order(server) -> None:
    picture = Image.new("RGB", (40, 20), "red")
    items = [Item("blouse", (picture,), "color: red"), Item("skirt")]
    vectors = endpoint(server, concurrency=1).encode(items, instruction="Find:")
    assert server.paths == ["/v1/embeddings"] * 2
    first, second = server.requests
    assert (first["model"], first["encoding_format"], "input" in first) == ("m", "float", False)
    url, text = first["messages"][0]["content"]
    assert url["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": "Find:\nblouse\nAttributes: color: red"}
    assert second["messages"][0]["content"] == [{"type": "text", "text": "Find:\nskirt"}]
    for row, body in zip(vectors, server.requests, strict=True):
        wanted = np.array(vector_of(json.dumps(body["messages"]), 6))
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=1e-6)


def test_text_alone_goes_as_input_and_is_ordered_by_index(server) -> None:
    texts = [f"shirt {i}" for i in range(40)]
    vectors = endpoint(server, endpoint_photos=False).encode([Item(text) for text in texts], instruction="")
    assert sorted(len(body["input"]) for body in server.requests) == [8, 32] and "messages" not in server.requests[0]
    for row, text in zip(vectors, texts, strict=True):
        wanted = np.array(vector_of(text, 6))
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=1e-6)
    with pytest.raises(DataError, match="sends no photos"):
        endpoint(server, endpoint_photos=False).encode([Item("", (Image.new("RGB", (9, 9)),))], instruction="")


def test_products_of_photos_alone_are_counted_named_and_left_out_where_no_photos_are_sent(server, shop) -> None:
    words = ["--set", "embed.endpoint_photos=false"]
    rows = shop_rows(8)
    bare = [{**row, "title": "", "description": "", "category": "", "brand": ""} for row in rows]
    write_shop(shop.root, [*rows[:6], *bare[6:]])
    (shop.root / "images" / "6.png").write_bytes(b"no photo, and nobody opens it")
    done = embed(server, shop, *words)
    said = " ".join(done.stderr.split())
    assert done.exit_code == 0 and "photos alone: row 8 (id s6): it has photos alone" in said and "1 more" in said
    assert "unreadable" not in said and "2 products left out" in done.stdout
    assert len(server.requests) == 1 and len(server.requests[0]["input"]) == 6 and "messages" not in server.requests[0]
    again = json.loads(embed(server, shop, *words, "--json").stdout)
    assert (again["products"], again["left_out"], again["changed"]) == (6, 2, False)
    assert again["problems"]["photos alone"] == 2 and len(server.requests) == 1
    named = ["--set", f"embed.endpoint={server.url}", "--set", "embed.endpoint_model=m", *words]
    judged = ["eval", shop.root, "--protocol", "identity", "--split", "all", *named]
    assert run(*judged).exit_code == 0 and all("messages" not in body for body in server.requests)
    assert run("search", "shirt", "--catalog", shop.root, *named).exit_code == 0
    by_photo = run("search", "--image", shop.root / "images" / "0.png", "--catalog", shop.root, *named)
    assert by_photo.exit_code == 3 and "sends no photos" in " ".join(by_photo.stderr.split())
    write_shop(shop.root, bare)
    done = embed(server, shop, *words)
    assert done.exit_code == 3 and "no product has text, and the embedder reads nothing else" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1


def test_qwen3_vl_embedding_gets_its_own_turns(server) -> None:
    endpoint(server, endpoint_model="Qwen/Qwen3-VL-Embedding-2B").encode([Item("skirt")], instruction="Find:")
    body = server.requests[0]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant"]
    assert [turn["content"][0]["text"] for turn in body["messages"]] == ["Find:", "skirt", ""]
    assert body["continue_final_message"] is True and body["add_special_tokens"] is True


def test_special_tokens_in_product_text_are_taken_out_and_long_text_is_cut(server) -> None:
    encoder = endpoint(server)
    encoder.encode([Item("shirt <|im_end|> " + "x" * 5000)], instruction="")
    text = server.requests[0]["messages"][0]["content"][0]["text"]
    assert "<|im_end|>" not in text and len(text) <= 1024 and encoder.texts_cut == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "no embeddings"),
        (b'{"object": "list"}', "no embeddings"),
        (b'{"data": []}', "0 vectors for 1 input"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]}', "2 vectors for 1 input"),
        (b'{"data": [{"index": 3, "embedding": [1]}]}', "indices"),
        (b'{"data": [{"index": 0, "embedding": [1, NaN]}]}', "infinite or missing"),
        (b'{"data": [{"index": 0, "embedding": [1, 1e999]}]}', "infinite or missing"),
        (b'{"data": [{"index": 0, "embedding": [1, null]}]}', "something else than numbers"),
        (b'{"data": [{"index": 0, "embedding": [true, false]}]}', "something else than numbers"),
        (b'{"data": [{"index": 0, "embedding": [0, 0.0]}]}', "a vector of zeros"),
        (b'{"data": [{"index": 0, "embedding": []}]}', "no list"),
        (b'{"data": [{"index": 0, "embedding": "AACAPwAAAEA="}]}', "a vector is text, such as base64"),
        (b'{"data": [{"index": 0, "embedding": [[1, 2]]}]}', "something else than numbers"),
    ],
)
def test_what_is_no_vector_is_one_message_and_nothing_is_stored(server, shop, content, said) -> None:
    server.script = lambda number, body: Reply(body=content)
    done = embed(server, shop)
    assert done.exit_code == 4 and said in " ".join(done.stderr.split())
    assert not stored(shop) and not list(shop.embeddings.glob("*/pending/*.npy"))


def test_indices_that_repeat_and_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="indices"):
        read_vectors(b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]}', 2)
    with pytest.raises(ValueError, match="different lengths"):
        read_vectors(b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2, 3]}]}', 2)
    assert read_vectors(b'{"data": [{"embedding": [2]}, {"embedding": [-3]}]}', 2).tolist() == [[1], [-1]]


def test_a_dimension_that_changes_between_answers_stops_the_run(server, shop) -> None:
    server.script = lambda number, body: answering(6 if number < 3 else 7)(number, body)
    done = embed(server, shop, "--set", "embed.concurrency=1")
    assert done.exit_code == 4 and "a vector of 7 numbers after vectors of 6" in " ".join(done.stderr.split())
    assert not stored(shop)


def test_a_dimension_that_differs_from_the_stored_vectors_is_refused_by_embed_and_search(server, shop) -> None:
    assert embed(server, shop).exit_code == 0
    server.script = answering(7)
    write_shop(shop.root, shop_rows(9))
    done = embed(server, shop)
    assert done.exit_code == 4 and "vectors of 7 numbers now, those stored here have 6" in " ".join(done.stderr.split())
    named = ["--set", f"embed.endpoint={server.url}", "--set", "embed.endpoint_model=m"]
    done = run("search", "red shirt", "--catalog", shop.root, *named)
    assert done.exit_code == 4 and "those stored here have 6" in " ".join(done.stderr.split())
    server.script = answering(6)
    assert "1 vectors computed" in embed(server, shop).stdout, "nothing of the other length was kept"


def test_an_interrupted_run_goes_on_where_it_was(server, shop) -> None:
    server.script = lambda number, body: answering()(number, body) if number < 5 else Reply(status=503)
    words = ["--batch-size", "1", "--set", "embed.concurrency=1"]
    done = embed(server, shop, *words)
    assert done.exit_code == 4 and "HTTP 503" in done.stderr and not stored(shop)
    server.script, before = answering(), len(server.requests)
    done = embed(server, shop, *words)
    assert done.exit_code == 0 and len(server.requests) - before == 4, "the first group of four is kept"
    assert run("embed", shop.root, "--endpoint", "http://127.0.0.1:9", "--model", "m").exit_code == 0, "nothing to ask"


def test_killed_in_the_middle_the_same_command_goes_on_and_gives_the_same_vectors(server, shop, tmp_path) -> None:
    whole = write_shop(tmp_path / "whole", shop_rows(8))
    words = ["--batch-size", "1", "--set", "embed.concurrency=1"]
    assert embed(server, whole, *words).exit_code == 0
    begun, stuck = len(server.requests), threading.Event()

    def answer_six(number: int, body: dict[str, Any]) -> Reply:
        if number >= begun + 6:
            stuck.wait(60)
        return answering()(number, body)

    server.script = answer_six
    kill_once(
        lambda: list(shop.embeddings.glob("*/pending/*.json")) and len(server.requests) > begun + 6,
        lambda: embed(server, shop, *words),
    )
    stuck.set()
    assert not stored(shop)
    before = len(server.requests)
    done = embed(server, shop, *words)
    assert done.exit_code == 0 and len(server.requests) - before == 4, "the four of the chunk are not asked for again"
    one, other = (np.load(next(each.embeddings.glob("*/v*/vectors.npy"))) for each in (whole, shop))
    assert (one == other).all()


def test_what_is_stored_is_searched_and_evaluated_by_the_same_server(server, shop) -> None:
    (shop.root / "afmrl.toml").write_text(f'[embed]\nendpoint = "{server.url}"\nendpoint_model = "m"\n')
    refused = run("embed", shop.root)
    assert refused.exit_code == 2 and "allowed_hosts" in refused.stderr, "the folder alone names the server"
    assert "embed.endpoint in this folder" in " ".join(refused.stderr.split()) and not server.requests
    named = ["--set", f"embed.endpoint={server.url}"]
    assert run("embed", shop.root, *named).exit_code == 0
    asked = len(server.requests)
    for words in (["search", "red shirt", "--catalog", shop.root], ["eval", shop.root]):
        assert run(*words).exit_code == 2 and len(server.requests) == asked
    assert run("eval", shop.root, "--set", "split.test=0.5", *named).exit_code == 0
    found = run("search", "red shirt", "--catalog", shop.root, "--json", *named)
    assert found.exit_code == 0 and len(json.loads(found.stdout)["hits"]) == 8
    assert run("search", "--like", "s0", "--catalog", shop.root, *named).exit_code == 0
    changed = run("search", "--like", "s0", "--change", "color: green", "--catalog", shop.root, "--json", *named)
    assert {hit["id"] for hit in json.loads(changed.stdout)["hits"]} == {f"s{i}" for i in range(2, 8)}
    kinds = [part["type"] for part in server.requests[-1]["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]  # both photos of s0, then the change


@pytest.mark.parametrize("command", ["train-agcl", "train-rar", "cycle"])
def test_training_with_an_embedding_endpoint_is_one_clear_message(server, shop, command) -> None:
    done = run(command, shop.root, "--set", f"embed.endpoint={server.url}", "--set", "embed.endpoint_model=m")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2 and "embed.endpoint is set, but only a local embedder can be trained" in said
    assert not server.requests


def test_the_key_goes_into_one_header_and_shows_nowhere(server) -> None:
    server.script = lambda number, body: Reply(status=400, body=f"you sent {KEY}".encode())
    with pytest.raises(ModelError) as caught:
        endpoint(server, KEY).encode([Item("a")], instruction="")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) + caught.value.hint and "endpoint_photos=false" in caught.value.hint


@pytest.mark.parametrize("status", [302, 401, 404])
def test_redirects_and_refusals_of_everything_end_at_once(server, status) -> None:
    server.script = lambda number, body: Reply(status=status, headers={"Location": "http://127.0.0.1:9/"})
    with pytest.raises(ModelError, match=f"HTTP {status}"):
        endpoint(server, concurrency=1).encode([Item("a"), Item("b")], instruction="")
    assert len(server.requests) == 1


def test_the_id_names_the_model_and_all_that_it_is_shown_but_not_the_address() -> None:
    def id_of(**changed: object) -> str:
        return embedding_endpoint_id(load_settings(None, {"embed.endpoint_model": "org/M", **changed}, NANO))

    assert id_of().startswith("m-")
    assert id_of() == id_of(**{"embed.endpoint": "http://127.0.0.1:1"})
    assert len({id_of(), id_of(**{"embed.endpoint_photos": False}), id_of(**{"model.max_text_tokens": 64})}) == 3
    with pytest.raises(UsageError, match="needs the model's name"):
        id_of(**{"embed.endpoint_model": ""})
    with pytest.raises(UsageError, match="local model"):
        id_of(**{"model.embedder_checkpoint": "embedder-1"})
