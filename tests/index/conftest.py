"""A small embedded catalog with generated attributes, made once, and an empty place for its index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.retrieval.shop import shop_rows, write_shop


def toml(model: Path) -> str:
    names = f'embedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    return f'[model]\n{names}[search]\nhybrid = "no"\n'


def work_of(root: Path, **flags: object) -> Workspace:
    return Workspace(CatalogFolder(root / "catalog.csv"), load_settings(root, flags, NANO), Silent())


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """24 listings; every third has generated attributes: two materials, and a fit."""
    root = tmp_path_factory.mktemp("index") / "shop"
    rows = shop_rows(24)
    for i, row in enumerate(rows):
        row["price"] = f"{10 + i},90" if i % 2 else str(10 + i)
        row["attr_color"] = f"{row['attr_color']}|navy" if i % 5 == 0 else row["attr_color"]
    write_shop(root, [{**row, "attr_color": row["attr_color"].split("|")[0]} for row in rows])
    write_shop(root, rows)
    (root / "afmrl.toml").write_text(toml(tiny_model("qwen2_vl")))
    result = CliRunner().invoke(app, ["embed", str(root)])
    assert result.exit_code == 0, result.output
    work = work_of(root)
    source = work.source_on_disk
    assert source is not None
    with Database(work.folder.database) as database:
        texts = [
            (row, f"material: {'wool, silk' if i % 2 else 'Cotton'}; Fit: slim")
            for i, row in enumerate(load_vectors(work).listings)
            if i % 3 == 0
        ]
        database.put_attributes(
            [StoredAttributes(r.fingerprint, source.generator, source.prompt, r.id, t, None, 0.0) for r, t in texts]
        )
    return root


@pytest.fixture
def shop(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, and the folder to stand in."""
    root = tmp_path / "shop"
    shutil.copytree(embedded, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the index goes."""
    return tmp_path / "the-index"
