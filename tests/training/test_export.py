"""The exported folder in the hands of sentence-transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.run import train_agcl
from afmrl_cli.workspace import Workspace

TEXTS = [
    "red v-neck shirt",
    "Title: Blue Shirt (2).\nBrand: Ünité\nCategory: Tops/Shirts",
    "黑色 连衣裙",
    "trailing space and dots...  ",
    "a " * 60,
]


@pytest.fixture
def trained(shop: CatalogFolder, settings: Callable[..., Settings]) -> Settings:
    chosen = settings(**{"agcl.steps": 3})
    assert train_agcl(Workspace(shop, chosen, Silent())) is not None
    return settings(**{"model.embedder_checkpoint": "embedder-1"})


def invoke(shop: CatalogFolder, settings: Settings, *words: str) -> str:
    result = CliRunner().invoke(
        app,
        ["checkpoints", *words, "-c", str(shop.root), "--set", f"model.embedder={settings.model.embedder}"],
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_sentence_transformers_gives_the_same_vectors(shop: CatalogFolder, trained: Settings, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    invoke(shop, trained, "export", "embedder-1", str(tmp_path / "out"))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    ours = load_embedder(trained.model, trained.embed, Checkpoints(shop.checkpoints))
    for prompt, instruction in (
        ("query", ours.template.query_instruction),
        ("document", ours.template.target_instruction),
    ):
        expected = ours.encode([Item(text) for text in TEXTS], instruction=instruction)
        found = theirs.encode(TEXTS, prompt_name=prompt)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, atol=1e-5), "documents by default"


def test_peft_opens_the_checkpoint_itself(shop: CatalogFolder, trained: Settings, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    invoke(shop, trained, "export", "embedder-1", str(tmp_path / "out"), "--to", "peft")
    base = AutoModelForImageTextToText.from_pretrained(trained.model.embedder)
    model = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    assert model.peft_config["default"].r == 16
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_list_and_show(shop: CatalogFolder, trained: Settings) -> None:
    content = json.loads(invoke(shop, trained, "list", "--json"))
    assert [(row["name"], row["role"]) for row in content["checkpoints"]] == [("embedder-1", "embedder")]
    assert "embedder-1" in invoke(shop, trained, "list")
    shown = json.loads(invoke(shop, trained, "show", "embedder-1", "--json"))
    assert shown["settings"]["agcl"]["steps"] == 3 and "adapter_model.safetensors" in shown["files"]


def test_a_damaged_one_is_named_and_the_others_are_listed(shop: CatalogFolder, trained: Settings) -> None:
    (shop.checkpoints / "embedder-2").mkdir()
    (shop.checkpoints / "embedder-2" / "manifest.json").write_text("{")
    result = CliRunner().invoke(app, ["checkpoints", "list", "-c", str(shop.root), "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert [row["name"] for row in content["checkpoints"]] == ["embedder-1"]
    assert [row["name"] for row in content["damaged"]] == ["embedder-2"]
    assert "embedder-2/manifest.json: damaged: not a manifest" in result.stderr
    used = CliRunner().invoke(app, ["checkpoints", "show", "embedder-2", "-c", str(shop.root)])
    assert used.exit_code == 4 and "embedder-2/manifest.json: damaged" in used.stderr


def test_export_refuses(shop: CatalogFolder, trained: Settings, tmp_path: Path) -> None:
    def fails(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["checkpoints", *words, "-c", str(shop.root)])
        return result.exit_code, result.stderr

    (tmp_path / "there").mkdir()
    assert fails("export", "embedder-1", str(tmp_path / "there"), "--to", "peft")[0] == 3
    assert fails("export", "embedder-9", str(tmp_path / "new"))[0] == 4
    code, said = fails("export", "embedder-1", str(tmp_path / "new"), "--to", "onnx")
    assert code == 2 and "known: sentence-transformers, transformers, peft" in said
