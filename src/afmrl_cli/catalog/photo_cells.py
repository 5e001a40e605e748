"""The photos that one cell names: several in one, as lists, in HTML, in formulas, with what exports put around them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

LINK = re.compile(r"[a-z][a-z0-9+.-]+://|data:|//|www\.[a-z0-9-]+\.", re.IGNORECASE)
SEPARATORS = re.compile(r"[|;\r\n]")
LINKS_APART = re.compile(r" ?[|;, ] ?(?=(?:https?:)?//[^/\s])", re.IGNORECASE)
FILE_END = re.compile(r"\.\w{2,5}(?:[?#]\S*)?\s*$")
LONGEST_END = 200
NAMED_FILE = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif)(?:\?\S*)?", re.IGNORECASE)
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
IN_HTML = re.compile(r"<img\b[^<>]*?\bsrc\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
HYPERLINK = re.compile(r"=\s*(?:HYPERLINK|IMAGE)\(\s*\"([^\"]*)\".*", re.IGNORECASE | re.DOTALL)
MARKS = re.compile(r"(?:::| ! ?(?:alt|title|desc|caption) ?:).*", re.IGNORECASE | re.DOTALL)
"""Words for people after a path: `a.jpg::Front view`, `a.jpg ! alt : Front view`."""
WIX, WIX_FILE = "https://static.wixstatic.com/media/", re.compile(r"[0-9a-f]{6}_[0-9a-f]{32}~mv2\.\w{3,4}")
"""Wix's exports name photos without the address of its server."""
ADDRESSES = ("url", "src", "link", "href", "path", "file", "location", "source", "uri", "image", "original", "large")
"""Last words of the keys of an object that stands for a photo, in JSON and XML."""
PHOTO = re.compile(
    r"[^<>]+\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif)([?#:].*)?"
    r"|(https?:)?//\S*(image|img|photo|pic|cdn|media|foto|bild|asset)\S*",
    re.IGNORECASE,
)
NO_PHOTO = re.compile(r"[^?#]*\.(pdf|mp4|mov|webm|avi|docx?|xlsx?|zip|html?|glb|usdz)([?#].*)?", re.IGNORECASE)
STORED = re.compile(r"asset:(?=/)")
"""Pimcore's mark of a path to a photo."""


def image_cells(cell: str, separator: str) -> list[str]:
    """Return the paths and links of photos in one cell, in their order; blanks are left out.

    Lists of JSON (of texts, or of objects with a url), Python and Postgres, HTML and formulas are read. Else the cell
    is split at `separator`; without one at |, ; and line breaks, at commas and blanks when every part looks like a
    file, and before each link.
    """
    cell = cell.strip()
    if found := HYPERLINK.fullmatch(cell):
        cell = found[1].strip()
    if "<" in cell and (found_in_html := [next(filter(None, groups), "") for groups in IN_HTML.findall(cell)]):
        parts = found_in_html
    elif (listed := _listed(cell)) is not None:
        parts = listed
    elif separator:
        parts = cell.split(separator)
    else:
        parts = _split(cell)
    return [clean for part in parts if (clean := _clean(part))]


def _listed(cell: str) -> list[str] | None:
    """Return the parts of a list of JSON, Python or Postgres; None when the cell is none."""
    if cell[:1] + cell[-1:] not in ("[]", "{}"):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        inside = cell[1:-1]
        quoted = [first or second for first, second in QUOTED.findall(inside)]
        return quoted or inside.split(",")
    listed = found if isinstance(found, list) else [found]
    parts = [address_of(part) if isinstance(part, dict) else part for part in listed]
    return [part for part in parts if isinstance(part, str)]


def _split(cell: str) -> list[str]:
    if LINK.match(cell):  # a link may hold any of the separators, so the next one starts with a scheme
        return LINKS_APART.split(" ".join(cell.split()))
    parts = SEPARATORS.split(cell)
    if len(parts) == 1 and all(FILE_END.search(part[-LONGEST_END:]) for part in cell.split(",")):
        parts = cell.split(",")
    if len(parts) == 1 and len(words := cell.split()) > 1 and all(map(NAMED_FILE.fullmatch, words)):
        parts = words
    return parts


def _clean(part: str) -> str:
    part = part.strip()
    if part[:1] == part[-1:] and part[:1] in ("'", '"') and len(part) > 2:
        part = part[1:-1].strip()
    if LINK.match(part):
        return f"https://{part}" if part[:4].lower() == "www." else part.replace("&amp;", "&")
    return f"{WIX}{part}" if WIX_FILE.fullmatch(part) else MARKS.sub("", STORED.sub("", part)).rstrip()


def is_photo(address: str) -> bool:
    """Tell whether a link or a path seems to lead to a photo."""
    return PHOTO.fullmatch(address) is not None and NO_PHOTO.fullmatch(address) is None


def address_of(part: Mapping[str, object]) -> str:
    """Return the link or path in an object such as {"url": "...", "alt": "..."} or {"media_path": "..."}; ""
    for none.
    """
    texts = {str(key).lower(): text.strip() for key, text in part.items() if isinstance(text, str) and text.strip()}
    words = {re.split(r"[^a-z]", re.sub(r"^#text$", "url", key))[-1]: text for key, text in reversed(texts.items())}
    return next((words[key] for key in ADDRESSES if key in words), "")
