"""`model.preset = auto`: which preset it comes to, what is told of it, and where that is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import UsageError
from afmrl_cli.models import auto
from afmrl_cli.models.auto import choose_preset
from afmrl_cli.models.presets import base_name
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.settings import ModelSettings, Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from tests.store.adapters import adapter, manifest

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFMRL_MODEL_PRESET")


@pytest.fixture
def photographed(tmp_path: Path) -> CatalogFolder:
    Image.new("RGB", (40, 40), "navy").save(tmp_path / "a.jpg")
    (tmp_path / "catalog.csv").write_text("id,title,image\n1,Bag,a.jpg\n2,Hat,a.jpg\n")
    return CatalogFolder(tmp_path / "catalog.csv")


def gpu(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """A machine that has a card of so many bytes; the questions to its driver are answered here."""
    monkeypatch.setattr(auto, "device_of", lambda _: "cuda")
    monkeypatch.setattr(auto, "memory_here", lambda _: memory)


def chosen(folder: CatalogFolder | None, **model: object) -> tuple[str, str]:
    found = choose_preset(Settings(model=ModelSettings.model_validate({"device": "cpu"} | model)), folder)
    return found.settings.model.preset, found.line


def test_photos_and_no_gpu_are_for_light(photographed: CatalogFolder) -> None:
    assert chosen(photographed) == ("light", "model.preset = auto: light, since there is no GPU here")
    assert chosen(None)[0] == "light"


def test_a_drawn_shop_is_for_nano(tmp_path: Path) -> None:
    write_shop(tmp_path, ShopPlan(2, text_queries=0, photo_queries=0, size=32))
    preset, line = chosen(CatalogFolder(tmp_path / "catalog.csv"))
    assert preset == "nano" and "drawn" in line


@pytest.mark.parametrize("content", ["", "id,title,image\n", "id\0title\n"])
def test_a_catalog_that_can_not_be_read_is_not_called_a_drawn_shop(tmp_path: Path, content: str) -> None:
    (tmp_path / "catalog.csv").write_text(content)
    assert chosen(CatalogFolder(tmp_path / "catalog.csv")) == (
        "light",
        "model.preset = auto: light, since there is no GPU here",
    )
    shown = CliRunner().invoke(app, ["embed", str(tmp_path)])
    assert shown.exit_code == 3 and "drawn" not in shown.stderr


def test_a_gpu_gets_qwen3_where_its_weights_are_here_or_may_be_fetched(
    photographed: CatalogFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    gpu(monkeypatch, 24 * GIB)
    preset, line = chosen(photographed)
    assert preset == "light" and "Qwen/Qwen3-VL-Embedding-2B are not on this disk" in line
    assert chosen(photographed, fetch="yes")[0] == "qwen3"
    for model in ("Qwen3-VL-2B-Instruct", "Qwen3-VL-Embedding-2B"):
        snapshot = tmp_path / "cache" / f"models--Qwen--{model}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (snapshot / "model.safetensors").touch()
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert chosen(photographed) == ("qwen3", "model.preset = auto: qwen3, since there is a GPU of 24 GiB")
    gpu(monkeypatch, 4 * GIB)
    assert chosen(photographed)[0] == "light"


def test_an_adapter_that_is_named_decides(photographed: CatalogFolder, tmp_path: Path) -> None:
    name = Checkpoints(photographed.checkpoints).add(adapter(tmp_path / "made"), manifest()).name
    preset, line = chosen(photographed, embedder_checkpoint=name)
    assert preset == "nano" and f"{name} was trained on nano" in line
    assert chosen(photographed, embedder_checkpoint="gone")[0] == "light"


def test_a_preset_that_is_named_is_taken_without_a_word(photographed: CatalogFolder) -> None:
    assert chosen(photographed, preset="paper") == ("paper", "")


def test_auto_itself_names_no_model() -> None:
    with pytest.raises(UsageError, match="stands for no model"):
        base_name(ModelSettings(), "embedder")


def test_it_is_told_once_and_kept(photographed: CatalogFolder) -> None:
    shown = CliRunner().invoke(app, ["check", str(photographed.root)])
    assert shown.stderr.count("model.preset = auto: light") == 1
    assert "auto" not in CliRunner().invoke(app, ["check", str(photographed.root), "--quiet"]).stderr
    document = json.loads(CliRunner().invoke(app, ["check", str(photographed.root), "--json"]).stdout)
    assert document["preset"] == {"name": "light", "why": "there is no GPU here"}
    named = CliRunner().invoke(app, ["check", str(photographed.root), "--json", "--set=model.preset=light"])
    assert "preset" not in json.loads(named.stdout)


@pytest.mark.parametrize("command", [["search", "bag", "--catalog"], ["dedupe"]])
def test_vectors_of_the_model_that_was_the_default_are_told_with_a_way_on(
    photographed: CatalogFolder, command: list[str]
) -> None:
    place = photographed.embeddings / "nano-0123456789-plain-01234567"
    place.mkdir(parents=True)
    (place / "current").write_text("v1")
    shown = CliRunner().invoke(app, [*command, str(photographed.root)])
    assert shown.exit_code == 4
    assert shown.stderr.count("model.preset = auto: light") == 1
    assert "run `afmrl embed` with these settings, or use those: --set model.preset=nano" in shown.stderr


@pytest.mark.parametrize("command", ["train-sft", "train-rar"])
def test_who_trains_is_not_sent_to_a_server(photographed: CatalogFolder, command: str) -> None:
    shown = CliRunner().invoke(app, [command, str(photographed.root)])
    assert shown.exit_code == 4 and "to write or to train: --set model.preset=qwen3" in shown.stderr


def test_no_word_where_no_model_is_left_open(photographed: CatalogFolder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    flags = [f"--set=model.{role}={folder}" for role in ("generator", "embedder")]
    assert "model.preset" not in CliRunner().invoke(app, ["check", str(photographed.root), *flags]).stderr


def test_vectors_keep_it(tmp_path: Path) -> None:
    write_shop(tmp_path, ShopPlan(2, text_queries=0, photo_queries=0, size=32))
    done = CliRunner().invoke(app, ["embed", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["preset"]["name"] == "nano"
    manifest = json.loads((Path(document["folder"]) / "manifest.json").read_text())
    assert manifest["model"]["preset"] == "nano"
