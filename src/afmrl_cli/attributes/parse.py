"""Attribute text: `key: value; key: value`, and the one strict parser whose failures are RAR's invalid outputs.

Grammar:  text = pair *("; " pair)     pair = key ":" value     neither key nor value holds ";" , ":" or a line break
(a colon inside a value, such as "ratio: 16:9", is allowed; the first one separates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Failure = Literal["empty", "cut off", "unparsable", "repeated key", "too few pairs", "too many pairs", "outside schema"]
"""Why a text is invalid. "cut off" can't be seen in the text: the generator says so (no end token in its budget)."""

MAX_PAIRS = 12
MAX_KEY_CHARS = 40
MAX_VALUE_CHARS = 120


class InvalidAttributes(ValueError):
    """An attribute text that is not valid; `failure` is its kind, the message says which part."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure


def write_attributes(attributes: Mapping[str, str]) -> str:
    """Attributes as text, in their order: the inverse of `parse_attributes` for whatever that one accepts."""
    return "; ".join(f"{key}: {value}" for key, value in attributes.items())


def parse_attributes(text: str, *, max_pairs: int = MAX_PAIRS) -> dict[str, str]:
    """Parse one line of attribute text, strictly.

    Keys are lower-cased and stripped, values are stripped; white space inside is single spaces. One trailing ";" or
    "." is forgiven. Raises `InvalidAttributes` with its failure: empty, unparsable (a part without a key, a value or a
    colon; a line break; a part too long), repeated key, too many pairs.
    """
    text = text.strip()
    if not text:
        raise InvalidAttributes("empty", "no text")
    if "\n" in text or "\r" in text:
        raise InvalidAttributes("unparsable", "more than one line")
    found: dict[str, str] = {}
    for part in text.removesuffix(".").removesuffix(";").split(";"):
        key, colon, value = part.partition(":")
        key, value = " ".join(key.lower().split()), " ".join(value.split())
        if not colon or not key or not value:
            raise InvalidAttributes("unparsable", f"not a key: value pair: {part.strip()[:60]!r}")
        if len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS:
            raise InvalidAttributes("unparsable", f"too long: {part.strip()[:60]!r}")
        if key in found:
            raise InvalidAttributes("repeated key", f"{key!r} stands twice")
        found[key] = value
    if len(found) > max_pairs:
        raise InvalidAttributes("too many pairs", f"{len(found)} pairs, at most {max_pairs}")
    return found
