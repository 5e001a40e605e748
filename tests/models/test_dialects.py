"""Servers that refuse a part of the request: requested again without it, once, and reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from afmrl_cli.attributes.request import Request
from afmrl_cli.attributes.schema import AttributeSchema
from afmrl_cli.listener import Silent
from afmrl_cli.models.endpoint import Endpoint
from afmrl_cli.settings import AttributeSettings, ModelSettings
from tests.chat_server import ChatServer, Reply, chat_server

SCHEMA = AttributeSchema({}).json_schema("")


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def refusing(
    refused: Callable[[dict[str, Any]], object], status: int, said: Any
) -> Callable[[int, dict[str, Any]], Reply]:
    body = json.dumps(said if isinstance(said, dict | list) else {"error": {"message": said}}).encode()
    return lambda number, request: Reply(status=status, body=body) if refused(request) else Reply()


def requested(server: ChatServer, number: int = 20, **changed: Any) -> tuple[list[str | None], Heard]:
    settings = {"endpoint": server.url, "endpoint_model": "m", "retries": 0, "concurrency": 4, **changed}
    heard = Heard()
    made = Endpoint(AttributeSettings.model_validate(settings), ModelSettings(), api_key="", listener=heard)
    rows = made.generate([Request(str(i), schema=SCHEMA) for i in range(number)])
    return [row.error for row in rows], heard


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [
        ("max_tokens", 400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        (
            "temperature",
            400,
            "'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        ),
        ("temperature", 422, "`temperature` must be strictly positive"),
        ("temperature", 400, {"error": {"message": "Unsupported value", "param": "temperature"}}),
        ("response_format", 400, "The provided JSON schema contains features not supported by xgrammar."),
        ("response_format", 400, "JSON schema conversion failed: Unrecognized schema"),
        ("response_format", 400, "This response_format type is unavailable now"),
        ("response_format", 400, "'response_format.type' must be 'text'"),
        ("response_format", 400, "structured output is not supported in thinking mode"),
        ("response_format", 500, "Failed to initialize samplers: invalid grammar"),
        ("response_format", 422, [{"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]),
    ],
)
def test_a_part_that_is_refused_is_left_out_from_then_on(server: ChatServer, part: str, status: int, said: Any) -> None:
    server.script = refusing(lambda request: part in request, status, said)
    errors, heard = requested(server)
    assert errors == [None] * 20
    assert sum(part in request for request in server.requests) <= 4  # those that were under way
    (warning,) = heard.warnings
    assert "requested again" in warning and (part != "response_format" or "endpoint_schema=false" in warning)
    if part == "max_tokens":
        assert sum("max_completion_tokens" in request for request in server.requests) == 20


@pytest.mark.parametrize("part", ["seed", "top_p"])
def test_sampling_that_a_server_does_not_know(server: ChatServer, part: str) -> None:
    server.script = refusing(
        lambda request: part in request, 422, {"detail": [{"loc": ["body", part], "msg": "Extra"}]}
    )
    errors, heard = requested(server, temperature=0.7)
    assert errors == [None] * 20 and len(heard.warnings) == 1
    assert all(request["temperature"] == 0.7 for request in server.requests)


def test_several_parts_are_learnt_one_after_another(server: ChatServer) -> None:
    def script(number: int, request: dict[str, Any]) -> Reply:
        for part in ("max_tokens", "temperature", "response_format"):
            if part in request:
                more = ": use max_completion_tokens" if part == "max_tokens" else ""
                return Reply(status=400, body=f"unsupported parameter {part}{more}".encode())
        return Reply()

    server.script = script
    errors, heard = requested(server, 8, concurrency=1)
    assert errors == [None] * 8 and len(heard.warnings) == 3 and len(server.requests) == 11


def test_a_server_that_takes_no_parts_gets_a_text(server: ChatServer) -> None:
    said = "messages[0].content must be a string"
    server.script = refusing(lambda request: not isinstance(request["messages"][0]["content"], str), 400, said)
    errors, _ = requested(server, 8)
    assert errors == [None] * 8
    settings = AttributeSettings(endpoint=server.url, endpoint_model="m", retries=0)
    made = Endpoint(settings, ModelSettings(), api_key="")
    (row,) = made.generate([Request("x", (Image.new("RGB", (8, 8)),))])
    assert said in (row.error or "")


def test_a_server_that_refuses_whatever_is_left_out_gets_few_requests(server: ChatServer) -> None:
    server.script = lambda number, request: Reply(status=400, body=b"unsupported: max_tokens, max_completion_tokens")
    errors, _ = requested(server, 1)
    assert errors[0] is not None and len(server.requests) == 2


def test_thinking_that_takes_the_whole_budget_is_reported_once(server: ChatServer) -> None:
    server.script = lambda number, request: Reply(text="<think>The photo shows", finish_reason="length")
    _, heard = requested(server)
    assert len(heard.warnings) == 1 and "max_new_tokens" in heard.warnings[0]


def test_the_schema_is_one_that_every_server_takes() -> None:
    """No unions, nulls, bounds or patterns: vLLM's and LM Studio's grammars refuse or ignore some of them."""
    keys = {"color": {"values": ["navy", "red"]}, "material": {"values": ["wool"], "multiple": True}, "fit": {}}
    made = AttributeSettings.model_validate({"keys": keys})
    allowed = {"type", "properties", "required", "additionalProperties", "items", "enum", "description"}

    def check(schema: Any) -> None:
        assert schema.keys() <= allowed
        assert schema["type"] in ("object", "array", "string")
        assert all(isinstance(value, str) for value in schema.get("enum", []))
        for inner in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
            if isinstance(inner, dict):
                check(inner)

    for schema in (AttributeSchema({}), AttributeSchema.from_settings(made)):
        check(schema.json_schema(""))
