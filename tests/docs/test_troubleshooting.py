"""The messages that docs/troubleshooting.md explains are messages of the program."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"


def template(node: ast.AST) -> str | None:
    """The text of a string, `...` in place of each value; None for what is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "..." for part in node.values)
    return None


def flat(text: str) -> str:
    """`text` with what differs written as one `...` where several values meet."""
    return re.sub(r"'?(\.\.\.)+'?", "...", text)


def test_each_quoted_message_stands_in_the_source() -> None:
    quoted = re.findall(r"^\| `(.+?)` \|", PAGE.read_text("utf-8"), re.M)
    assert len(quoted) >= 70 and len(set(quoted)) == len(quoted)
    known = [
        flat(text)
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (text := template(node))
    ]
    unknown = [message for message in quoted if not any(flat(message).rstrip(".") in text for text in known)]
    assert unknown == [], "no longer said, or said in other words"
