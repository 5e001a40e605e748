"""Stored vectors and listings as files that other engines load: NumPy and Parquet.

    <folder>/vectors.npy         float32 [n, d], rows of length 1
    <folder>/listings.parquet    a row for each of them, in the same order, the vector included
    <folder>/index.json          what it was made from

Columns: id, title, text, brand, category, price (number), attributes (text), fields (JSON of the shop's own columns),
tags (what filters go by: "color=navy"), images (paths in the catalog's folder), vector (list of d float32).
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog.amounts import read_price
from ..errors import UsageError
from ..retrieval.filters import PRICES
from ..retrieval.hits import first_filled
from ..retrieval.lexicon import attribute_texts
from ..retrieval.listings import Listing
from ..retrieval.vectors import Vectors, load_vectors
from ..store.files import TEMPORARY_PREFIX, make_folder, naming, read_object, write_json, writing_folder
from ..store.folder import STORE_NAME
from ..workspace import Workspace
from .points import cells_of, tags_of

SCHEMA = "afmrl.export/1"
MARK, VECTORS, LISTINGS = "index.json", "vectors.npy", "listings.parquet"
ROWS = 8192
TEXTS = ("id", "title", "text", "brand", "category", "attributes", "fields")


@dataclass(frozen=True)
class ExportSummary:
    """What `export_index` wrote."""

    folder: Path
    embedder: str
    products: int
    dimension: int
    bytes: int
    seconds: float


def export_index(work: Workspace, folder: Path) -> ExportSummary:
    """Write the stored vectors of the settings' embedder, and their listings, into `folder`, beside and renamed; an
    earlier export there is replaced. ModelError without vectors, UsageError for a folder that holds anything else.
    """
    started, folder = time.monotonic(), folder.absolute()
    before = folder.with_name(f"{TEMPORARY_PREFIX}before-{folder.name}")
    if not folder.exists() and (before / MARK).is_file():
        before.replace(folder)  # a run before was killed between both renames below
    _check_folder(folder, work.folder.root)
    vectors = load_vectors(work)
    count, dimension = vectors.matrix.shape
    make_folder(folder.parent)
    with (
        naming(folder),
        tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}{folder.name}-", dir=folder.parent) as scratch,
    ):
        made = Path(scratch) / folder.name  # not `folder` itself: onto one that is there nothing can be renamed
        with writing_folder(made) as beside:
            _write(work, vectors, beside)
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.replace(before)
        made.replace(folder)
        shutil.rmtree(before, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return ExportSummary(folder, work.embedder_id, count, dimension, size, time.monotonic() - started)


def _write(work: Workspace, vectors: Vectors, folder: Path) -> None:
    """Write the three files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, dimension = vectors.matrix.shape
    text, texts = pa.string(), pa.list_(pa.string())
    columns = [(name, text) for name in TEXTS] + [("price", pa.float64()), ("tags", texts), ("images", texts)]
    schema = pa.schema([*columns, ("vector", pa.list_(pa.float32(), dimension))])
    with (folder / VECTORS).open("wb") as out, pq.ParquetWriter(folder / LISTINGS, schema) as table:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
        np.lib.format.write_array_header_1_0(out, header)
        rows = zip(vectors.listings, attribute_texts(work, vectors), strict=True)
        for start in range(0, count, ROWS):
            part = np.ascontiguousarray(vectors.matrix[start : start + ROWS], dtype="<f4")
            out.write(part.tobytes())
            described = [_row(*each) for each in islice(rows, ROWS)]
            arrays = [pa.array([row[name] for row in described], kind) for name, kind in columns]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dimension))
            table.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            work.listener.progress("products", min(start + ROWS, count), count)
    facts = {"embedder": work.embedder_id, "products": count, "dimension": dimension}
    write_json(folder / MARK, {"schema": SCHEMA, **facts, "data": vectors.manifest["data"]})


def _check_folder(folder: Path, root: Path) -> None:
    resolved, hint = folder.resolve(), "give a folder of its own"
    if resolved in (root.resolve(), *root.resolve().parents) or root.resolve() / STORE_NAME in resolved.parents:
        raise UsageError(f"--to {folder}: belongs to the catalog", hint)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"--to {folder}: is no folder", hint)
    if folder.is_dir() and any(folder.iterdir()):
        mark = folder / MARK
        if not mark.is_file() or read_object(mark).get("schema") != SCHEMA:
            raise UsageError(f"--to {folder}: holds other files", hint)


def _row(listing: Listing, attributes: str) -> dict[str, Any]:
    fields: dict[str, str] = json.loads(listing.fields)
    price = read_price(first_filled(fields, PRICES))
    return {
        "id": listing.id,
        "title": listing.title,
        "text": listing.text,
        "brand": fields.get("brand", ""),
        "category": fields.get("category", ""),
        "attributes": attributes,
        "fields": listing.fields,
        "price": None if math.isnan(price) else price,
        "tags": tags_of(cells_of(fields, attributes)),
        "images": listing.images,
    }
