"""Files whose names a catalog writes otherwise: `A.JPG` for `a.jpg`, another Unicode form, `my%20photo.jpg`.

A name is found when exactly one file of its folder is the same without regard to these; else the nearest is named.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

FOLDERS = 256
"""Whose names are remembered."""
SEARCHED = 20_000
"""Names of a folder among which the nearest is searched."""
LONGEST_NAME = 255


class NearNames:
    """The files below a catalog's folder, by their names as people take them for the same."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = lru_cache(FOLDERS)(_names_of)

    def find(self, path: str) -> str | None:
        """Return the path below the folder that `path` must mean; None when there is none, or more than one."""
        here, parts = PurePosixPath(), PurePosixPath(path).parts
        if not parts or ".." in parts or parts[0] == "/":
            return None
        for part in parts:
            names = self._names(self._root / here)
            same = names.get(_folded(part), [])
            if part in same:
                same = [part]
            if len(same) != 1:
                return None
            here /= same[0]
        return str(here)

    def nearest(self, path: str) -> str:
        """Return what to say of a `path` that is not there: the name that is most like it in its folder; "" for
        none.
        """
        pure = PurePosixPath(path)
        parent = "." if str(pure.parent) == "." else self.find(str(pure.parent))
        if parent is None or not pure.name or len(pure.name) > LONGEST_NAME:
            return ""
        names = self._names(self._root / parent)
        if len(same := names.get(_folded(pure.name), [])) > 1:
            return f"{' and '.join(sorted(same)[:2])} differ from it only in how they are written"
        if len(names) > SEARCHED:
            return ""
        near = difflib.get_close_matches(_folded(pure.name), names, n=1, cutoff=0.8)
        return f"the nearest name is {names[near[0]][0]}" if near else ""


def _names_of(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.setdefault(_folded(entry.name), []).append(entry.name)
    except OSError:
        return {}
    return found


def _folded(name: str) -> str:
    """Return `name` without regard to case, Unicode form and percent signs."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", unquote(name)).casefold())
