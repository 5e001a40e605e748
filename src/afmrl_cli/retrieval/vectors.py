"""The stored vectors of a catalog: where they lie, what they were made from, how they are opened.

.afmrl/embeddings/<embedder>-<plain|enriched>-<instruction>/
    current         the name of the version that counts
    v7/             vectors.npy (float32 [n, d], or fewer bytes: see `narrow`), listings.arrow, manifest.json, and
                    index.faiss unless the index is flat
    pending/        finished chunks of a run that has not ended yet

A vector is made from the product's text and photos, the attribute text with `enrich = both`, the embedder and the
target instruction. The last two are in the folder's name, the others in the vector's key: only products with a new key
are encoded, and a product that left the catalog is gone from the next version. `enrich = none` and `query` share their
vectors, since they differ on the query's side only.

A version is written beside, renamed into place and then named in `current`, one small file replaced at once. A
process that has the old version open goes on reading it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..attributes.views import StoredViews
from ..catalog.problems import Problems
from ..catalog.product import Product
from ..catalog.read import read_products
from ..errors import DataError, ModelError
from ..models.backends import reads_text
from ..settings import BUILT_IN
from ..store.files import FILES, checksum, find_damage, hash_json, read_object
from ..store.folder import CatalogFolder
from ..store.source import state_of
from ..workspace import Workspace
from .index import Index, Kind, load_index
from .listings import Listing, Listings, make_listing
from .narrow import FORMS, Form, Matrix, open_form

SCHEMA = "afmrl.vectors/2"
UNSEALED = "afmrl.vectors/1"
"""As versions before this one wrote it, without checksums."""
LOOKUP_ROWS = 500
OPEN_ATTEMPTS = 5
VERSION = re.compile(r"v[1-9][0-9]{0,8}")
NORM_SLACK = 1e-3
"""By how much the length of a stored vector may differ from 1."""
CHECK_ROWS = 65_536
CURRENT, PENDING, MANIFEST = "current", "pending", "manifest.json"
VECTORS, LISTINGS, INDEX = "vectors.npy", "listings.arrow", "index.faiss"
EMBED_HINT = "run `afmrl embed` with these settings"
FORCE_HINT = "run `afmrl embed --force`"


@dataclass(frozen=True)
class Vectors:
    """The stored vectors of a catalog, opened. `matrix` is [n, d], memory-mapped; its rows are float32 of length 1."""

    folder: Path
    matrix: Matrix
    listings: Listings
    manifest: dict[str, Any]

    @cached_property
    def ids(self) -> list[str]:
        """Return the listings' ids, in the order of the rows."""
        return self.listings.column("id")

    @property
    def form(self) -> Form:
        """Return how the numbers are stored."""
        return form_of(self.manifest)

    @property
    def index_kind(self) -> Kind:
        """Return the kind of the stored index."""
        kind: Kind = self.manifest["index"]["kind"]
        return kind

    def index(self) -> Index:
        """Return the FAISS index, loaded; a flat one has no file, `exact_search` goes through the vectors."""
        index = self.manifest["index"]
        return load_index(self.folder / INDEX, index["kind"], index["effort"], index["recall"], self.matrix)


def vectors_folder(work: Workspace) -> Path:
    """Return the folder for the vectors of this embedder with these settings."""
    embed = work.embed
    side = "enriched" if embed.enrich == "both" else "plain"
    return work.folder.embeddings / f"{work.embedder_id}-{side}-{hash_json(embed.target_instruction)[:8]}"


class RowMaker:
    """Makes the gallery's rows of products as they are shown, whole or narrowed.

    With `enrich = both` the attribute text of that very view is in the row, and in its key.
    """

    def __init__(self, work: Workspace, views: StoredViews) -> None:
        self.views, self.fingerprinter = views, views.fingerprinter
        self._root, self._enriched = work.folder.root, work.settings.embed.enrich == "both"

    def make(self, products: Sequence[Product]) -> list[Listing]:
        """Make the row of each product."""
        contents, prints = self.fingerprinter.of_all(products), self.views.fingerprints(products)
        texts = self.views.texts(prints) if self._enriched else {}
        return [
            make_listing(product, content, shown, texts.get(shown, ""), self._root)
            for product, content, shown in zip(products, contents, prints, strict=True)
        ]


def described_products(work: Workspace, rows: RowMaker, problems: Problems) -> Iterator[tuple[Product, Listing]]:
    """Read the catalog's products, or the shard's, with their rows."""
    products = work.products(problems)
    while batch := list(islice(products, LOOKUP_ROWS)):
        yield from zip(batch, rows.make(batch), strict=True)


def catalog_state(folder: CatalogFolder) -> dict[str, Any]:
    """Return what tells cheaply that the catalog's file has not been touched: its name, size and time."""
    size, changed = state_of(folder.catalog)
    return {"name": folder.catalog.name, "size": size, "mtime_ns": changed}


def open_current(place: Path) -> Vectors | None:
    """Open the version that counts, None when there is none yet. ModelError when it is damaged."""
    pointer = place / CURRENT
    for _ in range(OPEN_ATTEMPTS):
        if not pointer.is_file():
            return None
        named = _named(pointer)
        try:
            return _open_version(place / named)
        except ModelError:
            if _named(pointer) == named:
                raise
            # A writer has moved on between reading the name and opening the files: try again.
    raise ModelError(f"{place}: the stored vectors change faster than they can be opened", "try again")


def _named(pointer: Path) -> str:
    """Return the version that `current` names; ModelError when that is no version's name, such as a path."""
    try:
        name = pointer.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise _damaged(pointer, error) from error
    if not VERSION.fullmatch(name):
        raise _damaged(pointer, "does not name a version")
    return name


def _open_version(folder: Path) -> Vectors:
    try:
        manifest = read_object(folder / MANIFEST)
        _check_manifest(folder, manifest)
        if manifest["schema"] == SCHEMA and (damage := find_damage(manifest, folder)):
            raise _damaged(folder, damage)
        matrix = open_form(folder / VECTORS, form_of(manifest))
    except (OSError, ValueError, DataError) as error:
        raise _damaged(folder, error) from error
    _check_matrix(folder, matrix, manifest)
    listings = Listings(folder / LISTINGS)
    if len(listings) != manifest["count"]:
        raise _damaged(folder, "vectors, listings and manifest don't fit")
    return Vectors(folder, matrix, listings, manifest)


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise ModelError unless the manifest holds what is read of it, by type."""
    index = manifest.get("index")
    fits = (
        manifest.get("schema") in (SCHEMA, UNSEALED)
        and all(type(manifest.get(name)) is int for name in ("count", "dimension", "left_out"))
        and all(isinstance(manifest.get(name), str) for name in ("embedder", "data", "instruction"))
        and isinstance(manifest.get("catalog"), dict)
        and isinstance(index, dict)
        and index.get("kind") in ("flat", "hnsw", "ivf")
        and type(index.get("effort")) is int
        and type(index.get("recall")) in (int, float)
        and manifest.get("vectors", "fp32") in FORMS
        and type(manifest.get("vectors_recall", 1.0)) in (int, float)
        and type(manifest.get("dimensions_recall")) in (int, float, type(None))
    )
    if not fits:
        raise _damaged(folder / MANIFEST, "not a manifest of this afmrl")


def form_of(manifest: dict[str, Any]) -> Form:
    """Return how the vectors of a manifest are stored: earlier ones know only fp32."""
    form: Form = manifest.get("vectors", "fp32")
    return form


def _check_matrix(folder: Path, matrix: Matrix, manifest: dict[str, Any]) -> None:
    """Raise ModelError unless `matrix` is [count, dimension] with rows of length 1, all of them numbers."""
    if matrix.shape != (manifest["count"], manifest["dimension"]):
        wanted = [manifest["count"], manifest["dimension"]]
        raise _damaged(folder / VECTORS, f"{list(matrix.shape)} numbers, not {wanted}")
    for start in range(0, len(matrix), CHECK_ROWS):
        part = matrix[start : start + CHECK_ROWS]
        with np.errstate(over="ignore", invalid="ignore"):
            off = np.abs(np.einsum("ij,ij->i", part, part) - 1)
        if not (worst := float(off.max())) < NORM_SLACK:  # not: NaN is no number at all
            row = start + int(np.argmax(~(off < NORM_SLACK)))
            raise _damaged(folder / VECTORS, f"row {row} is no vector of length 1 (off by {worst:.3g})")


def _damaged(path: Path, reason: object) -> ModelError:
    said = str(reason).splitlines()[0][:200] if str(reason) else type(reason).__name__
    return ModelError(f"{path}: the stored vectors are damaged: {said}", FORCE_HINT)


def load_vectors(work: Workspace) -> Vectors:
    """Open the stored vectors of the embedder that the settings name.

    Raises ModelError, naming both, when there are only vectors of another embedder, of another instruction or way of
    enriching, or none at all.
    """
    folder, embedder_id, place = work.folder, work.embedder_id, vectors_folder(work)
    vectors = open_current(place)
    if vectors is None:
        others = sorted(path.parent.name for path in folder.embeddings.glob(f"*/{CURRENT}"))
        if not others:
            raise ModelError(f"{folder.root}: no vectors yet", "run `afmrl embed`")
        # What a version whose default was the built-in model has left.
        built_in = any(name.startswith(f"{BUILT_IN}-") for name in others) and not place.name.startswith(BUILT_IN)
        hint = f"{EMBED_HINT}, or use those: --set model.preset={BUILT_IN}" if built_in else EMBED_HINT
        raise ModelError(f"the vectors here are of {', '.join(others)}, the settings name {place.name}", hint)
    if vectors.manifest["embedder"] != embedder_id:
        made = vectors.manifest["embedder"]
        raise ModelError(f"{place}: made by {made}, the settings name {embedder_id}", EMBED_HINT)
    return vectors


def content_of(version: Path, manifest: Mapping[str, Any]) -> str:
    """Return what tells the listings and vectors in the folder `version` from others: of the same listings too, other
    weights under the same name make other vectors.
    """
    sums = manifest.get(FILES)
    known = sums.get(VECTORS) if isinstance(sums, dict) else None
    return f"{manifest.get('data')}-{checksum(version / VECTORS) if known is None else known}"


def stale_products(work: Workspace, vectors: Vectors) -> int:
    """Count how many products are new, changed or gone since the vectors were made; photos are compared by path
    only.
    """
    folder, in_words = work.folder, reads_text(work.settings)
    if vectors.manifest["catalog"] == catalog_state(folder):
        return 0
    stored = {row.id: (row.text, row.images, row.fields) for row in vectors.listings}
    stale = bare = 0
    for product in read_products(folder, work.settings.catalog, Problems()):
        row = make_listing(product, "", "", "", folder.root)
        if row.id not in stored and not (row.text and in_words):
            bare += 1
        else:
            stale += stored.pop(row.id, None) != (row.text, row.images, row.fields)
    # As many products without what is read as could not be embedded before are no news.
    return stale + len(stored) + max(0, bare - int(vectors.manifest["left_out"]))
