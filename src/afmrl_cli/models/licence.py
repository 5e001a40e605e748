"""What a model's folder says about its licence; a warning where that forbids commercial use or has to be read.

Read are `license` and `license_name` of the model card's head (README.md), else the file LICENSE. A folder that says
nothing is known by its name, or not at all: there is no warning then. Of a licence nobody but a lawyer can say what it
allows, so it is named, and no more.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..listener import Listener, Silent

LARGEST = 1 << 20
"""Bytes that are read of a file."""
FORBIDS = re.compile(r"non-?commercial|(?<![a-z])nc(?![a-z])|(?<![a-z])research(?![a-z])", re.I)
"""In a licence's name: cc-by-nc-4.0, qwen-research, ..."""
BY_NAME = {"Qwen/Qwen2.5-VL-3B-Instruct": "qwen-research"}
"""Models of the presets, also as folders of that name; a cache of before has no cards."""
_warned: set[str] = set()


def warn_of_licence(name: str, folder: Path, listener: Listener | None) -> None:
    """Warn once in a process where the licence of the model `name` in `folder` forbids commercial use, or is one of its
    own.
    """
    if listener is None or isinstance(listener, Silent) or name in _warned:
        return
    _warned.add(name)
    licence = licence_of(name, folder)
    if FORBIDS.search(licence):
        listener.warn(f"{name}: its licence ({licence}) forbids commercial use without its makers' permission")
    elif licence.partition(" ")[0] == "other":
        listener.warn(f"{name}: its licence is one of its own ({licence}): look up whether a shop may use it")


def licence_of(name: str, folder: Path) -> str:
    """Return the licence by the name that the folder has for it; "" where it says none."""
    said = [_plain(each) for each in _card(folder)]
    if said:
        return " ".join(dict.fromkeys(said))
    for file in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if found := re.search(r"non-?commercial", _text(folder / file), re.I):
            return f"{file}: {_plain(found[0])}"
    last = re.split(r"[\\/]", name.rstrip("\\/"))[-1].lower()
    return next((licence for known, licence in BY_NAME.items() if known.lower().endswith(f"/{last}")), "")


def _card(folder: Path) -> list[str]:
    """Return `license` and `license_name` as the card's head has them, in one line or in a list."""
    text = _text(folder / "README.md")
    head = re.match(r"\ufeff?---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", text, re.S)
    if head is None:
        return []
    fields = re.findall(r"^license(?:_name)?:[ \t]*(\S[^\n]*|(?:\n[ \t]*-[^\n]*)+)", head[1], re.M)
    values = [value for field in fields for value in re.split(r"\n[ \t]*-|[\[\],]", field)]
    return [value for value in values if _plain(value)]


def _text(file: Path) -> str:
    """Return the beginning of `file`; "" where there is none."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as source:
            return source.read(LARGEST).decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""  # the model is used without its card


def _plain(value: str) -> str:
    bare = "".join(char if char.isprintable() else " " for char in value.partition(" #")[0])
    return bare.strip(" \t\"'")[:60]
