"""Stored attributes as a file: CSV, JSONL or Parquet, one row per product of the catalog as it is now.

The columns are id, attributes (the text), `attr_<key>` for each key, failure, confidence (of each pair, also of those
left out as too low). The prefix is the one by which catalogs mark given attributes, so that an exported column can be
pasted into the catalog, and no key collides with `id`. JSONL has the pairs as one object under `pairs`.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..catalog.product import Product
from ..errors import UsageError
from ..escaping import write_csv
from ..store.database import StoredAttributes
from ..store.files import writing
from ..store.folder import CatalogFolder, check_output
from ..store.written import PARQUET_MARK
from .agreement import read_confidence, write_confidence
from .parse import read_stored
from .task import AttributeTask
from .views import StoredViews

SUFFIXES = (".csv", ".jsonl", ".parquet")
MAX_KEY_COLUMNS = 300
"""Without a schema a model may invent thousands of keys; the rarer ones stay in the text column only."""
ROWS_AT_A_TIME = 5000


@dataclass(frozen=True)
class ExportSummary:
    """What was written: rows, products that have no stored attributes yet, and keys without a column of their own."""

    path: Path
    rows: int
    missing: int
    keys_left_out: int


def check_export_path(path: Path, folder: CatalogFolder) -> bool:
    """Check whether an export to `path` replaces a file.

    Raises UsageError for an unknown suffix, and for a path that is the retailer's or inside the store.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path}: the name must end in {', '.join(SUFFIXES)}", "the suffix chooses the format")
    check_output(path, folder, "--out")
    return path.exists()


def export_attributes(
    products: Iterable[Product], task: AttributeTask, views: StoredViews, path: Path
) -> ExportSummary:
    """Write what is stored for `products` to `path`, atomically; a failure's row has its kind and no attributes."""
    rows = missing = 0
    keys = Counter(dict.fromkeys(task.schema.keys, 0))
    # The columns are known only when every row has been seen, so the rows wait on disk until then.
    with writing(path) as target, tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as spool:
        for product, _, stored in views.stored(products):
            if stored is None:
                missing += 1
                continue
            row = _row(product, stored, task)
            keys.update(row["pairs"].keys())
            spool.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows += 1
        spool.seek(0)
        columns = _columns(keys, list(task.schema.keys))
        _WRITERS[path.suffix.lower()](spool, target, columns)
        jsonl = path.suffix.lower() == ".jsonl"
    return ExportSummary(path, rows, missing, 0 if jsonl else len(keys) - len(columns))


def _row(product: Product, stored: StoredAttributes, task: AttributeTask) -> dict[str, Any]:
    valid = stored.failure is None
    return {
        "id": product.id,
        "attributes": stored.text if valid else "",
        "pairs": read_stored(stored.text) if valid else {},
        "failure": stored.failure or "",
        "confidence": read_confidence(stored),
    }


def _columns(keys: Counter[str], schema: list[str]) -> list[str]:
    """Return the schema's keys in its order, then others, the most frequent first."""
    others = [key for key, _ in sorted(keys.items(), key=lambda pair: (-pair[1], pair[0])) if key not in schema]
    return schema + others[: max(0, MAX_KEY_COLUMNS - len(schema))]


def _cells(line: str, columns: list[str]) -> list[str]:
    row = json.loads(line)
    return [
        row["id"],
        row["attributes"],
        *(row["pairs"].get(key, "") for key in columns),
        row["failure"],
        write_confidence(row["confidence"]),
    ]


def _names(columns: list[str]) -> list[str]:
    return ["id", "attributes", *(f"attr_{key}" for key in columns), "failure", "confidence"]


def _write_jsonl(spool: IO[str], target: Path, columns: list[str]) -> None:
    with target.open("w", encoding="utf-8", newline="\n") as file:
        shutil.copyfileobj(spool, file)


def _write_csv(spool: IO[str], target: Path, columns: list[str]) -> None:
    with target.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, itertools.chain([_names(columns)], (_cells(line, columns) for line in spool)))


def _write_parquet(spool: IO[str], target: Path, columns: list[str]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    names = _names(columns)
    schema = pa.schema([(name, pa.string()) for name in names], metadata={"afmrl": PARQUET_MARK})
    with ParquetWriter(target, schema) as writer:
        while lines := list(itertools.islice(spool, ROWS_AT_A_TIME)):
            rows = [_cells(line, columns) for line in lines]
            writer.write_table(pa.table(list(map(list, zip(*rows, strict=True))), schema=schema))


_WRITERS = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
