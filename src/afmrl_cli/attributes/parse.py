"""Attribute text: `key: value; key: value`. The one writer, and the one strict parser, whose failures are RAR's invalid
outputs; no other file knows the format but the prompt, which asks for it.

Grammar:  text = pair *("; " pair) [";"] ["."]     pair = key ":" value
A key begins with a letter or digit and holds neither ";" nor ":". A value holds no ";"; a colon inside it must not be
followed by white space: `ratio: 16:9` is one pair, `colour: red, size: XL` is two pairs written wrongly, and
`Here you are: colour: red` is chatter. Line breaks, control characters and lone surrogates are never valid.
Colons and semicolons of other scripts (`颜色：藏青；材质：羊毛`) are read as ours; a wide colon needs
no space after it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

Failure = Literal["empty", "cut off", "unparsable", "repeated key", "too few pairs", "too many pairs", "outside schema"]
"""Why a text is invalid. "cut off" can't be seen in the text: the generator says so (no end token in its budget)."""

MAX_PAIRS = 12
MAX_KEY_CHARS = 40
MAX_VALUE_CHARS = 120
UNREAD = "attributes"

_SECOND_PAIR = re.compile(r":\s")
_UNWRITABLE = {"Cc", "Cs"}
_COLONS = "\uff1a\ufe55\ufe13\ua789\u1366"
_SEMICOLONS = "\uff1b\ufe54\ufe14\u061b\u037e\u1364\u2e35"
_STOPS = " .\u3002\uff0e\uff61"
_WIDE = str.maketrans(_COLONS + _SEMICOLONS, ":" * len(_COLONS) + ";" * len(_SEMICOLONS))
_WIDE_COLON = re.compile(rf"[{_COLONS}](?!\d)|(?<!\d)[{_COLONS}]")
_WRITTEN = re.compile(rf"([^:;{_COLONS}{_SEMICOLONS}]+)[:{_COLONS}]([^;{_SEMICOLONS}]+)")


class InvalidAttributes(ValueError):
    """An attribute text that is not valid; `failure` is its kind, the message says which part."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure


def write_attributes(attributes: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Write attributes as text, in their order: the inverse of `parse_attributes` for whatever that one accepts."""
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    return "; ".join(f"{key}: {value}" for key, value in pairs)


def parse_attributes(text: str, *, max_pairs: int = MAX_PAIRS) -> dict[str, str]:
    """Parse one line of attribute text, strictly.

    Keys are lower-cased and stripped, values are stripped; white space inside is single spaces. One trailing ";" and
    full stops at the very end are forgiven. Raises `InvalidAttributes` with its failure: empty, unparsable (a part
    without a key, a value or a colon; two pairs without ";" between them; a line break; a part too long), repeated
    key, too many pairs.
    """
    text = text.strip()
    if not text:
        raise InvalidAttributes("empty", "no text")
    if len(text.splitlines()) > 1:
        raise InvalidAttributes("unparsable", "more than one line")
    if any(unicodedata.category(char) in _UNWRITABLE and not char.isspace() for char in text):
        raise InvalidAttributes("unparsable", "a control character")
    text = _WIDE_COLON.sub(": ", text).translate(_WIDE)  # in 16：9 the colon stays inside of the value
    # Full stops go on both sides of the ";", or writing what was read would read differently the second time.
    body = " ".join(text.split()).rstrip(_STOPS).removesuffix(";").rstrip(_STOPS)
    found: dict[str, str] = {}
    for part in body.split(";"):
        key, value = _pair(part)
        if key in found:
            raise InvalidAttributes("repeated key", f"{key!r} stands twice")
        found[key] = value
    if len(found) > max_pairs:
        raise InvalidAttributes("too many pairs", f"{len(found)} pairs, at most {max_pairs}")
    return found


def value_spans(text: str) -> dict[str, tuple[int, int]]:
    """Return where each pair's value stands in `text`, first and last character + 1, by key; for valid text the keys
    are those that `parse_attributes` gives.
    """
    return {" ".join(found[1].lower().split()): found.span(2) for found in _WRITTEN.finditer(text)}


def pair_numbers(so_far: Sequence[str]) -> list[int]:
    """Return for each piece of a text, given as what stands there after it, the number of the pair that it begins in.

    A separator belongs to the pair before it; what ends a text (a full stop, a last separator) to the last one.
    """
    separators = re.compile(f"[;{_SEMICOLONS}]")
    if not so_far:
        return []
    last = len(separators.findall(so_far[-1].rstrip(_STOPS + ";" + _SEMICOLONS)))
    return [min(last, len(separators.findall(before))) for before in ("", *so_far[:-1])]


def read_stored(text: str) -> dict[str, str]:
    """Read attribute text that the store holds: however many pairs `attributes.max_pairs` allowed when it was written.

    {} for "". Text that is no attribute text any more (a damaged or older store) is shown as it is, as one pair
    called UNREAD.
    """
    if not text:
        return {}
    try:
        return parse_attributes(text, max_pairs=len(text))
    except InvalidAttributes:
        return {UNREAD: text}


def count_pairs(text: str) -> int:
    """Count the pairs of valid attribute text."""
    return len(read_stored(text))


def _pair(part: str) -> tuple[str, str]:
    key, colon, value = part.partition(":")
    key, value = " ".join(key.lower().split()), value.strip()
    shown = repr(part.strip()[:60])
    if not colon or not key or not value or not key[0].isalnum():
        raise InvalidAttributes("unparsable", f"not a key: value pair: {shown}")
    if _SECOND_PAIR.search(value) or value.endswith(":"):
        raise InvalidAttributes("unparsable", f"more than one pair without ';' between them: {shown}")
    if len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS:
        raise InvalidAttributes("unparsable", f"too long: {shown}")
    return key, value


def clean_value(text: str) -> str:
    """Return free text, such as a string from JSON or a retailer's own column, as one value that the grammar can hold.

    Separators become commas and spaces, what can't be written is dropped; nothing is cut. "" when nothing is left.
    """
    text = _WIDE_COLON.sub(": ", text).translate(_WIDE)
    kept = "".join(" " if char.isspace() else char for char in text.replace(";", ","))
    kept = "".join(char for char in kept if unicodedata.category(char) not in _UNWRITABLE)
    return " ".join(re.sub(r":+(\s|$)", " ", kept).split()).strip(_STOPS + ":,")
