"""Interactions: which customer had to do with which listing, when, and how many. Read from files, nothing is stored.

`Interactions` are what recommending builds on; `read_interactions` makes them of the shop's files.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.bounds import bounded, check_names
from ..catalog.content import Sample
from ..catalog.detect import peeked, raw_table
from ..catalog.problems import Kind, Problem, Problems
from ..catalog.read import read_products, unchanged
from ..errors import DataError, UsageError
from ..settings import CatalogSettings
from ..settings import Columns as CatalogColumns
from ..store.folder import INTERACTIONS, is_called_interactions
from ..workspace import Workspace
from .clean import Cleaned, clean
from .column_names import KNOWN
from .columns import find_columns
from .customers import Customers
from .items import ItemIndex
from .left_out import LeftOut, where
from .private import harmless
from .rows import Columns, Names, Reader
from .times import Clock, zone_of

TELL_EVERY = 10_000
MOST_FILES = 250
SHOWN_MESSAGES: frozenset[Kind] = frozenset(("row too short", "row too long", "cell too long", "unclosed quote"))
"""Problems whose message holds nothing of the row."""


@dataclass(frozen=True)
class Interactions:
    """One row each, sorted by customer, time and item. `customer` and `item` are places in `customers`, keyed hashes,
    and `items`, ids of listings of the catalog; both are sorted. `seconds` are since 1970 (UTC)."""

    customer: NDArray[np.int32]
    item: NDArray[np.int32]
    seconds: NDArray[np.int64]
    quantity: NDArray[np.float32]
    customers: NDArray[np.uint64]
    items: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.customer)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return where each customer's history begins: that of customer c is rows starts[c] to starts[c + 1]."""
        return np.searchsorted(self.customer, np.arange(len(self.customers) + 1))

    def place_of(self, hashed: int) -> int:
        """Return the number of the customer of this hash, -1 where there is none."""
        place = int(np.searchsorted(self.customers, np.uint64(hashed)))
        return place if place < len(self.customers) and int(self.customers[place]) == hashed else -1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Return how long each customer's history is."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Read:
    """The interactions of the files, and everything that was counted on the way."""

    interactions: Interactions
    counted: dict[str, Any]


def interaction_files(work: Workspace) -> list[Path]:
    """Return the files of the settings, or the one that is called interactions; [] where there is none. Raises
    DataError where one is missing, a link that leads out of the folder, or not the only one.
    """
    root = work.folder.root
    if named := work.settings.recommend.interactions:
        files = [root / name for name in named]
        for file in files:
            if not file.is_file():
                raise DataError(f"{file}: no such file", "recommend.interactions or --interactions names it")
        if len(files) > MOST_FILES:
            raise UsageError(f"recommend.interactions: {len(files):,} files", f"join them: at most {MOST_FILES}")
        return files
    found = [
        path
        for path in sorted(root.iterdir())
        if is_called_interactions(path) and path.is_file() and path != work.folder.catalog
    ]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{root}: several files of interactions ({names})", "name those to read: recommend.interactions"
        )
    for path in found:
        if path.resolve().parent != root.resolve():
            raise DataError(f"{path}: is a link that leads to {path.resolve()}", "name that file: --interactions")
    return found


def no_files(work: Workspace) -> DataError:
    """Return the error of a catalog without interactions."""
    hint = f"put {INTERACTIONS}.csv (customer, item, time) beside it, or give an order export: --interactions FILE"
    return DataError(f"{work.folder.root}: no interactions", hint)


def read_interactions(work: Workspace, files: Sequence[Path], customers: Customers) -> Read:
    """Read the files; nothing is stored. Raises DataError where one can't be read, or nothing of them counts."""
    settings = work.settings.recommend
    zone = zone_of(settings.timezone)
    index = ItemIndex.of(read_products(work.folder, work.settings.catalog, Problems()))
    left_out, names, events = LeftOut([file.name for file in files]), Names(index), dict[str, int]()
    parts, about = [], []
    for number, file in enumerate(files):
        clock = Clock(zone)
        columns, summary = _read_file(work, file, number, clock, (customers, names, events, left_out))
        parts.append(columns)
        about.append(summary)
    cleaned = clean(Columns.joined(parts), names, customers, settings.most_events, int(time.time()), left_out)
    if not len(cleaned.columns.row):
        raise _none(files, left_out)
    return Read(_sorted(cleaned.columns, names), _counted(cleaned, names, events, left_out, about))


def _read_file(
    work: Workspace, file: Path, number: int, clock: Clock, shared: tuple[Customers, Names, dict[str, int], LeftOut]
) -> tuple[Columns, dict[str, Any]]:
    """Return (the rows of a file, its summary)."""
    customers, names, events, left_out = shared
    notes: Counter[str] = Counter()

    def report(problem: Problem) -> None:
        """Count a row that the file's reader can't use; its cells are not shown."""
        if problem.severity == "warning":
            notes[problem.kind] += 1
        elif problem.kind == "empty row":
            left_out.add("empty row", number, problem.row)
        else:
            message = f"{problem.kind}: {problem.message}" if problem.kind in SHOWN_MESSAGES else problem.kind
            left_out.add("unreadable row", number, problem.row, message)

    with file.open("rb") as source, unchanged(source, file):
        table = raw_table(source, file, _settings(), report)
        check_names(table.names, file)
        if not table.names:
            raise _none([file], left_out)
        first, table = peeked(bounded(table, file))
        settings = work.settings.recommend
        columns = find_columns(table.names, settings.columns, file, Sample.of(len(table.names), first))
        clock.utc = _all_utc(file, [columns.names[i] for i in columns.roles["time"]])
        reader = Reader(columns, number, clock, customers, names, events, left_out)
        for row in table.rows:
            reader.add(row)
            if reader.rows % TELL_EVERY == 0:
                work.listener.progress(f"reading {file.name}", reader.rows)
    shown = columns.read_as()
    day_first = clock.day_first(settings.day_order, f"{file}: column {', '.join(shown['time'])}")
    summary = {
        "file": file.name,
        "rows": reader.rows,
        "layout": columns.layout,
        "columns": shown,
        "personal_columns": [harmless(name) for name in columns.private],
        "day_order": "" if not clock.ordered else "day-first" if day_first else "month-first",
        "dates_without_time": clock.dates,
        "partly_refunded_orders": len(reader.partly),
        "notes": dict(notes),
    }
    return reader.columns(day_first=day_first), summary


def _settings() -> CatalogSettings:
    """Return the settings by which a table of interactions is opened: by these names its header is found."""
    others = [name for role, known in KNOWN.items() if role != "item" for name in known]
    return CatalogSettings(columns=CatalogColumns(id=list(KNOWN["item"]), title=others))


def _all_utc(file: Path, names: Sequence[str]) -> bool:
    """Tell whether times without a zone are UTC whatever the settings say: as Parquet has them where it knows one."""
    with file.open("rb") as source:
        if source.read(4) != b"PAR1":
            return False
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    kinds = [field.type for field in read_schema(file) if field.name in names]
    return any(pa.types.is_timestamp(kind) and kind.tz is not None for kind in kinds)


def _none(files: Sequence[Path], left_out: LeftOut) -> DataError:
    """Return the error of files of which nothing is left."""
    reasons = []
    for reason, found in list(left_out.document().items())[:3]:
        first = where(found["examples"][0], several=len(files) > 1) if found["examples"] else ""
        reasons.append(f"{found['count']:,} {reason}" + (f" ({first})" if first else ""))
    why = "; ".join(reasons) or "there is no row after the column names"
    hint = (
        "see that items are called as the catalog's ids, SKUs or product numbers" if "not in the catalog" in why else ""
    )
    return DataError(f"{', '.join(map(str, files[:3]))}: no interaction that can be used: {why}", hint)


def _sorted(columns: Columns, names: Names) -> Interactions:
    """Return the interactions numbered and sorted, so that nothing depends on the order of rows."""
    customers, customer = np.unique(columns.customer, return_inverse=True)
    used = np.unique(columns.item)
    items = sorted(names.names[i] for i in used)
    place = {name: number for number, name in enumerate(items)}
    numbers = np.full(len(names.names), -1, dtype=np.int32)
    numbers[used] = [place[names.names[i]] for i in used]
    item = numbers[columns.item]
    order = np.lexsort((columns.quantity, item, columns.seconds, customer))
    return Interactions(
        customer[order].astype(np.int32),
        item[order],
        columns.seconds[order],
        columns.quantity[order],
        customers,
        tuple(items),
    )


def _counted(
    cleaned: Cleaned, names: Names, events: dict[str, int], left_out: LeftOut, about: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what was counted, for the manifest and for people."""
    columns = cleaned.columns
    how = Counter[str]()
    for number, count in zip(*np.unique(columns.item, return_counts=True), strict=True):
        how[names.how[number]] += int(count)
    by_number = {number: name for name, number in events.items()}
    happened = zip(*np.unique(columns.event[columns.event >= 0], return_counts=True), strict=True)
    return {
        "files": about,
        "matched_by": dict(sorted(how.items())),
        "events": {by_number[int(number)]: int(count) for number, count in happened},
        "catalog_listings": names.index.listings,
        "items_unknown": cleaned.unknown,
        "interactions_unknown": left_out.counts.get("not in the catalog", 0),
        "unknown_items": cleaned.most_unknown,
        "most_events": cleaned.most_events,
        "partly_returned": cleaned.reduced,
        "next_future": cleaned.next_future,
        "left_out": left_out.document(),
    }
