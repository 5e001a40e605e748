"""Text of a shop's editor as plain text: HTML tags and entities, also those that were escaped once more on the way."""

from __future__ import annotations

import re
from typing import Any

TAGS = (
    "a|abbr|article|b|big|blockquote|body|br|center|code|dd|del|div|dl|dt|em|figure|font|footer|h[1-6]|head|header|hr|html"
    "|i|iframe|img|li|link|main|mark|meta|nav|ol|p|pre|s|script|section|small|span|strong|style|sub|sup|svg|table|tbody"
    "|td|tfoot|th|thead|title|tr|u|ul|video"
)
BLOCKS = {
    *("article", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "header", "hr", "li", "main", "nav"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul"),
}
UNREAD = {"script", "style", "head", "title", "iframe"}
_TAG = rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>|<!--"
TAG = re.compile(_TAG, re.IGNORECASE)
STRAY = re.compile(rf"(?!{_TAG})<", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,24});", re.IGNORECASE)
TWICE = 2


def plain_text(text: str) -> str:
    """Return `text` without HTML; what is no tag of HTML and no entity (`5 < 6`, `AT&T`) stays as it is."""
    for _ in range(TWICE):
        if "<" not in text and "&" not in text:
            break
        if TAG.search(text):
            lines = _without_tags(text).split("\n")
            text = "\n".join(filter(None, map(str.strip, lines)))
        elif ENTITY.search(text):
            text = ENTITY.sub(_entity, text)
        else:
            break
    return text


def _entity(found: re.Match[str]) -> str:
    from html import unescape

    return unescape(found[0])


def _without_tags(text: str) -> str:
    from lxml import etree

    # What is no tag would be dropped: "<M" in "sizes <M and >L".
    safe = STRAY.sub("&lt;", text)
    root: Any = etree.HTML(f"<body>{safe}")
    if root is None:
        return ""
    found: list[str] = []
    for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        read = event == "start" and element.tag not in UNREAD
        if event in ("start", "end") and element.tag in BLOCKS:
            found.append("\n")
        if read and element.text:
            found.append(element.text)
        if event != "start" and element.tail:
            found.append(element.tail)
    return "".join(found)
