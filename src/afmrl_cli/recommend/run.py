"""The jobs: files -> stored interactions, read again only when something changed; forgetting a customer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..store.files import hash_file, hash_json
from ..store.source import hash_of
from ..workspace import Workspace
from .customers import Customers, customer_text, forget, kept_customers, shown, unkept_customers
from .interactions import Interactions, Read, interaction_files, no_files, read_interactions
from .split import day_of
from .store import stored_interactions, write_interactions

VERSION = 1
"""Of the way in which interactions are read: another one reads them anew."""
NO_FINGERPRINT = {"split", "validation", "test"}
"""Settings that change nothing of what is read."""


@dataclass(frozen=True)
class Loaded:
    """The interactions, what was counted in reading them, and whether they were stored before."""

    interactions: Interactions
    counted: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class Forgotten:
    """One customer who is left out from now on, by hash: interactions that were stored, and whether the list had the
    customer already."""

    customer: str
    interactions: int
    before: bool


def load_interactions(work: Workspace) -> Loaded:
    """Return the interactions, from the store where nothing has changed. The caller holds the lock. Raises DataError
    where there are none.
    """
    files = interaction_files(work)
    if not files:
        raise no_files(work)
    customers = kept_customers(work.folder)
    fingerprint = _fingerprint(work, files, customers)
    stored = stored_interactions(work.folder, fingerprint, int(time.time()))
    if stored is not None:
        return Loaded(stored.interactions, stored.counted, True)
    read = read_interactions(work, files, customers)
    write_interactions(work.folder, read, fingerprint)
    return Loaded(read.interactions, read.counted, False)


def find_interactions(work: Workspace) -> Loaded | None:
    """Return the stored interactions where nothing has changed, None elsewhere; writes nothing. Raises DataError as
    `interaction_files`.
    """
    files, customers = interaction_files(work), unkept_customers(work.folder)
    stored = stored_interactions(work.folder, _fingerprint(work, files, customers), int(time.time())) if files else None
    return None if stored is None else Loaded(stored.interactions, stored.counted, True)


def check_interactions(work: Workspace) -> Read | None:
    """Read the interactions and store nothing; None where there are no files."""
    files = interaction_files(work)
    return read_interactions(work, files, unkept_customers(work.folder)) if files else None


def _fingerprint(work: Workspace, files: Sequence[Path], customers: Customers) -> str:
    settings = work.settings
    read = [[file.name, hash_file(file)] for file in files]
    catalog = [work.folder.catalog.name, hash_of(work.folder.catalog), settings.catalog.model_dump()]
    return hash_json([VERSION, read, catalog, settings.recommend.model_dump(exclude=NO_FINGERPRINT), customers.id])


def forget_customers(work: Workspace, named: Sequence[str]) -> list[Forgotten]:
    """Remove customers from all that is stored and from all later reads. The caller holds the lock. Raises UsageError
    where one is nobody.
    """
    customers = kept_customers(work.folder)
    texts = [customer_text(name) for name in named]
    if not all(texts):
        raise UsageError("--forget: a customer is empty", "give the number or e-mail address as the files have it")
    stored = stored_interactions(work.folder, None, 0)
    found = []
    for hashed in dict.fromkeys(map(customers.hash_of, texts)):
        place = stored.interactions.place_of(hashed) if stored is not None else -1
        count = int(stored.interactions.lengths[place]) if stored is not None and place >= 0 else 0
        found.append(Forgotten(shown(hashed), count, hashed in customers.forgotten))
    forget(work.folder, map(customers.hash_of, texts))
    return found


def summary_of(interactions: Interactions, counted: dict[str, Any]) -> dict[str, Any]:
    """Count what is there: customers, items, span, lengths of histories, repeats, shares that the catalog knows."""
    lengths = interactions.lengths
    count = len(interactions)
    pairs = interactions.customer.astype(np.int64) * len(interactions.items) + interactions.item
    repeats = count - len(np.unique(pairs))
    return {
        "interactions": count,
        "customers": len(interactions.customers),
        "items": len(interactions.items),
        "first": day_of(interactions.seconds.min()),
        "last": day_of(interactions.seconds.max()),
        "history": {
            "median": float(np.median(lengths)),
            "p90": round(float(np.quantile(lengths, 0.9)), 1),
            "most": int(lengths.max()),
            "of_one": int((lengths == 1).sum()),
        },
        "repeats": repeats,
        "share_of_repeats": round(repeats / count, 4),
        "known_items": round(len(interactions.items) / (len(interactions.items) + counted["items_unknown"]), 4),
        "known_interactions": round(count / (count + counted["interactions_unknown"]), 4),
    }
