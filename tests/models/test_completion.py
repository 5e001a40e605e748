"""Chat completions as servers send them: where the answer stands, and why there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afmrl_cli.attributes.request import Generation
from afmrl_cli.models.completion import NotACompletion, ServerError, error_text, read_completion

SCARF = "color: navy; material: wool"
JSON = '{"color": "navy", "material": "wool"}'


def read(content: Any = None, reason: str | None = "stop", **message: Any) -> Generation:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return read_completion(json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    "content",
    [
        SCARF,
        JSON,
        [{"type": "text", "text": JSON}],
        [{"type": "reasoning", "text": "It is blue. "}, {"type": "text", "text": JSON}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "blue"}]}, {"type": "text", "text": JSON}],
        [{"type": "text", "text": '{"color": "navy",'}, {"type": "text", "text": ' "material": "wool"}'}],
        [{"type": "output_text", "text": {"value": JSON}}],
        {"type": "text", "text": JSON},
        json.loads(JSON),
    ],
)
def test_the_answer_is_the_text_of_the_content(content: Any) -> None:
    assert read(content) == Generation(SCARF, False)


@pytest.mark.parametrize(
    "reason", ["stop", "eos", "eos_token", "end_turn", "STOP", "COMPLETE", "stop_sequence", None, ""]
)
def test_an_answer_that_ended_by_itself(reason: str | None) -> None:
    assert read(SCARF, reason) == Generation(SCARF, False)


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "max_tokens", "MAX_TOKENS", "model_length", "max_new_tokens", "max_output_tokens", "ERROR_LIMIT"),
        *("model_context_window_exceeded", "token_limit", "truncated", "incomplete"),
    ],
)
def test_cut_off_has_many_names(reason: str) -> None:
    assert read("color: navy; material: woo", reason).cut_off


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "content_filter",
            "SAFETY",
            "RECITATION",
            "PROHIBITED_CONTENT",
            "BLOCKLIST",
            "SPII",
            "refusal",
            "ERROR_TOXIC",
        ),
        *("guardrail_intervened", "sensitive", "IMAGE_SAFETY"),
    ],
)
def test_a_filter_is_named(reason: str) -> None:
    found = read(SCARF, reason)
    assert found.refused and found.text == "" and "content filter" in (found.error or "")
    assert reason.lower() in (found.error or "")


@pytest.mark.parametrize(
    "message",
    [{"refusal": "I can't help."}, {"content": [{"type": "refusal", "refusal": "I can't help."}]}],
)
def test_a_refusal_is_named(message: dict[str, Any]) -> None:
    found = read(**{"content": None, **message})
    assert (found.text, found.refused, found.error) == ("", True, "refused: I can't help.")


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"type": "function", "function": {"name": "attributes", "arguments": JSON}}]},
        {"tool_calls": [{"function": {"arguments": json.loads(JSON)}}]},
        {"tool_calls": [{"id": id, "function": {"name": "attributes", "arguments": JSON}} for id in ("a", "b")]},
        {"function_call": {"name": "attributes", "arguments": JSON}},
        {"reasoning_content": f"It is a scarf. {JSON}"},
        {"reasoning": f"<think>It is a scarf</think>{JSON}"},
    ],
)
def test_an_answer_that_stands_elsewhere_is_read(message: dict[str, Any]) -> None:
    assert read(None, "tool_calls", **message) == Generation(SCARF, False)


@pytest.mark.parametrize("thought", [f"It is a scarf. {SCARF}", f'Perhaps {{"color": "red"}}, or {JSON}'])
def test_thinking_alone_is_reported_and_not_read(thought: str) -> None:
    found = read("", reasoning_content=thought)
    assert found.text == "" and "reasoning_content" in (found.error or "")


def test_an_answer_beside_thinking_is_the_answer() -> None:
    assert read(SCARF, reasoning_content='{"color": "red"}') == Generation(SCARF, False)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": {"message": "no luck", "code": 502}}, 502, "no luck"),
        ({"error": "no luck"}, 200, "no luck"),
        ({"object": "error", "message": "no luck", "code": 400}, 400, "no luck"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no luck"}}, 200, "no luck"),
        ([{"error": {"code": 429, "message": "no luck", "status": "RESOURCE_EXHAUSTED"}}], 429, "no luck"),
        (
            {"choices": [{"error": {"code": "503", "message": "no luck"}, "message": {"content": "a: b"}}]},
            503,
            "no luck",
        ),
    ],
)
def test_an_error_with_status_200_is_no_answer(body: Any, status: int, said: str) -> None:
    with pytest.raises(ServerError, match=said) as caught:
        read_completion(json.dumps(body).encode())
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"3", b'"text"', b'{"choices": null}', b'{"choices": [{}]}', b"\xff\xfe", b"[" * 99_999],
)
def test_nonsense_is_no_completion(body: bytes) -> None:
    with pytest.raises(NotACompletion, match="not a chat completion"):
        read_completion(body)


@pytest.mark.parametrize(("content", "reason"), [("", "error"), (None, "unknown"), ("color: na", "abort")])
def test_an_answer_that_the_server_broke_off_is_requested_again(content: str | None, reason: str) -> None:
    with pytest.raises(NotACompletion):
        read(content, reason)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "a\nb"}}, "a b"),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs", "type": "extra_forbidden"}]},
            "Extra inputs (body.seed)",
        ),
        ({"message": "no", "code": "model_not_found"}, "no (model_not_found)"),
        ({"error": {"message": "bad value", "param": "temperature"}}, "bad value (temperature)"),
        ({"odd": 1}, '{"odd": 1}'),
    ],
)
def test_errors_are_shown_in_one_line(body: Any, said: str) -> None:
    assert error_text(json.dumps(body).encode()) == said
