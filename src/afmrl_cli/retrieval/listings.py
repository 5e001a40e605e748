"""The listings beside their vectors, in an Arrow file that is mapped, not read: a search over a million listings reads
the ten that it shows.

One row a listing, in the order of the vectors: id, key (what its vector was made from), fingerprint (what its stored
attributes go by), attributes (text that went into the vector, "" for none), title, text (product text), images (paths,
relative to the catalog's folder where they lie in it) and fields (JSON; what filters go by).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

from ..catalog.product import Product, product_text
from ..errors import ModelError
from ..store.files import hash_json
from .filters import fields_of

BATCH_ROWS = 2048
_encode = json.JSONEncoder(ensure_ascii=False).encode
COLUMNS = ("id", "key", "fingerprint", "attributes", "title", "text", "images", "fields")


@dataclass(frozen=True, slots=True)
class Listing:
    """What search shows and filters of one product, as it was when it was embedded.

    `fingerprint` is that of what a generator is shown of it: the attribute text is stored under it.
    """

    id: str
    key: str
    fingerprint: str
    attributes: str
    title: str
    text: str
    images: list[str]
    fields: str


def make_listing(product: Product, content: str, fingerprint: str, attributes: str, root: Path) -> Listing:
    """Make the row of `product`; `content` is the fingerprint of all of it, `attributes` the text that goes into its
    vector.
    """
    inside = f"{root}{os.sep}"  # as texts: pathlib takes as long as all the rest
    images = [str(path).removeprefix(inside) for path in product.images]
    fields = _encode(fields_of(product))
    key = vector_key(content, attributes)
    return Listing(product.id, key, fingerprint, attributes, product.title, product_text(product), images, fields)


def vector_key(content: str, attributes: str) -> str:
    """Return what a vector is made from, but for the model and the instruction: SHA-256 (hex)."""
    return hash_json([content, attributes])


def row_bytes(listing: Listing) -> bytes:
    """Return the listing's content in a form that can be hashed."""
    return _encode({name: getattr(listing, name) for name in COLUMNS}).encode("utf-8", "surrogatepass")


class ListingsWriter:
    """Writes rows to a file, a batch at a time; use as a context manager."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        text = pa.string()
        self._schema = pa.schema([(name, pa.list_(text) if name == "images" else text) for name in COLUMNS])
        # Through Python's own file, so that a full disk is an OSError that names itself.
        self._file = file.open("wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self._batch: list[Listing] = []

    def add(self, row: Listing) -> None:
        """Write `row`, sooner or later."""
        self._batch.append(row)
        if len(self._batch) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            self._writer.write_batch(_record_batch(self._batch, self._schema))
            self._batch.clear()

    def __enter__(self) -> ListingsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._file:
            if error is None:
                self._flush()
                self._writer.close()


def _record_batch(rows: Sequence[Listing], schema: Any) -> Any:
    import pyarrow as pa

    columns = [_lists(rows) if name == "images" else _texts([getattr(row, name) for row in rows]) for name in COLUMNS]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _texts(texts: Sequence[str]) -> Any:
    """Make pa.array(texts), which would import pandas to see whether it is given some of it: half a second a
    process.
    """
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    return pa.Array.from_buffers(pa.string(), len(texts), [None, _ends(encoded), pa.py_buffer(b"".join(encoded))])


def _lists(rows: Sequence[Listing]) -> Any:
    import pyarrow as pa

    lists = [row.images for row in rows]
    texts = _texts([text for each in lists for text in each])
    return pa.Array.from_buffers(pa.list_(pa.string()), len(lists), [None, _ends(lists)], children=[texts])


def _ends(parts: Sequence[Sized]) -> Any:
    """Return where each part begins and the last one ends, as Arrow wants it; OverflowError beyond 2 GiB."""
    import numpy as np
    import pyarrow as pa

    return pa.py_buffer(np.array([*accumulate(map(len, parts), initial=0)], dtype=np.int32))


class Listings:
    """The rows of a file that `write_listings` wrote. ModelError when it is missing or damaged."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise ModelError(
                f"{file}: the stored vectors' listings are missing or damaged", "run `afmrl embed --force`"
            ) from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, name: str) -> list[Any]:
        """Return all values of a column, in order."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def row_of(self, id: str) -> int | None:
        """Return the row of the listing with this id, None when there is none."""
        return self._rows.get(id)

    @cached_property
    def _rows(self) -> dict[str, int]:
        # Not by pyarrow.compute, which imports pandas for its argument: that takes longer than all of the search.
        return {id: row for row, id in enumerate(self.column("id"))}

    def listing(self, row: int) -> Listing:
        """Return the listing in a row."""
        return Listing(**self._table.slice(row, 1).to_pylist()[0])

    def fields(self) -> Iterator[dict[str, str]]:
        """Return what filters go by, of all listings in order."""
        for batch in self._table.column("fields").chunks:
            yield from (json.loads(text) for text in batch.to_pylist())

    def __iter__(self) -> Iterator[Listing]:
        for batch in self._table.to_batches(max_chunksize=BATCH_ROWS):
            yield from (Listing(**row) for row in batch.to_pylist())
