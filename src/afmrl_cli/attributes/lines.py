"""Pairs that stand in lines of their own, as models write them whatever the prompt says: YAML, and lists and tables.

    color: navy          - **Color:** navy        | attribute | value |
    item: scarf          - **Item:** scarf        | --------- | ----- |
                                                  | color     | navy  |

Each line must be a pair, but headings, rules and a first line that announces them. Where one is prose, nothing is read.
"""

from __future__ import annotations

import re

from .parse import MAX_KEY_CHARS, MAX_VALUE_CHARS, write_attributes

MOST_LINES = 60
_RULE = re.compile(r"[-=*_.|:\s]*|#.*")
"""`---`, `...`, `|---|---|`, an empty line, a heading of Markdown or a comment of YAML."""
_TABLE_RULE = re.compile(r"\|?(?:\s*:?-+:?\s*\|)+\s*(?::?-+:?)?\s*")
_BULLET = re.compile(r"(?:[-*+\u2022\u2013]|\d{1,2}[.)])\s+")


def pairs_in_lines(text: str) -> str:
    """Return `text` as attribute text when its lines, two and more, are pairs; "" when they aren't."""
    lines = [line.strip() for line in text.splitlines()]
    heads = {at - 1 for at, line in enumerate(lines) if at and "|" in line and _TABLE_RULE.fullmatch(line)}
    lines = [line for at, line in enumerate(lines) if at not in heads and not _RULE.fullmatch(line)]
    if len(lines) > 1 and lines[0].rstrip("* ").endswith(":") and not _below(lines[1]):
        lines = lines[1:]
    if not 1 < len(lines) <= MOST_LINES:
        return ""
    pairs: list[tuple[str, str]] = []
    above = ""  # the key of a list of YAML
    for line in lines:
        if above and (value := _below(line)):
            before = pairs.pop()[1] if pairs and pairs[-1][0] == above else ""
            pairs.append((above, f"{before}, {value}" if before else value))
        elif line.endswith(":"):
            above = _plain(line[:-1])
        elif pair := _pair(line):
            above = ""
            pairs.append(pair)
        else:
            return ""
    whole = all(0 < len(key) <= MAX_KEY_CHARS and len(value) <= MAX_VALUE_CHARS for key, value in pairs)
    return write_attributes(pairs) if whole and len(pairs) > 1 else ""


def _below(line: str) -> str:
    """Return the value in a line of YAML that stands in a list below a key; "" when it is no such line."""
    bullet = _BULLET.match(line)
    return _plain(line[bullet.end() :]) if bullet and ":" not in line else ""


def _pair(line: str) -> tuple[str, str] | None:
    """Return the key and the value of a row of a table or of `key: value`; None when the line is neither, or holds
    several.
    """
    if line.startswith("|"):
        cells = [_plain(cell) for cell in line.strip("|").split("|")]
        return (cells[0], cells[1]) if len(cells) == 2 and all(cells) else None
    text = _BULLET.sub("", line, count=1)
    key, colon, value = text.partition(":")
    if not colon or ";" in text or ": " in value.strip(" *"):
        return None
    return (_plain(key), _plain(value)) if _plain(value) else None


def _plain(text: str) -> str:
    """Return `text` without Markdown's stars and backquotes, and quotes around all of it."""
    text = re.sub(r"\*\*|__|`", "", text).strip(" \t*_")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
