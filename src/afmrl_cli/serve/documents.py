"""JSON documents as responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ..escaping import json_text


def json_response(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of one JSON document, in which nothing steers a terminal that shows it."""
    text = json_text(json.dumps(content, ensure_ascii=False, default=_plain, allow_nan=False))
    return Response(text.encode("utf-8"), status, dict(headers or {}), "application/json")


def _plain(value: object) -> object:
    if hasattr(value, "item"):  # a NumPy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} in a JSON document")
