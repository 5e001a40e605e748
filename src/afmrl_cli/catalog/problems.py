"""What is wrong with a catalog, by row and column: collected, counted, reported once, never lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..listener import Listener

Kind = Literal[
    "no id",
    "made id",
    "duplicate id",
    "empty row",
    "empty product",
    "photos alone",
    "no photo",
    "row too short",
    "row too long",
    "cell too long",
    "unclosed quote",
    "broken row",
    "missing image",
    "image outside",
    "unreadable image",
    "mended image",
    "image url",
    "rows above",
    "unnamed column",
    "late column",
    "binary column",
    "wrong byte",
    "guessed encoding",
    "other sheets",
    "broken xml",
    "row apart",
    "lost digits",
    "shared photo",
    "failed download",
    "nothing to train on",
    "bad settings",
    "placeholder",
    "wrong check digit",
    "guessed column",
    "unread column",
    "folded rows",
    "repeated header",
    "doubled encoding",
    "formula",
    "bad interactions",
    "interactions left out",
]
Severity = Literal["error", "warning"]

WARNINGS: frozenset[Kind] = frozenset(
    {
        "made id",
        "mended image",
        "image url",
        "rows above",
        "unnamed column",
        "late column",
        "binary column",
        "wrong byte",
        "guessed encoding",
        "other sheets",
        "shared photo",
        "nothing to train on",
        "placeholder",
        "wrong check digit",
        "guessed column",
        "unread column",
        "folded rows",
        "repeated header",
        "doubled encoding",
        "interactions left out",
    }
)
"""Kinds that lose nothing which this tool could have used. All others lose a row or a photo."""

MEND: dict[Kind, str] = {
    "no id": "give every row an id, or name the right column in catalog.columns.id",
    "made id": "give listings numbers of their own (SKUs): an id that is made of a title changes with it",
    "duplicate id": "keep one row per id; listings of one product share product_id instead",
    "empty row": "remove the row",
    "empty product": "give it a title, a description or a photo",
    "photos alone": "give it a title or a description, or choose an embedder that reads photos",
    "no photo": "give it a photo, or choose an embedder that reads texts: --set model.vision_checkpoint=",
    "row too short": "check for a missing delimiter or an unquoted line break",
    "row too long": "check for an unquoted delimiter inside a cell",
    "cell too long": "shorten the cell, or close its quote",
    "unclosed quote": 'close the quote; a quote inside a quoted cell is written twice ("")',
    "broken row": "mend the row as the message says",
    "missing image": "check the path: it is relative to the catalog's folder",
    "image outside": "move the photo into the catalog's folder, or set catalog.allow_outside",
    "unreadable image": "replace the photo",
    "mended image": "save the photo again; it is read as far as it goes",
    "image url": "`afmrl fetch-images` fetches linked photos; or put them beside the catalog and name their paths",
    "rows above": "let the column names be the first row",
    "unnamed column": "give the column a name, or remove it",
    "late column": "let the column stand in one of the first rows, or name it in catalog.columns",
    "wrong byte": "save the file as UTF-8 throughout (Excel: CSV UTF-8)",
    "guessed encoding": "save the file as UTF-8 (Excel: CSV UTF-8), or name its encoding in catalog.encoding",
    "other sheets": "put all products into one sheet, the first",
    "broken xml": "let the shop's feed generator escape & and < (&amp; and &lt;) and close its elements",
    "row apart": "sort the export so that rows of one product follow each other, the parent first",
    "lost digits": "format the column as text before Excel saves it: digits beyond the shown ones are gone",
    "shared photo": "leave placeholders and size charts out: they say nothing of the product",
    "failed download": "mend the link, or run `afmrl fetch-images` again when its server answers",
    "nothing to train on": "train-agcl needs listings that share product_id, several photos, or text and photo",
    "bad settings": "mend afmrl.toml: `afmrl attributes` would end with this error",
    "placeholder": "leave the cell empty where there is no value",
    "wrong check digit": "correct the number: its last digit does not follow from the others",
    "guessed column": "name the columns in catalog.columns; `afmrl init` writes them",
    "unread column": "name the column in catalog.columns if products should have it",
    "folded rows": "no need to mend: listings take from these rows what they lack",
    "repeated header": "join exports without their column names",
    "doubled encoding": "export as UTF-8 once: text was read as Windows-1252 and written as UTF-8 again",
    "formula": "save the workbook in Excel, or export values, so that formulas have results",
    "bad interactions": "mend the file as the message says: `afmrl interactions` would end with this error",
    "interactions left out": "`afmrl interactions` shows each reason with the first rows",
    "binary column": "keep photos as files beside the catalog and their paths in a column",
}
"""What to do about each kind, in one line."""

KEEP_PER_KIND = 20
MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `row` is the row as a spreadsheet shows it (1 = header; in JSONL and Parquet 1 = the first
    record), 0 when it is about the whole file; `column` and `listing` (the product's id) are "" when unknown."""

    kind: Kind
    row: int
    message: str
    column: str = ""
    listing: str = ""

    @property
    def severity(self) -> Severity:
        """Return "error" when a row or a photo is lost, else "warning"."""
        return "warning" if self.kind in WARNINGS else "error"

    @property
    def where(self) -> str:
        """Return `row 17, column image (id A-1)`."""
        parts = [f"row {self.row}"] if self.row else []
        parts += [f"column {self.column}"] if self.column else []
        return ", ".join(parts) + (f" (id {clipped(self.listing, 40)})" if self.listing else "")


class Problems:
    """Collects problems in bounded memory: all are counted, the first `keep` of each kind kept.

    `every` is called with each of them.
    """

    def __init__(self, keep: int = KEEP_PER_KIND, every: Callable[[Problem], None] | None = None) -> None:
        self._keep = keep
        self._every = every
        self._counts: Counter[Kind] = Counter()
        self._first: dict[Kind, list[Problem]] = {}

    def add(self, problem: Problem) -> None:
        """Take note of `problem`."""
        self._counts[problem.kind] += 1
        if self._every:
            self._every(problem)
        first = self._first.setdefault(problem.kind, [])
        if len(first) < self._keep:
            first.append(problem)

    def report(self, problem: Problem, policy: Literal["skip", "fail"], file: Path) -> None:
        """Raise `problem` as a DataError when it is an error and the policy is to fail; else take note of it."""
        if policy == "fail" and problem.severity == "error":
            raise DataError(f"{file}: {problem.where}: {problem.kind}: {problem.message}", MEND[problem.kind])
        self.add(problem)

    def join(self, other: Problems) -> None:
        """Take over what another reader of the same catalog found, in another part of it: what both found alike, in
        rows that both read, counts once.
        """
        for kind, count in other.counts.items():
            first = other.first(kind)
            if (count, first) == (self._counts[kind], self.first(kind)):
                continue
            self._counts[kind] += count
            self._first[kind] = [*self._first.get(kind, []), *first][: self._keep]

    @property
    def counts(self) -> dict[Kind, int]:
        """Return how many of each kind, the most frequent first."""
        return dict(self._counts.most_common())

    def first(self, kind: Kind) -> list[Problem]:
        """Return the first problems of a kind, in the catalog's order."""
        return list(self._first.get(kind, []))

    @property
    def errors(self) -> int:
        """Return the number of problems that lose a row or a photo."""
        return sum(count for kind, count in self._counts.items() if kind not in WARNINGS)

    def tell(self, listener: Listener) -> None:
        """Write one summary line per kind to the listener's `warn`."""
        for kind, count in self.counts.items():
            example = self._first[kind][0]
            more = f", and {count - 1:,} more" if count > 1 else ""
            place = f"{example.where}: " if example.where else ""
            listener.warn(f"{kind}: {place}{example.message}{more}; {MEND[kind]}")


def clipped(text: str, chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return `text` on one line and at most `chars` long, for messages."""
    short = " ".join(text[: 2 * chars].split())
    return short if len(short) <= chars and len(text) <= 2 * chars else short[: chars - 1] + "…"
