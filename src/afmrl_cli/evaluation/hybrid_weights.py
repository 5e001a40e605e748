"""The weights that `afmrl search` uses, chosen when `afmrl embed` has run, by queries about the validation split.

What the catalog offers asks: its judged queries (queries.jsonl), the last photo of products with several, listings of
which others share the product. At most MOST_QUERIES of each, and no more than a SHARE of the catalog, since a model has
to read them; what was read before is in the caches of `eval`. Where nothing can be chosen the defaults stay, and that
is stored, too. The next `embed` looks again only when the split or the judged files have changed, or the columns, or
about one listing in twenty: weights are about an embedder and a kind of catalog, and should not waver from day to day.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from heapq import nsmallest
from pathlib import Path
from typing import Any

from ..attributes.views import open_views
from ..catalog.problems import Problems
from ..catalog.splits import split_of
from ..errors import DataError
from ..listener import Listener, Notes
from ..models.backends import reads_photos
from ..retrieval.hybrid import KINDS, Kind
from ..retrieval.vectors import RowMaker, Vectors, described_products, load_vectors
from ..retrieval.weights import HybridWeights, default_weights, read_weights, write_weights
from ..workspace import Workspace
from .build import TaskSpec, build_task, judged_files
from .hybrid import HybridTask, Judged, tuned_weights
from .protocols import identity_task, offered, photo_task
from .systems import RetrievalSystem, encode_task
from .task import Document, Task, about_split, documents_of, sample, with_query_fields, with_views

MOST_QUERIES, LEAST_QUERIES, SHARE = 200, 40, 0.05
SKETCH, ALIKE = 512, 0.9
"""So many listings stand for all; where a smaller share is the same, weights are chosen again. Of what differs half are
listings as they were, half as they are.
"""


def bring_weights_up_to_date(work: Workspace, *, force: bool = False) -> HybridWeights | None:
    """Choose and store the weights of the settings' embedder, and return them; None where they are as they were. The
    catalog must have been embedded. A server is not asked more than its listings cost, and a vision encoder reads no
    words: they have the defaults.
    """
    if work.settings.embed.endpoint or work.settings.model.vision_checkpoint:
        return None
    vectors = load_vectors(work)
    place, defaults, state = vectors.folder.parent, default_weights(work), _state(work, vectors)
    if not force:
        try:
            if _as_before(read_weights(place, defaults).state, state):
                return None
        except DataError:
            work.listener.note(f"{place}: the weights of hybrid search are damaged, and chosen again")
    found = tuned_weights(_judged(work, vectors), defaults)
    chosen = HybridWeights(
        {**defaults, **{kind: weights for kind, (weights, _) in found.items()}},
        {kind: tuned for kind, (_, tuned) in found.items()},
        state,
    )
    write_weights(place, chosen)
    return chosen


def _state(work: Workspace, vectors: Vectors) -> dict[str, Any]:
    """Return what the weights are chosen from; of the listings those whose keys are the smallest: keys are hashes, so
    that as large a share of these changes as of all (MinHash). Columns are those that most of them have filled.
    """
    some = nsmallest(SKETCH, zip(vectors.listings.column("key"), vectors.listings.column("fields"), strict=True))
    filled = Counter(name for _, fields in some for name in json.loads(fields))
    files = {file.name: _file_state(file) for file in judged_files(work.folder.root, None, None)}
    return {
        "listings": [key[:16] for key, _ in some],
        "columns": sorted(name for name, number in filled.items() if 2 * number > len(some)),
        "split": work.settings.split.model_dump(),
        "judged": {name: state for name, state in files.items() if state},
    }


def _as_before(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether what weights were chosen from is what there is now, but for a few listings."""
    kept = before.get("listings")
    if not isinstance(kept, list) or {**before, "listings": 0} != {**now, "listings": 0}:
        return False
    old, new = set(map(str, kept)), set(now["listings"])
    both = nsmallest(SKETCH, old | new)
    return sum(key in old and key in new for key in both) >= ALIKE * len(both)


def _file_state(file: Path) -> list[int]:
    return [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else []


class _Quiet(Notes):
    """A listener that shows progress alone: `embed` has said what is to be said of texts and photos."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.progress = listener.progress  # type: ignore[method-assign]


def _judged(work: Workspace, vectors: Vectors) -> Iterator[tuple[Kind, Judged]]:
    """Yield the validation queries of all protocols that the catalog offers, as choosing weights reads them."""
    source = work.source_on_disk if work.settings.embed.enrich != "none" else None
    problems = Problems()
    with open_views(work, source) as views:
        rows = RowMaker(work, views)
        documents = documents_of(described_products(work, rows, problems))
        tasks = list(_tasks(work, documents, rows))
        queries = [query.fingerprint for task in tasks for query in task.queries]
        texts = views.texts([*queries, *{d.row.fingerprint for task in tasks for d in task.documents}])
    kinds: set[Kind] = set()
    system = _system(work, vectors, texts)
    work = work.telling(_Quiet(work.listener), work.settings)
    for task in tasks:
        judged = list(HybridTask(task, encode_task(task, system, work, problems), work, texts).judged_all())
        # Judged queries say more of what people ask than listings and photos do: the first protocol counts.
        yield from (each for each in judged if each[0] not in kinds)
        kinds |= {kind for kind in KINDS if sum(own == kind for own, _ in judged) >= LEAST_QUERIES // 2}


def _tasks(work: Workspace, documents: list[Document], rows: RowMaker) -> Iterator[Task]:
    most = max(LEAST_QUERIES, min(MOST_QUERIES, round(SHARE * len(documents))))
    split, seed = work.settings.split, work.settings.eval.seed
    try:
        protocols = offered(documents, *judged_files(work.folder.root, None, None))
    except DataError:
        return
    for protocol in sorted(set(protocols) & {"queries", "photo", "identity"}, reverse=True):
        try:
            if protocol == "queries":
                task = build_task(work, documents, TaskSpec("queries", split="all"), rows)
            elif protocol == "identity":
                task = identity_task(documents, documents)
            else:
                if not reads_photos(work.settings, work.listener):
                    continue
                asking = [d.id for d in documents if len(d.product.images) > 1]
                inside = {d.id for d in documents if split_of(d.product, split) == "validation"}
                task = photo_task(documents, rows, set(sample([id for id in asking if id in inside], most, seed)))
        except DataError:
            continue
        queries = sample(about_split(task, "validation", split), most, seed)
        if queries:
            task = replace(task, queries=queries, qrels={query.id: task.qrels[query.id] for query in queries})
            yield with_views(with_query_fields(task, "all"), rows.views)


def _system(work: Workspace, vectors: Vectors, texts: Mapping[str, str]) -> RetrievalSystem:
    return RetrievalSystem(
        "embedder",
        work.embedder_id,
        work.embedder,
        photos=reads_photos(work.settings, work.listener),
        query_instruction=work.embed.query_instruction,
        target_instruction=work.embed.target_instruction,
        stored=vectors,
        attributes=texts,
    )
