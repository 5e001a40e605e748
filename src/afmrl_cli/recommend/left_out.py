"""What of the interactions was left out, by reason, counted, with the first rows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXAMPLES = 3


@dataclass
class LeftOut:
    """Counts by reason. `files` are the names that examples name."""

    files: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)

    def add(self, reason: str, file: int, row: int, message: str = "") -> None:
        """Count one row of file number `file`; row 0 is none in particular."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        first = self.examples.setdefault(reason, [])
        if len(first) < EXAMPLES:
            first.append((file, row, message))

    def add_rows(
        self, reason: str, file: NDArray[np.uint8], row: NDArray[np.int64], messages: Sequence[str] = ()
    ) -> None:
        """Count the rows whose file and number are given; `messages` are those of the first."""
        if not len(row):
            return
        self.counts[reason] = self.counts.get(reason, 0) + len(row)
        first = self.examples.setdefault(reason, [])
        order = np.lexsort((row, file))[:EXAMPLES]
        for place, at in enumerate(order):
            if len(first) < EXAMPLES:
                message = messages[place] if place < len(messages) else ""
                first.append((int(file[at]), int(row[at]), message))

    def document(self) -> dict[str, dict[str, Any]]:
        """Return the counts, the largest first, with their examples."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            reason: {"count": count, "examples": [self._example(*each) for each in self.examples[reason]]}
            for reason, count in ordered
        }

    def _example(self, file: int, row: int, message: str) -> dict[str, Any]:
        return {"file": self.files[file], "row": row, "message": message}


def where(example: Mapping[str, Any], *, several: bool) -> str:
    """Return an example as `row 17: message`, with its file where there are `several`."""
    place = f"row {example['row']:,}" if example["row"] else ""
    place = f"{example['file']} {place}".strip() if several else place
    return ": ".join(filter(None, (place, example["message"])))
