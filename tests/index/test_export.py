"""`afmrl index export`, and what LanceDB makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from afmrl_cli.retrieval.vectors import load_vectors
from tests.cli.calls import document

from .conftest import work_of
from .test_folder import refused
from .test_push import edit, found

EXAMPLE = Path(__file__).parents[2] / "examples" / "lancedb_load.py"


def test_the_files_hold_vectors_and_listings_in_the_same_order(shop: Path, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    content = document("index", "export", "--to", str(to))
    assert (content["schema"], content["products"]) == ("afmrl.index-export/1", 24)
    assert content["bytes"] == sum(path.stat().st_size for path in to.iterdir())
    stored, vectors = load_vectors(work_of(shop)), np.load(to / "vectors.npy")
    assert vectors.dtype == np.float32 and np.array_equal(vectors, np.asarray(stored.matrix))
    table = pq.read_table(to / "listings.parquet")
    assert table.column("id").to_pylist() == stored.ids
    assert np.array_equal(np.array(table.column("vector").to_pylist(), dtype=np.float32), vectors)
    rows = table.to_pylist()
    assert rows[1]["price"] == 11.9 and rows[0]["price"] == 10.0
    assert {"color=red", "color=navy", "color=red|navy", "material=cotton", "brand=luma"} <= set(rows[0]["tags"])
    assert rows[0]["images"] == ["images/0.png", "images/0b.png"]
    assert json.loads(rows[3]["fields"])["product_id"] == "p1"


def test_an_earlier_export_is_replaced_and_other_files_are_not(shop: Path, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    document("index", "export", "--to", str(to))
    edit(shop, lambda rows: rows[4:])
    assert document("index", "export", "--to", str(to))["products"] == 20
    assert sorted(path.name for path in to.iterdir()) == ["index.json", "listings.parquet", "vectors.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "shop"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.json").write_text('{"schema": "mine"}')
    for place in (tmp_path / "mine", shop, tmp_path, shop / ".afmrl" / "out", shop / "catalog.csv"):
        refused("index", "export", "--to", str(place), code=2)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["index.json"]


def test_an_export_that_was_killed_while_it_replaced_another_loses_none(shop: Path, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    document("index", "export", "--to", str(to))
    to.rename(tmp_path / ".writing-before-exported")
    shutil.rmtree(shop / ".afmrl" / "embeddings")
    refused("index", "export", "--to", str(to), code=4)
    assert sorted(path.name for path in to.iterdir()) == ["index.json", "listings.parquet", "vectors.npy"]


def test_lancedb_loads_it_and_finds_what_search_finds(shop: Path, tmp_path: Path) -> None:
    document("index", "export", "--to", str(tmp_path / "exported"))
    command = [sys.executable, str(EXAMPLE), "exported", "database", "color=navy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_distance" not in done.stderr
    plain, filtered = done.stdout.split("like the first listing, color=navy:")
    ids = [line.split()[1] for line in plain.splitlines()[1:]]
    assert ids[0] == "s0" and ids[1:] == [id for id, _ in found("--like", "s0")][:9]
    ids = [line.split()[1] for line in filtered.strip().splitlines()]
    scores = dict(found("--like", "s0", "--filter", "color=navy"))
    assert ids[0] == "s0" and set(ids[1:]) == scores.keys()
    shown = {line.split()[1]: float(line.split()[0]) for line in filtered.strip().splitlines()[1:]}
    assert [shown[id] for id in scores] == pytest.approx(list(scores.values()), abs=2e-3)
