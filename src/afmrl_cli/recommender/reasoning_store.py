"""The stored reasoning of a catalog: JSON lines that are only ever appended, a window of answers at a time.

    .afmrl/recommend/reasoning/reasoning.jsonl

A line holds a case's key, a fingerprint of all that it was made from, one result, and a checksum: what was written, how
like the history it is, or how often the judge found the target. A line that a kill cut off, or that is damaged, counts
as not there; of two with the same key and fingerprint the later one stands. All of it says something of single
customers and goes when one is forgotten (`recommend.customers`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..recommend.customers import recommend_folder
from ..store.files import hash_json, make_folder, naming, parse_json
from ..store.folder import CatalogFolder

FOLDER, FILE = "reasoning", "reasoning.jsonl"
TEXT, SIMILARITY, VERDICT = "text", "similarity", "verdict"
SUM = "sum"
Place = tuple[str, str, str]
"""Kind, key and fingerprint."""


@dataclass(frozen=True)
class Written:
    """What the writer said of a case: `flaw` is why it is no reasoning, "" where it is one."""

    text: str
    flaw: str = ""


@dataclass
class ReasoningStore:
    """What is stored, in memory; `damaged` lines were left out."""

    path: Path
    damaged: int = 0
    _results: dict[Place, Any] = field(default_factory=dict)
    _whole: bool = True
    """Whether the file ends with a whole line."""

    def written(self, key: str, fingerprint: str) -> Written | None:
        """Return what was written about a case; None where nothing is stored."""
        found = self._results.get((TEXT, key, fingerprint))
        return found if isinstance(found, Written) else None

    def similarity(self, key: str, fingerprint: str) -> float | None:
        """Return the stored similarity of a case's reasoning to its history."""
        found = self._results.get((SIMILARITY, key, fingerprint))
        return found if isinstance(found, float) else None

    def verdict(self, key: str, fingerprint: str) -> int | None:
        """Return how often the judge has found a case's target."""
        found = self._results.get((VERDICT, key, fingerprint))
        return found if isinstance(found, int) else None

    def add(self, kind: str, results: Iterable[tuple[str, str, Written | float | int]]) -> None:
        """Store (key, fingerprint, result) of one kind; on the disk when this returns. The caller holds the lock."""
        lines = []
        for key, fingerprint, result in results:
            self._results[kind, key, fingerprint] = result
            value = [result.text, result.flaw] if isinstance(result, Written) else result
            line = {"kind": kind, "key": key, "fingerprint": fingerprint, "value": value}
            lines.append(json.dumps({**line, SUM: hash_json(line)[:8]}) + "\n")
        if not lines:
            return
        make_folder(self.path.parent)
        with naming(self.path), self.path.open("a", encoding="ascii", newline="\n") as file:
            file.write(("" if self._whole else "\n") + "".join(lines))
            file.flush()
            os.fsync(file.fileno())
        self._whole = True


def open_reasoning(folder: CatalogFolder) -> ReasoningStore:
    """Read what is stored of a catalog."""
    store = ReasoningStore(recommend_folder(folder) / FOLDER / FILE)
    if not store.path.is_file():
        return store
    with store.path.open("rb") as file:
        for line in file:
            store._whole = line.endswith(b"\n")
            found = _read(line)
            if found is not None:
                store._results[found[0]] = found[1]
            elif line.strip():
                store.damaged += 1
    return store


def _read(line: bytes) -> tuple[Place, Written | float | int] | None:
    """Return what a line holds; None where it is not what was written."""
    try:
        content = parse_json(line)
        checksum = content.pop(SUM)
        place = (content["kind"], content["key"], content["fingerprint"])
        value = content["value"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if checksum != hash_json(content)[:8] or not all(isinstance(part, str) for part in place):
        return None
    match place[0], value:
        case "text", [str(text), str(flaw)]:
            return place, Written(text, flaw)
        case "similarity", float() if math.isfinite(value):
            return place, value
        case "verdict", int():
            return place, value
    return None
