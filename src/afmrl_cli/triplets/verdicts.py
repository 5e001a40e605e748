"""What people have said of triplets: right or wrong. Read from the files that they filled in (`triplets.verdicts`).

A file is a table with the columns `reference_id`, `target_id` and `verdict`, such as `afmrl triplets --out FILE.csv`
writes; other columns are ignored, and rows without a verdict too. The words are those of `dedupe`'s verdicts, and right
and wrong. What was rejected is never made again; what was confirmed is kept, whatever the caps say.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..catalog.verdicts import DIFFERENT, SAME, read_rows
from ..errors import DataError
from ..workspace import Workspace

COLUMNS = ("reference_id", "target_id", "verdict")
RIGHT, WRONG = SAME | {"right", "good", "ok", "keep"}, DIFFERENT | {"wrong", "bad", "drop"}
CONFIRMED = "confirmed"


@dataclass(frozen=True)
class Verdicts:
    """Confirmed and rejected triplets as (reference's id, target's id)."""

    confirmed: frozenset[tuple[str, str]]
    rejected: frozenset[tuple[str, str]]


def read_verdicts(work: Workspace) -> Verdicts:
    """Read the verdicts. Raises DataError, naming file and row, for what can't be read or contradicts another row."""
    found: dict[tuple[str, str], tuple[bool, str]] = {}
    for name in work.settings.triplets.verdicts:
        for where, row in read_rows(work.folder.root / name, COLUMNS, "triplets.verdicts"):
            word = row["verdict"].lower()
            if not word:
                continue
            if word not in RIGHT | WRONG:
                raise DataError(f"{where}: verdict {word[:40]!r} is not known", "write yes or no, or leave it empty")
            pair = row["reference_id"], row["target_id"]
            if not all(pair):
                raise DataError(f"{where}: a verdict without both ids", "fill in reference_id and target_id")
            right, before = found.setdefault(pair, (word in RIGHT, where))
            if right != (word in RIGHT):
                message = f"{where}: {pair[0]} to {pair[1]} has another verdict in {before}"
                raise DataError(message, "take one of them back")
    confirmed = frozenset(pair for pair, (right, _) in found.items() if right)
    return Verdicts(confirmed, frozenset(found) - confirmed)
