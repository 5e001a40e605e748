"""What people have said of pairs of listings: the same product, or not. Read from the files that they filled in.

A file is a table with the columns `id`, `other_id` and `verdict`, such as the one that `afmrl dedupe --out` writes;
other columns are ignored, and rows without a verdict too. Same: same, yes, confirmed, duplicate, true, 1. Different:
different, no, rejected, false, 0.

What was confirmed holds along chains (a = b, b = c, so a = c): it is a person's word about identity, not a similarity.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import DataError, UsageError
from ..escaping import from_spreadsheet_cell
from ..settings import Settings
from ..store.folder import CatalogFolder, check_output

SAME = {"same", "yes", "y", "confirmed", "duplicate", "true", "1", "x"}
DIFFERENT = {"different", "no", "n", "rejected", "not a duplicate", "false", "0"}
COLUMNS = ("id", "other_id", "verdict")
Pair = tuple[str, str]
Name = TypeVar("Name", str, int)


@dataclass(frozen=True)
class Verdicts:
    """Confirmed and rejected pairs of listings' ids, the lower id first, with where each was read."""

    confirmed: Mapping[Pair, str]
    rejected: Mapping[Pair, str]

    def __bool__(self) -> bool:
        return bool(self.confirmed or self.rejected)

    def identities(self, identity_of: Mapping[str, str]) -> dict[str, str]:
        """Return `identity_of` (listing -> identity) with the identities of confirmed pairs made one: the first by
        name.

        Listings that are not in `identity_of` join nothing.
        """
        joined = join((identity_of[a], identity_of[b]) for a, b in self.confirmed if {a, b} <= identity_of.keys())
        return {listing: joined.get(identity, identity) for listing, identity in identity_of.items()}

    def rejected_of(self) -> dict[str, frozenset[str]]:
        """Map each listing to those that a person called another product, both ways."""
        found: dict[str, set[str]] = {}
        for a, b in self.rejected:
            found.setdefault(a, set()).add(b)
            found.setdefault(b, set()).add(a)
        return {listing: frozenset(others) for listing, others in found.items()}


def check_review_files(
    folder: CatalogFolder,
    files: Iterable[tuple[Path | None, str, tuple[str, ...]]],
    read: Iterable[str],
    columns: tuple[str, ...] = COLUMNS,
) -> None:
    """Raise UsageError when a file of results would replace the retailer's file, a folder, or verdicts that were filled
    in. `files` are (path, flag, suffixes that it may have), `read` the files of verdicts, `columns` those of a table.
    """
    sources = [folder.root / name for name in read]
    for path, flag, suffixes in files:
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"{flag} {path}: the name must end in {' or '.join(suffixes)}", "it says what is written")
        if path.is_file() and _has_verdicts(path, columns):
            raise UsageError(
                f"{flag} {path}: verdicts were filled in there, and would be lost",
                f"read them with --verdicts {path}, and give {flag} another name",
            )
        check_output(path, folder, flag, sources)


def _has_verdicts(file: Path, columns: tuple[str, ...]) -> bool:
    try:
        return any(row["verdict"] for _, row in read_rows(file, columns))
    except DataError:
        return False  # no table of verdicts


def pair_of(a: str, b: str) -> Pair:
    """Return two ids in the order by which a pair is known."""
    return (a, b) if a < b else (b, a)


def read_verdicts(settings: Settings, root: Path) -> Verdicts:
    """Return the verdicts in the files of `dedupe.verdicts`, relative to `root`, the catalog's folder; no files, no
    verdicts.

    Raises DataError, naming file and row, for what can't be read and for verdicts that contradict each other.
    """
    confirmed: dict[Pair, str] = {}
    rejected: dict[Pair, str] = {}
    for name in settings.dedupe.verdicts:
        for pair, same, where in _read(root / name):
            said, other = (confirmed, rejected) if same else (rejected, confirmed)
            if pair in other:
                raise _contradiction(pair, said_here=where, same=same, there=other[pair])
            said.setdefault(pair, where)
    joined = join(confirmed)
    for pair, where in rejected.items():
        a, b = (joined.get(id, id) for id in pair)
        if a == b:
            raise DataError(
                f"{where}: {pair[0]} and {pair[1]} are different, but confirmed pairs join them",
                "take back one of the confirmed pairs between them, or this verdict",
            )
    return Verdicts(confirmed, rejected)


def _contradiction(pair: Pair, *, said_here: str, same: bool, there: str) -> DataError:
    words = ("the same", "different") if same else ("different", "the same")
    return DataError(
        f"{said_here}: {pair[0]} and {pair[1]} are {words[0]} here and {words[1]} in {there}", "take one of them back"
    )


def _read(file: Path) -> Iterator[tuple[Pair, bool, str]]:
    for where, row in read_rows(file):
        said = row["verdict"].lower()
        if not said:
            continue
        if said not in SAME | DIFFERENT:
            raise DataError(
                f"{where}: verdict {said[:40]!r} is not known", "write same or different, or leave it empty"
            )
        a, b = row["id"], row["other_id"]
        if not a or not b:
            raise DataError(f"{where}: a verdict without both ids", "fill in id and other_id")
        if a == b:
            raise DataError(f"{where}: {a} is paired with itself", "remove the row")
        yield pair_of(a, b), said in SAME, where


def read_rows(
    file: Path, columns: Sequence[str] = COLUMNS, setting: str = "dedupe.verdicts"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where it stands, its `columns`: by default `id`, `other_id` and `verdict`) of each row. DataError, whose
    hint names `setting`, when it is no such table.
    """
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file", f"{setting} or --verdicts names it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text", "save it as CSV in UTF-8") from error
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in columns if name not in names]:
            raise DataError(f"{file}: no column {missing[0]}", f"the columns {', '.join(columns)} are needed")
        places = {name: names.index(name) for name in columns}
        for cells in reader:
            row = {
                name: from_spreadsheet_cell(cells[at].strip()) if at < len(cells) else "" for name, at in places.items()
            }
            yield f"{file}: row {reader.line_num}", row
    except csv.Error as error:
        raise DataError(f"{file}: row {reader.line_num}: {error}", "save it as CSV again") from error


def join(pairs: Iterable[tuple[Name, Name]]) -> dict[Name, Name]:
    """Map each name that occurs to the first by order of all that hang together with it by chains of pairs."""
    parent: dict[Name, Name] = {}

    def root(name: Name) -> Name:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {name: root(name) for name in list(parent)}
