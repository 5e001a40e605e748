"""What a worker of an engine does: shards of one command, one after the other, its models loaded once.

A shard is what `--shard i/n` makes of it: the same files under the same locks, so that a worker or an engine that dies
loses no more than a process with `--shard` does, and `afmrl merge` joins what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..attributes.generate import AttributeSummary, Selection, generate_attributes, sample_products
from ..attributes.shards import in_shard
from ..attributes.views import QUERIES, ListingViews, StoredViews, open_views
from ..catalog.problems import Problems
from ..errors import DataError
from ..retrieval.embed_shard import ShardSummary, embed_shard
from ..settings import Settings
from ..store.folder import CatalogFolder
from ..store.lock import Taken
from ..store.shards import Shard
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..attributes.request import Generator
    from ..catalog.product import Product
    from ..models.embed_input import Encoder

WAIT_SECONDS = 60.0
"""For the lock of a worker that was killed and has not quite ended."""


@dataclass(frozen=True)
class Job:
    """One command about one catalog, for all of its workers."""

    command: Literal["attributes", "embed"]
    folder: CatalogFolder
    settings: Settings
    selection: Selection = field(default_factory=Selection)
    """Of attributes: what is generated for."""


@dataclass(frozen=True)
class AttributeShard:
    """What `attributes` did of a shard, and what was wrong with its products."""

    products: int
    summary: AttributeSummary
    problems: Problems


Outcome = AttributeShard | ShardSummary


@dataclass
class KeptWorkspace(Workspace):
    """A workspace whose models stay loaded in all workspaces that are made of it; each is `prepared` once."""

    prepared: Callable[[Any], None] = field(default=lambda model: None, kw_only=True)
    kept: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def embedder(self) -> Encoder:
        """Return the embedder, loaded at the first call."""
        encoder: Encoder = self._once("embedder", super().embedder)
        return encoder

    def generator(self) -> Generator:
        """Return the generator, loaded at the first call."""
        generator: Generator = self._once("generator", super().generator)
        return generator

    def _once(self, role: str, load: Callable[[], object]) -> Any:
        if role not in self.kept:
            self.kept[role] = load()
            self.prepared(self.kept[role])
        return self.kept[role]


def do_shard(work: Workspace, job: Job, shard: Shard) -> Outcome:
    """Do the job's work of `shard`. Raises as that command with --shard does, and DataError where the catalog is not to
    be seen.
    """
    if not work.folder.catalog.exists():
        hint = "the folder must lie under the same path, on a disk that all machines share"
        raise DataError(f"{work.folder.catalog}: a worker does not see it", hint)
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if job.command == "embed":
                return embed_shard(work, shard)
            return _attribute_shard(work, job.selection, shard)
        except Taken:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def _attribute_shard(work: Workspace, selection: Selection, shard: Shard) -> AttributeShard:
    problems = Problems()
    with in_shard(work, shard) as part, open_views(part, part.source) as stored:
        views = described_views(part, problems, stored)
        summary = generate_attributes(part, views, stored, problems, selection)
    return AttributeShard(views.products, summary, problems)


def chosen_products(work: Workspace, problems: Problems, sample: int | None) -> Iterable[Product]:
    """Read the catalog's products, or the shard's, or the `sample` of them."""
    products = work.products(problems)
    return sample_products(products, sample, work.settings.attributes.seed) if sample else products


def described_views(
    work: Workspace, problems: Problems, stored: StoredViews, sample: int | None = None
) -> ListingViews:
    """Choose what is described of the products (or a `sample` of them, or the shard's), and of the evaluation's
    queries: `attributes.views`.
    """
    names, queries = work.settings.attributes.views, list["Product"]()
    if any(name.split(":")[0] == QUERIES for name in names):
        if sample:
            work.listener.note(f"--sample takes products alone: the {QUERIES} are left out")
        else:
            from ..evaluation.report import query_views

            queries = [view for view in query_views(work, names) if work.shard is None or work.shard.takes(view.id)]
    return ListingViews(chosen_products(work, problems, sample), names, stored.fingerprinter, queries)
