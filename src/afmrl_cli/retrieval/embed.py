"""The incremental job: products -> stored vectors and an index.

One pass over the catalog writes a row per product and encodes the products whose key has no vector yet; finished chunks
go to `pending`. Then the new version is put together from the version before and the chunks (see `vectors`). Killed at
any point, the same command goes on from the chunks; nothing changed, no model is loaded and nothing is written.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attributes.views import AttributeSource, StoredViews, open_views
from ..catalog.problems import MEND, Problem, Problems
from ..catalog.product import Product
from ..catalog.read import count_rows
from ..errors import DataError, ModelError
from ..listener import Listener
from ..models.backends import check_light, kind_of_embedder, reads_photos, reads_text
from ..models.dimensions import Shortened
from ..models.embed_input import Encoder, Item
from ..store.checkpoints import versions
from ..store.files import (
    TEMPORARY_PREFIX,
    make_folder,
    naming,
    remove_leftovers,
    sealed,
    write_json,
    writing,
    writing_folder,
)
from ..store.lock import Taken, writer_lock
from ..store.shards import COLORS as SHARD_COLORS
from ..store.shards import VECTORS as SHARD_VECTORS
from ..store.shards import Group
from ..workspace import Workspace
from .cache import VectorCache, open_matrix
from .colors import bring_colors_up_to_date, usable_colors, wants_colors
from .encode import Input, encode_missing
from .index import build_index, choose_kind, recall_between, save_index
from .lexicon import bring_lexicon_up_to_date
from .listings import Listing, Listings, ListingsWriter, row_bytes
from .narrow import Form, Matrix, is_wider, open_form, unit, write_form
from .vectors import (
    CURRENT,
    INDEX,
    LISTINGS,
    LOOKUP_ROWS,
    MANIFEST,
    PENDING,
    SCHEMA,
    VECTORS,
    RowMaker,
    Vectors,
    catalog_state,
    described_products,
    open_current,
    vectors_folder,
)


@dataclass(frozen=True)
class EmbedSummary:
    """What `embed_catalog` did. `encoded` vectors were computed, the others were there; `left_out` products have
    nothing that the embedder reads, neither text nor a photo (a vision encoder: no photo); `removed` products were
    there before; `changed`: a new version was written. `vectors_recall` is recall@10 of the stored form against fp32,
    `dimensions_recall` of cut vectors against whole ones (None where nothing is cut, or no whole ones were at hand).
    """

    embedder: str
    folder: Path
    products: int
    dimension: int
    encoded: int
    removed: int
    left_out: int
    without_attributes: int
    index: str
    index_recall: float
    vectors: Form
    vectors_recall: float
    dimensions_recall: float | None
    changed: bool
    problems: dict[str, int]
    seconds: float


def embed_catalog(work: Workspace, *, force: bool = False, shards: Group | None = None) -> EmbedSummary:
    """Bring the vectors of the settings' embedder up to date with the catalog.

    The embedder is loaded only when there is something to encode. `force` computes all vectors anew. With `shards` the
    vectors are theirs, and nothing is encoded. Raises DataError when another command is writing, when the catalog can't
    be read, when nothing of it can be embedded, or when a shard lacks a vector; ModelError when products are to be
    enriched by a generator that was never used here.
    """
    started = time.monotonic()
    work = with_fit(work, force=force)
    folder, settings, listener = work.folder, work.settings, work.listener
    source, place = enriching_source(work), vectors_folder(work)
    lock = writer_lock(folder.store, "afmrl embed")
    with lock, open_views(work, source) as views:
        make_folder(place)
        remove_leftovers(place)
        before = None if force else open_current(place)
        dimension = 0 if before is None else before.matrix.shape[1]
        beside = [] if shards is None else [each / SHARD_VECTORS for each in shards.folders]
        pending = VectorCache(place / PENDING, dimension, beside)
        if force:
            pending.prune(0)
        problems = Problems()
        with naming(place), tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=place) as scratch:
            state = catalog_state(folder)
            there, file = len(pending), Path(scratch) / LISTINGS
            seen, empty = encode_products(work, views, pending, before, file, problems, shards)
            encoded = len(pending) - there
            kept = [key for key in seen.keys if key not in empty]
            if not kept:
                raise _nothing_to_embed(folder.catalog, seen.reads)
            facts = {
                "embedder": work.embedder_id,
                "model": settings.model.model_dump(),
                "instruction": work.embed.target_instruction,
                "enriched": settings.embed.enrich == "both",
                "attributes": asdict(source) if source else None,
                "data": seen.digest.hexdigest(),
                "left_out": len(seen.keys) - len(kept),
                "catalog": state,
            }
            if settings.embed.dimensions:
                facts["dimensions_recall"] = _dimensions_recall(work, before, encoded, len(kept))
            sources = _Sources(kept, seen.known, pending, before)
            colored = usable_colors(before) if before is not None else None
            now = _bring_up_to_date(work, place, seen, sources, facts)
            if settings.search.hybrid != "no":
                bring_lexicon_up_to_date(work, now)
            if wants_colors(work):
                made = [] if shards is None else [each / SHARD_COLORS for each in shards.folders]
                bring_colors_up_to_date(work, now, (before, colored) if before and colored else None, made)
    problems.tell(listener)
    views.tell(listener)
    return EmbedSummary(
        embedder=work.embedder_id,
        folder=now.folder,
        products=len(kept),
        dimension=now.matrix.shape[1],
        encoded=encoded,
        removed=len(set(before.ids) - set(now.ids)) if before else 0,
        left_out=len(seen.keys) - len(kept),
        without_attributes=seen.without_attributes if settings.embed.enrich == "both" else 0,
        index=now.manifest["index"]["kind"],
        index_recall=now.manifest["index"]["recall"],
        vectors=now.form,
        vectors_recall=now.manifest.get("vectors_recall", 1.0),
        dimensions_recall=now.manifest.get("dimensions_recall"),
        changed=before is None or now.folder != before.folder,
        problems={str(kind): count for kind, count in problems.counts.items()},
        seconds=time.monotonic() - started,
    )


def with_fit(work: Workspace, *, force: bool = False, together: bool = False) -> Workspace:
    """Fit `light`, if it embeds, to the catalog where it has no fit yet, or anew with `force`; return the workspace
    that knows it. Of processes that start `together`, one fits and the others wait.
    """
    if work.settings.embed.endpoint or kind_of_embedder(work.settings.model, work.listener) != "light":
        return work
    from .light_fit import fit_light, has_fit

    check_light(work.settings.embed, work.settings.model)
    while force or not has_fit(work):
        try:
            with writer_lock(work.folder.store, "afmrl embed", float(together)):
                if force or not has_fit(work):
                    fit_light(work)
            break
        except Taken:
            if not together:
                raise
    return work.with_settings(work.settings)


def enriching_source(work: Workspace) -> AttributeSource | None:
    """Return whose attributes go into the vectors, None where none do. ModelError when they are not at hand."""
    if work.settings.embed.enrich != "both":
        return None
    if (source := work.source_on_disk) is None:
        raise ModelError("embed.enrich = both needs the generator that wrote the attributes", "see the note above")
    return source


def encode_products(
    work: Workspace,
    views: StoredViews,
    cache: VectorCache,
    before: Vectors | None,
    file: Path,
    problems: Problems,
    shards: Group | None = None,
) -> tuple[Seen, set[str]]:
    """Go once through the catalog, or a shard of it: write the products' rows to `file`, and encode into `cache` what
    neither that nor the version `before` has (with `shards` a DataError).

    Returns what was seen, and the keys of products of which nothing can be read.
    """
    settings, listener = work.settings, work.listener
    reads = _Reads(reads_text(settings), reads_photos(settings, listener))
    seen = Seen(file, _usable(before, settings.embed.vectors, listener), reads, problems)

    def load() -> Encoder:
        """Load the embedder, for the product that was seen last."""
        if shards is not None:
            raise shards.lacks(seen.last, "vector")
        return work.embedder()

    described = described_products(work, RowMaker(work, views), problems)
    missing = seen.missing(described, count_rows(work.folder, settings.catalog), listener)
    return seen, encode_missing(work, missing, cache, load, work.embed.target_instruction, problems)


@dataclass(frozen=True)
class _Reads:
    """What the embedder reads of a product."""

    text: bool
    photos: bool


def _nothing_to_embed(catalog: Path, reads: _Reads) -> DataError:
    if not reads.text:
        return DataError(
            f"{catalog}: no product has a readable photo, and the embedder reads nothing else", MEND["no photo"]
        )
    if reads.photos:
        return DataError(f"{catalog}: no product has text or a readable photo", "run `afmrl check`")
    return DataError(f"{catalog}: no product has text, and the embedder reads nothing else", MEND["photos alone"])


class Seen:
    """What one pass over the catalog finds: the rows, written to `file`, and which keys have no vector yet. Where the
    embedder reads texts alone, or photos alone, products without any are `problems`.
    """

    def __init__(self, file: Path, known: dict[str, int], reads: _Reads, problems: Problems) -> None:
        self.file = file
        self.known = known
        self.reads, self._problems = reads, problems
        self.keys: list[str] = []
        self.digest = hashlib.sha256()
        self.without_attributes = 0
        self.last = ""
        """The id of the last product that had no vector."""

    def missing(self, described: Iterator[tuple[Product, Listing]], total: int, listener: Listener) -> Iterator[Input]:
        """Yield the products that have to be encoded; the pass is over when this iterator is."""
        with ListingsWriter(self.file) as writer:
            for product, row in described:
                writer.add(row)
                self.digest.update(row_bytes(row))
                self.keys.append(row.key)
                self.without_attributes += not row.attributes
                if row.key not in self.known:
                    self.last = product.id
                    yield self._input(product, row)
                if len(self.keys) % LOOKUP_ROWS == 0:
                    listener.progress("products", len(self.keys), total)

    def _input(self, product: Product, row: Listing) -> Input:
        images = product.images if self.reads.photos else ()
        text, attributes = (row.text, row.attributes) if self.reads.text else ("", "")
        if product.images and not (images or text or attributes):
            said = "it has photos alone, and the embedder reads texts"
            self._problems.add(Problem("photos alone", product.row, said, listing=product.id))
        if not (images or self.reads.text):
            said = "it has none, and the vision encoder reads nothing else"
            self._problems.add(Problem("no photo", product.row, said, listing=product.id))
        return Input(row.key, Item(text, images, attributes), product.id, product.row)


def _usable(before: Vectors | None, form: Form, listener: Listener) -> dict[str, int]:
    """Return the rows by key whose stored vectors need not be computed again: none where more is wanted than they
    hold.
    """
    if before is None:
        return {}
    if is_wider(form, before.form):
        listener.note(f"the vectors are stored as {before.form}, which holds less than {form}: computed again")
        return {}
    return {key: row for row, key in enumerate(before.listings.column("key"))}


@dataclass(frozen=True)
class _Sources:
    """Where the vectors of the keys `kept` come from: rows of the version before, or the chunks of this run."""

    kept: list[str]
    known: dict[str, int]
    pending: VectorCache
    before: Vectors | None

    def vector(self, key: str) -> NDArray[np.float32]:
        """Return the vector [d] of one of `kept`."""
        if self.before is not None and key in self.known:
            return self.before.matrix[self.known[key]]
        return self.pending.get(key)

    def write(self, file: Path) -> None:
        """Write the vectors of `kept` as fp32, one after the other: a full disk is an OSError here, and a crash in a
        memory map.
        """
        with file.open("wb") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(self.kept), len(self.vector(self.kept[0])))}
            np.lib.format.write_array_header_1_0(out, header)
            for key in self.kept:
                out.write(np.ascontiguousarray(self.vector(key), dtype="<f4").tobytes())

    def recall_before(self, form: Form) -> float | None:
        """Return the recall of the version before where most of `kept` exist in no wider form any more."""
        if self.before is None or self.before.form != form:
            return None
        again = sum(key in self.known for key in self.kept)
        recall: float | None = self.before.manifest.get("vectors_recall")
        return recall if 2 * again > len(self.kept) else None


def _bring_up_to_date(
    work: Workspace,
    place: Path,
    seen: Seen,
    sources: _Sources,
    facts: dict[str, Any],
) -> Vectors:
    """Return the version that holds what is kept: the one before when nothing has changed, else a new one, made
    current.
    """
    kept, before, form = sources.kept, sources.before, work.settings.embed.vectors
    dimension = len(sources.vector(kept[0]))
    kind = choose_kind(work.settings.embed.index, len(kept), dimension, work.settings.embed.flat_limit)
    same = before is not None and before.manifest["data"] == facts["data"] and before.form == form
    if before is not None and same and before.manifest["index"]["kind"] == kind:
        if before.manifest["catalog"] != facts["catalog"]:
            # Rewritten with the same content: remember its new time, so that search need not compare row by row.
            manifest = {**before.manifest, "catalog": facts["catalog"]}
            write_json(before.folder / MANIFEST, sealed(manifest, before.folder))
        return before
    name = _next_version(place)
    with writing_folder(place / name) as folder:
        _copy_kept(seen, set(kept), folder / LISTINGS)
        matrix, form_recall = _write_vectors(folder / VECTORS, sources, form, seen.file.parent)
        if form != "fp32":
            work.listener.note(f"{form} vectors: recall@10 {form_recall:.3f} against fp32 on a sample")
            facts = {**facts, "vectors": form, "vectors_recall": form_recall}
        effort, recall = 0, 1.0  # flat: the vectors themselves are what is searched
        if kind != "flat":
            work.listener.note(f"building the {kind} index over {len(kept):,} vectors")
            index = build_index(matrix, kind)
            effort, recall = index.effort, index.recall
            work.listener.note(f"{kind} index: recall@10 {recall:.3f} against exact search on a sample")
            save_index(index, folder / INDEX)
        manifest = {
            "schema": SCHEMA,
            **facts,
            "count": len(kept),
            "dimension": matrix.shape[1],
            "index": {"kind": kind, "effort": effort, "recall": recall},
            "versions": versions(),
            "created": time.time(),
        }
        write_json(folder / MANIFEST, sealed(manifest, folder))
    with writing(place / CURRENT) as temporary:
        temporary.write_text(name + "\n", "utf-8")
    for old in place.glob("v*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)
    sources.pending.prune(0)
    now = open_current(place)
    assert now is not None
    return now


def _dimensions_recall(work: Workspace, before: Vectors | None, encoded: int, count: int) -> float | None:
    """Return recall@10 of the cut vectors against the whole ones, among a sample of those that were encoded now; the
    figure of the version before where most of `count` are from it. None where no whole ones were at hand.
    """
    earlier: float | None = before.manifest.get("dimensions_recall") if before else None
    if earlier is not None and 2 * encoded < count:
        return earlier
    encoder = work.embedder() if encoded else None
    if not isinstance(encoder, Shortened):
        return None
    whole, first = encoder.sample, work.settings.embed.dimensions
    recall = recall_between(unit(whole[:, :first]), whole)
    kept = f"recall@10 {recall:.3f} against all {whole.shape[1]}, among {len(whole):,} products"
    work.listener.note(f"the first {first} numbers of a vector: {kept}")
    return recall


def _next_version(place: Path) -> str:
    numbers = [int(path.name[1:]) for path in place.glob("v*") if path.name[1:].isdecimal()]
    return f"v{max(numbers, default=0) + 1}"


def _copy_kept(seen: Seen, kept: set[str], file: Path) -> None:
    if kept.issuperset(seen.keys):
        shutil.move(seen.file, file)
        return
    with ListingsWriter(file) as writer:
        for row in Listings(seen.file):
            if row.key in kept:
                writer.add(row)


def _write_vectors(file: Path, sources: _Sources, form: Form, scratch: Path) -> tuple[Matrix, float]:
    """Write the vectors in their form and return them, opened, with recall@10 against fp32."""
    if form == "fp32":
        sources.write(file)
        return open_form(file, form), 1.0
    whole = scratch / VECTORS
    sources.write(whole)
    exact = open_matrix(whole)
    write_form(exact, form, file)
    stored, recall = open_form(file, form), sources.recall_before(form)
    return stored, recall_between(stored, exact) if recall is None else recall
