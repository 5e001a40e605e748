"""A chat completion as servers send it -> the answer, or why there is none, in one place for all their dialects.

    {"choices": [{"message": {"content": text or parts, ...}, "finish_reason": name}]}

or {"error": ...}, also with status 200.

Why an answer ended has many names (length, MAX_TOKENS, model_length, ...; content_filter, SAFETY, RECITATION, ...). The
answer may stand in the content, in its parts of type text, in the arguments of a tool call, or, where a server takes
all of it for thinking, in `reasoning_content`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..attributes.answers import attribute_text, json_objects, without_thinking
from ..attributes.request import Generation

SHOWN_CHARS = 300
CUT_OFF = re.compile(r"length|max.*token|(?<!rate_)limit|truncat|context_window|incomplete")
FILTERED = re.compile(
    r"filter|safety|recitation|block|prohibited|spii|refus|guardrail|moderat|toxic|sensitive|violat|polic|flagged"
)
BROKEN = re.compile(r"error|abort|cancel|insufficient|overload|malformed|unexpected|timeout|rate_limit")
NO_REASON = re.compile(r"null|unknown|other|.*unspecified")
"""Names of why an answer ended, in lower case; every other name (stop, eos, end_turn, tool_calls, ...) is an end."""
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
ELSEWHERE = "switch thinking off at the server, or its reasoning parser"


class NotACompletion(Exception):
    """What came is no answer in any form that is known: a second request may help."""


class ServerError(Exception):
    """An error object in place of an answer. `status` is what it says, or 200 when it says none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_completion(content: bytes, read: Callable[[str], str] = attribute_text) -> Generation:
    """Return the answer in a body of status 200, as `read` reads it: JSON in it as attribute text.

    A refusal, a filter, or an answer that stands where it can't be read is a Generation with `error`. Raises
    ServerError for an error object, NotACompletion for everything else.
    """
    try:
        body = json.loads(content.decode("utf-8-sig"))
        _raise_error_of(body)
        choice = body["choices"][0]
        _raise_error_of(choice)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise TypeError("no message")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise NotACompletion(f"not a chat completion: {error_text(content[:200])!r}") from error
    _raise_error_of(message)
    return _read(choice, message, read)


def _read(choice: dict[str, Any], message: dict[str, Any], read: Callable[[str], str]) -> Generation:
    reason = _reason(choice)
    text = _content(message.get("content"))
    if refusal := _refusal(message):
        return Generation("", False, f"refused: {_short(refusal)}", refused=True)
    if FILTERED.search(reason):
        return Generation("", False, f"content filter ({_short(reason)})", refused=True)
    if CUT_OFF.search(reason):
        return Generation(text, True)
    if not text.strip():
        text = _arguments(message)
    if not text.strip():
        return _from_reasoning(message) or _empty(reason)
    if BROKEN.search(reason):
        raise NotACompletion(f"the server broke off: {_short(reason)}")
    return Generation(read(text), False)


def error_text(content: bytes) -> str:
    """Return what a server said about its error, short and on one line."""
    text = content[:4000].decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):  # else it is shown as it is
        text = _message(json.loads(text))
    return _short(text)


def _raise_error_of(holder: Any) -> None:
    """Raise the error object of a body, a choice or a message, however it is wrapped."""
    if isinstance(holder, list) and holder:  # Gemini wraps its errors in a list
        holder = holder[0]
    if not isinstance(holder, dict):
        return
    error = holder.get("error") or holder.get("errors")
    if not error and (holder.get("object") == "error" or holder.get("type") == "error"):
        error = holder
    if not error:
        return
    status = next((code for code in _codes(error) if 400 <= code < 600), 200)
    raise ServerError(status, _short(_message(error)))


def _codes(error: Any) -> list[int]:
    if not isinstance(error, dict):
        return []
    said = [error.get(key) for key in ("code", "status", "status_code", "http_code")]
    return [int(code) for code in said if isinstance(code, int) or (isinstance(code, str) and code.isdecimal())]


def _message(found: Any) -> str:
    """Return the sentence in an error of any form: OpenAI's, Gemini's, FastAPI's `detail`, plain text."""
    if isinstance(found, list) and found:
        return "; ".join(dict.fromkeys(_message(part) for part in found[:3]))
    if not isinstance(found, dict):
        return str(found)
    for key in ("error", "errors", "message", "msg", "detail", "title"):
        if found.get(key):
            place = ".".join(map(str, found["loc"])) if isinstance(found.get("loc"), list) else ""
            names = [found.get(name) for name in ("param", "code") if key in ("message", "msg")]
            more = [str(name) for name in (place, *names) if isinstance(name, str) and name and not name.isdecimal()]
            text = _message(found[key])
            return text + "".join(f" ({name})" for name in more if name.casefold() not in text.casefold())
    return json.dumps(found, ensure_ascii=False)


def _reason(choice: dict[str, Any]) -> str:
    for key in ("finish_reason", "native_finish_reason", "stop_reason", "finishReason"):
        if isinstance(said := choice.get(key), str) and said:
            return said.strip().lower()
    return ""


def _content(content: Any) -> str:
    """Return the text of an answer: of its parts those of type text, so neither thinking nor refusals."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and not {"type", "text"} & content.keys():  # parsed by the server
        return json.dumps(content, ensure_ascii=False)
    parts = [content] if isinstance(content, dict) else content if isinstance(content, list) else []
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            text = text.get("value") if isinstance(text, dict) else text
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts)


def _refusal(message: dict[str, Any]) -> str:
    if isinstance(said := message.get("refusal"), str) and said.strip():
        return said
    parts = message.get("content") if isinstance(message.get("content"), list) else []
    for part in parts or ():
        if isinstance(part, dict) and part.get("type") == "refusal":
            return str(part.get("refusal") or part.get("text") or "refusal")
    return ""


def _arguments(message: dict[str, Any]) -> str:
    """Return the arguments of a message's only tool call, or of several that are the same."""
    calls = message.get("tool_calls") or [message.get("function_call")]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return ""
    if len({json.dumps(call.get("function", call), sort_keys=True) for call in calls}) != 1:
        return ""
    call = calls[0].get("function", calls[0])
    said = call.get("arguments") if isinstance(call, dict) else None
    return said if isinstance(said, str) else json.dumps(said) if isinstance(said, dict) else ""


def _from_reasoning(message: dict[str, Any]) -> Generation | None:
    """Return what a server took for thinking: read when it holds one JSON object, else reported."""
    for key in REASONING:
        said = message.get(key)
        if isinstance(said, str) and said.strip():
            objects = json_objects(said) or json_objects(without_thinking(said))
            if len(objects) == 1:
                return Generation(attribute_text(said), False)
            return Generation("", False, f"the answer is empty, all of it stands in {key}: {ELSEWHERE}")
    return None


def _empty(reason: str) -> Generation:
    if BROKEN.search(reason) or NO_REASON.fullmatch(reason):
        raise NotACompletion(f"an empty answer: {_short(reason)}")
    return Generation("", False)


def _short(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))[:SHOWN_CHARS]
