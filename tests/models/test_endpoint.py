"""The endpoint backend against a real HTTP server that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from afmrl_cli.attributes.request import Generation, Request
from afmrl_cli.attributes.schema import AttributeSchema
from afmrl_cli.errors import ModelError, UsageError
from afmrl_cli.models import server as server_module
from afmrl_cli.models.endpoint import Endpoint, endpoint_id
from afmrl_cli.settings import AttributeSettings, ModelSettings
from tests.chat_server import ChatServer, Reply, chat_server

KEY = "sk-not-a-real-key-0123456789"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def endpoint(server: ChatServer, *, address: str = "", api_key: str = "", max_pixels: int = 0, **changed) -> Endpoint:
    settings = AttributeSettings.model_validate(
        {"endpoint": address or server.url, "endpoint_model": "m", "retries": 2, "timeout": 5.0, **changed}
    )
    return Endpoint(settings, ModelSettings(max_pixels=max_pixels), api_key=api_key, first_wait=0.01)


def ask(server: ChatServer, **changed) -> Generation:
    return endpoint(server, **changed).generate([Request("Title: blouse")])[0]


def raw(text: str) -> Reply:
    return Reply(body=text.encode())


def test_request_and_answer(server):
    picture = Image.new("RGB", (400, 200), "red")
    schema = AttributeSchema({}).json_schema("")
    found = endpoint(server, temperature=0.5, seed=3, max_pixels=800).generate(
        [Request("Title: blouse", (picture, picture), schema)]
    )
    assert found == [Generation("color: navy; neckline: v-neck", False)]
    body = server.requests[0]
    assert server.paths == ["/v1/chat/completions"]
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0.5, 3)
    assert body["response_format"]["json_schema"]["schema"] == schema
    first, second, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "Title: blouse"}
    assert first == second
    url = first["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (sent.format, sent.size) == ("JPEG", (40, 20))
    assert "authorization" not in server.headers[0]


def test_small_pictures_keep_their_size_and_any_mode_is_sent(server):
    pictures = tuple(Image.new(mode, (7, 1)) for mode in ("L", "P", "RGBA", "CMYK", "RGB"))
    endpoint(server).generate([Request("x", pictures)])
    for part in server.requests[0]["messages"][0]["content"][:-1]:
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        assert Image.open(io.BytesIO(data)).size == (7, 1)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/own/v1", "/own/chat/completions"])
def test_addresses(server, end):
    assert ask(server, address=server.url + end).error is None
    assert server.paths[0] == ("/own" if "own" in end else "") + ("" if end == "/own/chat/completions" else "/v1") + (
        "/chat/completions"
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:8000", "not an http"),
        ("ftp://a/b", "not an http"),
        ("http://", "not an http"),
        ("http://user:secret@127.0.0.1:1", "no name or password"),
        ("http://127.0.0.1:port", "attributes.endpoint"),
    ],
)
def test_bad_addresses(address, message):
    with pytest.raises(UsageError, match=message) as caught:
        Endpoint(AttributeSettings(endpoint=address, endpoint_model="m"), ModelSettings())
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_model_name_is_needed():
    with pytest.raises(UsageError, match="name"):
        endpoint_id(AttributeSettings(endpoint="http://127.0.0.1:1"), ModelSettings())


def test_the_id_names_the_model_and_what_it_is_shown():
    def id_of(model=None, **changed) -> str:
        settings = {"endpoint": "http://127.0.0.1:1", "endpoint_model": "Qwen/Qwen3-VL-8B", **changed}
        return endpoint_id(AttributeSettings.model_validate(settings), ModelSettings.model_validate(model or {}))

    assert re.fullmatch(r"qwen3-vl-8b-[0-9a-f]{10}", id_of())
    assert id_of(endpoint="http://other:2/v1", concurrency=1) == id_of()
    assert len({id_of(), id_of({"generator_images": 1}), id_of({"max_pixels": 999}), id_of(endpoint_schema=False)}) == 4


def test_a_long_product_text_is_cut_and_the_prompt_is_not(server):
    settings = AttributeSettings(endpoint=server.url, endpoint_model="m")
    long = "word " * 1000
    made = Endpoint(settings, ModelSettings(max_text_tokens=16), api_key="")
    made.generate([Request(f"{long}\nWhich colour?", product=long)])
    sent = server.prompts()[0]
    assert sent.endswith("word\nWhich colour?") and len(sent) < 90


def test_order_is_kept_and_concurrency_bounded(server):
    def script(number, body):
        prompt = body["messages"][0]["content"][-1]["text"]
        return Reply(text=f"number: {prompt}", delay=0.05 if int(prompt) % 3 else 0.1)

    server.script = script
    rows = endpoint(server, concurrency=5).generate([Request(str(i)) for i in range(20)])
    assert [row.text for row in rows] == [f"number: {i}" for i in range(20)]
    assert server.most_at_a_time == 5


def test_sampling_sends_the_seed(server):
    endpoint(server, temperature=1.0, seed=7).generate([Request("a"), Request("b")])
    assert [body["seed"] for body in server.requests] == [7, 7]


def test_greedy_sends_no_seed(server):
    ask(server)
    assert "seed" not in server.requests[0] and server.requests[0]["temperature"] == 0


# What passes: tried again


@pytest.mark.parametrize(
    "first",
    [
        Reply(status=500, body=b"boom"),
        Reply(status=503, body=b""),
        Reply(cut=True),
        Reply(body=b"<html>nonsense</html>"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": null}]}'),
        Reply(body=b"[" * 100_000),
        Reply(body=b"\xff\xfe\x00"),
        Reply(status=429, headers={"Retry-After": "nonsense"}),
        Reply(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ],
)
def test_a_passing_failure_is_tried_again(server, first):
    server.script = lambda number, body: Reply() if number else first
    assert ask(server) == Generation("color: navy; neckline: v-neck", False)
    assert len(server.requests) == 2


def test_retry_after_is_waited_for(server):
    server.script = lambda number, body: Reply() if number else Reply(status=429, headers={"Retry-After": "0.4"})
    begin = time.monotonic()
    assert ask(server).error is None
    assert time.monotonic() - begin >= 0.4


def test_a_pause_that_is_too_long_is_an_error_at_once(server):
    server.script = lambda number, body: Reply(status=429, headers={"Retry-After": "86400"}, body=b"slow down")
    assert ask(server).error == "HTTP 429: slow down"
    assert len(server.requests) == 1


def test_waits_grow(server):
    server.script = lambda number, body: Reply(status=500)
    settings = AttributeSettings(endpoint=server.url, endpoint_model="m", retries=3)
    begin = time.monotonic()
    Endpoint(settings, ModelSettings(), api_key="", first_wait=0.1).generate([Request("a")])
    assert time.monotonic() - begin >= (0.1 + 0.2 + 0.4) / 2
    assert len(server.requests) == 4


@pytest.mark.parametrize("reply", [Reply(delay=2.0), Reply(drip=0.05)])
def test_a_slow_server_is_not_waited_for(server, reply):
    server.script = lambda number, body: reply
    assert ask(server, timeout=0.2, retries=1).error == "no answer within 0.2 s"
    assert len(server.requests) == 2


def test_a_huge_answer_is_not_read_to_its_end(server, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_BODY_BYTES", 2**20)
    server.script = lambda number, body: Reply(text="x" * 3 * 2**20)
    assert ask(server, retries=0).error == "an answer of more than 1 MiB"


def test_one_bad_row_ends_nothing(server):
    def script(number, body):
        text = body["messages"][0]["content"][-1]["text"]
        return Reply(status=500, body=b'{"error": {"message": "no\\nluck"}}') if text == "bad" else Reply()

    server.script = script
    rows = endpoint(server).generate([Request("a"), Request("bad"), Request("b")])
    assert [row.error for row in rows] == [None, "HTTP 500: no luck", None]
    assert len(server.requests) == 5


# What does not pass


def test_a_refused_request_is_not_repeated(server):
    server.script = lambda number, body: Reply(status=400, body=b'{"error": {"message": "response_format: unknown"}}')
    error = ask(server).error
    assert error is not None and "endpoint_schema=false" in error
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 301, 307])
def test_what_is_wrong_with_every_request_stops_the_run(server, status):
    headers = {"Location": f"http://127.0.0.1:9/{KEY}"} if status < 400 else {}
    server.script = lambda number, body: Reply(status=status, headers=headers, body=f"denied {KEY}".encode())
    with pytest.raises(ModelError, match=f"HTTP {status}") as caught:
        endpoint(server, api_key=KEY, concurrency=1).generate([Request(str(i)) for i in range(30)])
    assert len(server.requests) == 1
    assert KEY not in str(caught.value) + caught.value.hint


def test_an_unreachable_server_is_one_error():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = AttributeSettings(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}", endpoint_model="m")
    with pytest.raises(ModelError, match="can't connect"):
        Endpoint(settings, ModelSettings(), api_key="", first_wait=0.01).generate([Request(str(i)) for i in range(30)])


def test_a_server_that_only_fails_is_left_alone(server):
    server.script = lambda number, body: Reply(status=500)
    with pytest.raises(ModelError, match="20 requests in a row failed"):
        endpoint(server, retries=0).generate([Request(str(i)) for i in range(200)])
    assert len(server.requests) < 40


# The key


def test_the_key_comes_from_the_environment_and_shows_nowhere(server, monkeypatch):
    monkeypatch.setenv("AFMRL_API_KEY", KEY)
    settings = AttributeSettings(endpoint=server.url, endpoint_model="m", retries=0)
    server.script = lambda number, body: Reply(status=500, body=f"you sent Bearer {KEY}".encode())
    made = Endpoint(settings, ModelSettings())
    assert made.generate([Request("a")])[0].error == "HTTP 500: you sent Bearer [key]"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(made) + made.id + json.dumps(settings.model_dump())


def test_a_key_that_no_header_can_carry():
    settings = AttributeSettings(endpoint="http://127.0.0.1:1", endpoint_model="m")
    with pytest.raises(UsageError) as caught:
        Endpoint(settings, ModelSettings(), api_key="pass\nword")
    assert "word" not in str(caught.value)


def test_no_proxy_is_taken_from_the_environment(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(server).error is None


# Refused alike


@pytest.mark.parametrize(
    ("status", "said", "hint"),
    [
        (402, "This request requires more credits (request 7f3)", "credit"),
        (400, "API key not valid. Please pass a valid API key.", "AFMRL_API_KEY"),
        (400, "Model 'm' does not exist", "served there"),
        (429, "You exceeded your current quota (insufficient_quota)", "credit"),
        (200, "invalid model: m", "served there"),
        (422, "the field pigs can't fly", "the same command"),
        (400, "this server's json_schema is out of order", "endpoint_schema=false"),
    ],
)
def test_what_a_server_refuses_each_time_is_not_sent_for_the_whole_catalog(server, status, said, hint):
    server.script = lambda number, body: Reply(
        status=status, body=json.dumps({"error": {"message": f"{said} (id req-{number}a1)"}}).encode()
    )
    with pytest.raises(ModelError) as caught:
        endpoint(server, concurrency=2).generate([Request(str(i)) for i in range(120)])
    assert len(server.requests) < 12
    assert said.split(" (")[0] in str(caught.value) and hint in caught.value.hint


@pytest.mark.parametrize("said", ["the prompt was flagged by content management policy", "context length exceeded"])
def test_what_a_server_has_against_single_products_ends_nothing(server, said):
    server.script = lambda number, body: Reply(status=400, body=json.dumps({"error": {"message": said}}).encode())
    rows = endpoint(server).generate([Request(str(i)) for i in range(30)])
    assert all(said in (row.error or "") for row in rows)
    assert [row.refused for row in rows] == ["flagged" in said] * 30


def test_refusals_with_answers_between_them_end_nothing(server):
    server.script = lambda number, body: Reply(status=400, body=b"no") if number % 3 else Reply()
    rows = endpoint(server, concurrency=1).generate([Request(str(i)) for i in range(30)])
    assert sum(row.error is None for row in rows) == 10


# Answers


def test_cut_off(server):
    server.script = lambda number, body: Reply(text='{"color": "na', finish_reason="length")
    assert ask(server) == Generation('{"color": "na', True)


def test_an_answer_in_json_becomes_attribute_text(server):
    server.script = lambda number, body: Reply(text='```json\n{"color": "navy", "size": null}\n```')
    assert ask(server) == Generation("color: navy", False)


def test_pictures_survive(server):
    ramp = np.linspace(0, 255, 64)[:, None, None] * np.ones((64, 64, 3))
    endpoint(server).generate([Request("x", (Image.fromarray(ramp.astype(np.uint8)),))])
    url = server.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    assert np.abs(sent - ramp).mean() < 2
