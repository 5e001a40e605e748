"""Load what `afmrl index export` wrote into LanceDB, and search it: once plain, once filtered.

afmrl index export my-shop --to exported
python lancedb_load.py exported database color=navy
"""

from __future__ import annotations

import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow.dataset as ds


def load(exported: Path, database: Path) -> lancedb.table.Table:
    listings = ds.dataset(exported / "listings.parquet")
    # Batch by batch: a catalog may be larger than the memory.
    return lancedb.connect(database).create_table(
        "listings", listings.to_batches(), schema=listings.schema, mode="overwrite"
    )


def nearest(table: lancedb.table.Table, vector: np.ndarray, tag: str = "", k: int = 10) -> list[dict]:
    query = table.search(vector, vector_column_name="vector").metric("cosine").limit(k)
    if tag:
        query = query.where("array_has(tags, '" + tag.replace("'", "''") + "')", prefilter=True)
    return query.select(["id", "title", "price", "_distance"]).to_list()


def main() -> None:
    exported, database, *tags = sys.argv[1:]
    table = load(Path(exported), Path(database))
    # From some ten thousand rows on: table.create_index(metric="cosine"), and for filters
    # table.create_scalar_index("tags", index_type="LABEL_LIST").
    vector = np.load(Path(exported) / "vectors.npy", mmap_mode="r")[0]
    for tag in ["", *tags]:
        print(f"like the first listing{f', {tag}' * bool(tag)}:")
        for hit in nearest(table, vector, tag):
            print(f"  {1 - hit['_distance']:.3f}  {hit['id']}  {hit['title']}")


if __name__ == "__main__":
    main()
