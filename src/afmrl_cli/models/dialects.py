"""What servers with OpenAI's chat completions differ in: names and parts of the request that some of them refuse.

A request begins as most servers take it. Where one refuses a part by name (`max_tokens` in favour of
`max_completion_tokens`, a temperature of 0, a seed, a JSON schema), the part is renamed or left out, and every later
request to that server goes the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SCHEMA_HINT = "attributes.endpoint_schema=false asks without a JSON schema"
_SCHEMA = re.compile(
    r"response_format|response format|json.?schema|json.?mode|json_object|schema conversion|grammar|guided|outlines"
    r"|structured.?output|output_config|text\.format|responseschema|response_schema"
)
_REFUSED = re.compile(
    r"not support|n['’]t support|unsupported|not permitted|not allowed|not available|unavailable|unknown"
    r"|unrecogni[sz]ed|unexpected|extra|forbidden|not found|cannot find|deprecated|invalid|instead|must be"
    r"|only|both|failed|not valid"
)
_STRING_CONTENT = re.compile(r"content.*(?:must be|should be|expected|valid|a) (?:a )?str|invalid type: sequence")


@dataclass(frozen=True)
class Dialect:
    """How requests to one server are written; the default is what most take."""

    budget: str = "max_tokens"
    temperature: bool = True
    top_p: bool = True
    seed: bool = True
    schema: bool = True
    plain: bool = False
    """The content is a text where there are no pictures."""

    def body(self, request: Mapping[str, Any], text: str) -> dict[str, Any]:
        """Return `request`, written in OpenAI's way with `text` as its prompt, in this dialect."""
        body = {name: value for name, value in request.items() if self._takes(name)}
        if self.budget != "max_tokens":
            body[self.budget] = body.pop("max_tokens")
        if self.plain and len(body["messages"][0]["content"]) == 1:
            body["messages"] = [{"role": "user", "content": text}]
        return body

    def _takes(self, name: str) -> bool:
        part = "schema" if name == "response_format" else name
        return bool(getattr(self, part)) if part in ("temperature", "top_p", "seed", "schema") else True


def adapted(dialect: Dialect, said: str, body: Mapping[str, Any]) -> tuple[Dialect, str] | None:
    """Return the dialect after a server refused `body` and `said` why, with what was changed; None: nothing that is
    known.
    """
    said = said.casefold()
    if "max_tokens" in body and "max_completion_tokens" in said:
        return replace(dialect, budget="max_completion_tokens"), "with max_completion_tokens in place of max_tokens"
    if "max_completion_tokens" in body and re.search(r"\bmax_completion_tokens\b", said) and _REFUSED.search(said):
        return replace(dialect, budget="max_tokens"), "with max_tokens in place of max_completion_tokens"
    if not _REFUSED.search(said):
        return None
    if "response_format" in body and _SCHEMA.search(said):
        return replace(dialect, schema=False), f"without a JSON schema ({SCHEMA_HINT})"
    for name in ("top_p", "seed", "temperature"):
        if name in body and re.search(rf"\b{name}\b|\b{name.replace('_', ' ?')}\b", said):
            left: dict[str, Any] = {name: False}
            return replace(dialect, **left), f"without {name}, so the server's own holds"
    if not dialect.plain and _STRING_CONTENT.search(said):
        return replace(dialect, plain=True), "with a plain text as the message"
    return None


def about_schema(said: str) -> bool:
    """Tell whether a server's refusal is about the JSON schema."""
    return _SCHEMA.search(said.casefold()) is not None
