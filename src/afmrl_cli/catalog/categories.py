"""Of several categories in one cell the one that says most: the longest path.

Default Category/Men/Tees,Default Category   ->   Men/Tees
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .table import Cell

STEP = re.compile(r" ?(?:>|/|»|→) ?")
BLANKS = re.compile(r"[^\S\n]+")
ROOTS = ("default category", "root catalog", "root", "default")
"""What shops call the trunk that all paths begin with."""


def category_paths(cell: Cell) -> list[str]:
    """Return the categories in a cell, without the shop's trunk; a cell that is no list of paths is one category."""
    parts = [BLANKS.sub(" ", part) for part in ([cell] if isinstance(cell, str) else cell)]
    if len(parts) == 1:
        parts = next((found for mark in ("|", ";", "\n", ",") if (found := _listed(parts[0], mark))), parts)
    return list(dict.fromkeys(path for part in parts if (path := _without_root(part.strip()))))


def deepest(paths: Sequence[str]) -> str:
    """Return the longest of `paths`, the first of equals; lists of plain names stay together."""
    if not any(STEP.search(path) for path in paths):
        return "|".join(paths)
    return max(paths, key=lambda path: len(STEP.findall(path)))


def _listed(text: str, mark: str) -> list[str]:
    """Return `text` split at `mark`, [] when that does not give paths and their beginnings."""
    parts = [part.strip() for part in text.split(mark) if part.strip()]
    roots = {STEP.split(part)[0] for part in parts if STEP.search(part)}
    return parts if len(parts) > 1 and roots and all(STEP.search(part) or part in roots for part in parts) else []


def _without_root(path: str) -> str:
    first, *rest = STEP.split(path, maxsplit=1)
    return (rest[0] if rest else "") if first.casefold() in ROOTS else path
