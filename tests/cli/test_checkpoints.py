"""`afmrl checkpoints` on a store with real adapters of the built-in model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.models.presets import model_id, resolve_base
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from tests.models.adapters import add_random
from tests.retrieval.shop import shop_rows, write_shop


def afmrl(*words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def spoken(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight products; embedder-1, and other, of random weights."""
    write_shop(tmp_path / "shop", shop_rows(8))
    monkeypatch.chdir(tmp_path / "shop")
    Path("afmrl.toml").write_text('[model]\ndevice = "cpu"\nprecision = "fp32"\n')
    store, base = (
        Checkpoints(CatalogFolder(Path("catalog.csv")).checkpoints),
        resolve_base(load_settings().model, "embedder"),
    )
    for seed, name in enumerate(("embedder-1", "other")):
        add_random(store, base, name, seed)
    return tmp_path / "shop"


def test_the_store_from_the_command_line(shop: Path) -> None:
    listed = afmrl("checkpoints", "list")["checkpoints"]
    assert [(row["name"], row["labels"]) for row in listed] == [("embedder-1", []), ("other", ["latest"])]
    assert all(row["bytes"] > 10_000 for row in listed)
    assert "no best embedder" in afmrl("embed", "--set", "model.embedder_checkpoint=best", code=4)["error"]["message"]
    assert afmrl("checkpoints", "best", "embedder-1")["checkpoint"] == "embedder-1"
    afmrl("embed", "--set", "model.embedder_checkpoint=best")
    traced = afmrl("checkpoints", "show", "embedder:best")
    assert traced["name"] == "embedder-1" and len(traced["chain"]["vectors"]) == 1
    model = load_settings(shop, {"model.embedder_checkpoint": "embedder-1"}).model
    id = model_id(model, "embedder", Checkpoints(shop / ".afmrl" / "checkpoints"))
    assert Path(traced["chain"]["vectors"][0]).parent.name.startswith(id)
    assert afmrl("checkpoints", "show", "other")["chain"]["vectors"] == []
    assert "vectors: " in spoken("checkpoints", "show", "embedder-1")
    assert "[best]" in spoken("checkpoints", "tree") and "weights" in spoken(
        "checkpoints", "diff", "embedder-1", "other"
    )
    # Another machine: the same base takes it in, once.
    afmrl("checkpoints", "export", "other", "out", "--to", "afmrl")
    afmrl("checkpoints", "best", "other")
    write_shop(shop.parent / "second", shop_rows(4))
    words = ("checkpoints", "import", "out", "--catalog", str(shop.parent / "second"))
    assert afmrl(*words) == {"schema": "afmrl.checkpoints-import/1", "checkpoint": "other", "was_here": False}
    assert afmrl(*words)["was_here"] is True


def test_prune_shows_before_it_deletes(shop: Path) -> None:
    afmrl("checkpoints", "best", "other")
    shown = afmrl("checkpoints", "prune")
    assert shown["would_delete"] == ["embedder-1"] and shown["kept"] == {"other": "embedder:latest, embedder:best"}
    assert len(afmrl("checkpoints", "list")["checkpoints"]) == 2
    assert afmrl("checkpoints", "prune", "--set", "model.embedder_checkpoint=embedder-1")["would_delete"] == []
    assert "--yes deletes them" in spoken("checkpoints", "prune")
    assert afmrl("checkpoints", "prune", "--yes")["deleted"] == ["embedder-1"]
    assert [row["name"] for row in afmrl("checkpoints", "list")["checkpoints"]] == ["other"]
    assert sorted(path.name for path in (shop / ".afmrl" / "checkpoints").iterdir()) == ["best.json", "other"]
