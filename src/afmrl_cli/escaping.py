"""Text that comes from anywhere (a title, an id, a model's answer) in what people and programs read.

Each reader has signs that steer it: a terminal control characters, a CI's log `::commands`, a spreadsheet formulas, a
page made from Markdown links and mentions. One function for each of them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO

STEERS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff\\ud800-\\udfff"
    "\\U000e0000-\\U000e007f]"
)
"""Control characters but for tab and line break, marks that turn the direction of writing, invisible tags, halves of
characters."""
COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
BRACKET_COMMAND = re.compile(r"#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")
MARKDOWN = re.compile(r"[\\`*~|]|\](?=\s*[(\[:])|(?<!\w)[@#_]|_(?!\w)")
LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)


def printable(text: str) -> str:
    """Make `text` safe for a terminal or a file: a replacement character in place of what would steer it."""
    return STEERS.sub("\N{REPLACEMENT CHARACTER}", text)


def log_text(text: str) -> str:
    """Put a blank into each line that the CI which shows it (GitHub, Azure, TeamCity) would take for a command."""
    return BRACKET_COMMAND.sub("# ", COMMAND.sub(r"\1: ", text))


def json_text(document: str) -> str:
    """Escape what steers a terminal or a CI in a JSON document, whose meaning stays."""
    escaped = STEERS.sub(lambda match: _unicode_escape(match[0]), document)
    return BRACKET_COMMAND.sub("\\\\u0023", escaped)


def _unicode_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def spreadsheet_cell(value: object) -> str:
    """Make a cell of a CSV file that no spreadsheet runs: what begins like a formula gets an apostrophe before it."""
    text = printable(str(value))
    number = re.fullmatch(r"[+-]?\d+([.,]\d+)?", text)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) and not number else text


def write_csv(file: IO[str], rows: Iterable[Iterable[object]]) -> None:
    """Write `rows` as CSV that a spreadsheet opens without running anything: the one writer of the tool's tables."""
    csv.writer(file).writerows(map(spreadsheet_cell, row) for row in rows)


def from_spreadsheet_cell(text: str) -> str:
    """Return what `spreadsheet_cell` was given, but for the characters that it replaced."""
    return text[1:] if text.startswith("'") and text[1:].lstrip(" ").startswith(FORMULA) else text


def markdown(text: object) -> str:
    """Escape `text` for one line of Markdown or a cell: no HTML, no link or picture, no mention, no emphasis."""
    escaped = printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = MARKDOWN.sub(lambda match: f"\\{match[0]}", escaped)
    escaped = LINK.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), escaped)
    return " ".join(escaped.split())
