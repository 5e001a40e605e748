"""Which products the models of an evaluation have seen in training, and the queries that are about none of them.

By default the queries are about products that a trained model never saw: the others tell how well it remembers. It has
seen what it, or a checkpoint that it came from, was trained on or chosen by. That holds for every checkpoint in the
table, and for the generator whose attributes stand on queries or listings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DataError
from ..store.checkpoints import Checkpoints, Role
from ..store.training_products import TrainingProducts
from ..workspace import Workspace
from .task import Query, Task, products_of


@dataclass(frozen=True)
class Seen:
    """What the checkpoints `names` have seen together. `unknown` are those of which it is not known, or not all of it:
    of an earlier version, or from elsewhere.
    """

    products: TrainingProducts = field(default_factory=TrainingProducts)
    names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def describe(self, task: Task) -> dict[str, Any]:
        """Describe it for JSON, with how many of the queries of `task` are about products that were seen."""
        train, validation = self.products.listings
        return {
            "checkpoints": list(self.names),
            "unknown": list(self.unknown),
            "train_listings": train,
            "validation_listings": validation,
            "queries_seen": len(_about_seen(task, self)),
        }


def seen_by(named: Iterable[tuple[Role, str]], checkpoints: Checkpoints) -> Seen:
    """Return what the checkpoints of (role, name or label) have seen; "" for a bare base, which saw none of this
    catalog.

    Raises ModelError as `Checkpoints.find` does.
    """
    seen = Seen()
    for role, name in named:
        if not name:
            continue
        manifest = checkpoints.find(name, role)
        found = manifest.training_products()
        unknown = () if found is not None and found.complete else (manifest.name,)
        seen = Seen(
            seen.products.joined(found or TrainingProducts()),
            tuple(dict.fromkeys([*seen.names, manifest.name])),
            tuple(dict.fromkeys([*seen.unknown, *unknown])),
        )
    return seen


def with_fit(seen: Seen, work: Workspace) -> Seen:
    """Return `seen` with what the embedder `light` was fitted to, where it has been."""
    from ..models.light_fit import FIT, read_fit

    if not (work.folder.light / FIT).is_file():
        return seen
    products = read_fit(work.folder.light).products
    return Seen(seen.products.joined(products), (*seen.names, "light"), seen.unknown)


def unseen(task: Task, seen: Seen) -> Task:
    """Return `task` with the queries that are about products that were never seen. DataError when all were."""
    if not seen.names:
        return task
    there = _about_seen(task, seen)
    names = _and(seen.names)
    notes = [*task.notes, *_unknown(seen)]
    if not there:
        if any(seen.products.listings) and not _in_catalog(task, seen):
            listings = sum(seen.products.listings)
            notes.append(f"of the {listings:,} listings that {names} saw in training, none is here by its id")
        return replace(task, notes=notes)
    kept = not_seen(task, seen)
    if not kept:
        raise DataError(
            f"{names} saw the products of all {len(task.queries):,} queries in training, so nothing tells how well it "
            "finds others",
            "choose products that it has not seen, or take all the same: --split all",
        )
    notes.append(
        f"{len(kept):,} of {len(task.queries):,} queries are used: those about products that {names} never saw in "
        "training (--split all takes the others too)"
    )
    qrels = {query.id: task.qrels[query.id] for query in kept}
    return replace(task, queries=kept, qrels=qrels, notes=notes, split="unseen")


def not_seen(task: Task, seen: Seen) -> list[Query]:
    """Return the queries of `task` that are about products that were never seen."""
    there = _about_seen(task, seen)
    return [query for query in task.queries if query.id not in there]


def noting_seen(task: Task, seen: Seen) -> Task:
    """Return `task`, of a split that the user chose, with a note of how many queries are about products that were
    seen.
    """
    number = len(_about_seen(task, seen))
    notes = [*task.notes, *_unknown(seen)]
    if number:
        notes.append(
            f"{number:,} of {len(task.queries):,} queries are about products that {_and(seen.names)} saw in training: "
            "these metrics say little about new products"
        )
    return replace(task, notes=notes)


def _unknown(seen: Seen) -> list[str]:
    if not seen.unknown:
        return []
    return [
        f"the training products of {_and(seen.unknown)} are not known in full (made by an earlier version, or from "
        "elsewhere): these metrics may hold them"
    ]


def _about_seen(task: Task, seen: Seen) -> set[str]:
    about = products_of(task)

    def known(query: Query) -> bool:
        return any(seen.products.seen(product.id, product.identity) for product in about(query))

    return {query.id for query in task.queries if known(query)} if seen.names else set()


def _in_catalog(task: Task, seen: Seen) -> bool:
    return any(seen.products.seen(each.product.id, each.product.identity) for each in task.documents)


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
