"""What a checkpoint from a stranger may say: its manifest and PEFT's configuration, field by field."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import ModelError
from afmrl_cli.models.families import LORA_TARGETS
from afmrl_cli.store.checkpoints import Checkpoints, read_adapter_config, read_manifest
from afmrl_cli.store.transfer import read_foreign

from .adapters import adapter, manifest

LAYER = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "rank_pattern": {},
    "bias": "none",
}


def parcel(folder: Path, config: dict[str, Any] | None = None, **changed: Any) -> Path:
    """A folder as `checkpoints export --to afmrl` writes it."""
    folder.mkdir(parents=True)
    pair = {f"{LAYER}.lora_A.weight": np.ones((4, 8)), f"{LAYER}.lora_B.weight": np.ones((8, 4))}
    save_file({name: value.astype(np.float32) for name, value in pair.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | (config or {})))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    content = {"role": "embedder", "base": "nano", "name": "embedder-1", "created": 1.0, "files": files} | changed
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_exported_is_read(tmp_path: Path) -> None:
    assert read_foreign(parcel(tmp_path / "a", metrics={"recall@1": 0.5, "steps": 3})).metrics["recall@1"] == 0.5
    assert read_foreign(parcel(tmp_path / "b", {"target_modules": LORA_TARGETS, "alpha_pattern": None})).name
    assert read_foreign(parcel(tmp_path / "c", {"auto_mapping": None, "loftq_config": {}, "use_dora": False})).name


BAD_MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"metrics": {"x": "evil"}}, "metrics.x"),
    ({"metrics": {"x": True}}, "metrics.x"),
    ({"metrics": []}, "metrics"),
    ({"metrics": {"x" * 1000: 1.0}}, "metrics"),
    ({"role": "judge"}, "role"),
    ({"role": ["embedder"]}, "role"),
    ({"base": 3}, "base"),
    ({"base": "x" * 10_000}, "base"),
    ({"name": "../../out"}, "name"),
    ({"name": ["a"]}, "name"),
    ({"run": "../../out"}, "run"),
    ({"created": "now"}, "created"),
    ({"created": 1e300}, "created"),
    ({"files": {"../../../etc/passwd": "0" * 64}}, "files"),
    ({"files": {"adapter_model.safetensors": 3}}, "files"),
    ({"versions": {"torch": {"a": 1}}}, "versions.torch"),
    ({"inputs": {"attributes": None}}, "inputs.attributes"),
    ({"settings": {"a": deep(500)}}, "too deeply"),
    ({"products": {"train": 3}}, "products"),
    ({"parent": 3}, "parent"),
    ({"surprise": 1}, "surprise"),
]


@pytest.mark.parametrize(("changed", "words"), BAD_MANIFESTS, ids=str)
def test_a_manifest_that_is_none_is_reported_by_its_field(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=f"not a manifest of this afmrl: .*{words}"):
        read_foreign(parcel(tmp_path / "parcel", **changed))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", "[" * 100_000, '{"role":' * 50_000, "\ud800", "\x00", "{'a': 1}"]
)
def test_what_is_no_json_object_is_no_manifest(tmp_path: Path, text: str) -> None:
    folder = parcel(tmp_path / "parcel")
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match="not a manifest"):
        read_foreign(folder)


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"target_modules": "(a|aa)+$"}, "target_modules"),
    ({"target_modules": ["(a|aa)+$"]}, "target_modules"),
    ({"target_modules": []}, "target_modules"),
    ({"target_modules": ["x"] * 20_000}, "target_modules"),
    ({"target_modules": "all-linear"}, "target_modules"),
    ({"r": [16]}, "r"),
    ({"r": "16"}, "r"),
    ({"r": 0}, "r"),
    ({"r": 10**9}, "r"),
    ({"lora_alpha": 1e300}, "lora_alpha"),
    ({"lora_alpha": "8"}, "lora_alpha"),
    ({"lora_dropout": 2.0}, "lora_dropout"),
    ({"lora_dropout": 1.0}, "lora_dropout"),
    ({"lora_dropout": -0.1}, "lora_dropout"),
    ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern"),
    ({"rank_pattern": {"q_proj": "4"}}, "rank_pattern"),
    ({"alpha_pattern": {".*": 4}}, "alpha_pattern"),
    ({"bias": "all"}, "bias"),
    ({"task_type": "SOMETHING"}, "task_type"),
    ({"auto_mapping": {"base_model_class": "os", "parent_library": "os"}}, "auto_mapping"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"exclude_modules": "(a+)+$"}, "exclude_modules"),
    ({"layers_pattern": "(a+)+$"}, "layers_pattern"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"use_dora": "yes"}, "use_dora"),
    ({"lora_bias": True}, "lora_bias"),
    ({"megatron_core": "os"}, "megatron_core"),
    ({"megatron_config": {"a": 1}}, "megatron_config"),
    ({"new_in_peft": deep(100)}, "too deeply"),
    ({"peft_type": "LOHA"}, "type 'LOHA'"),
    ({"peft_type": ["LORA"]}, "can't be used"),
]


@pytest.mark.parametrize(("changed", "words"), BAD_CONFIGS, ids=str)
def test_a_configuration_that_asks_for_more_than_a_lora_is_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    folder = parcel(tmp_path / "parcel", changed)
    for read in (read_foreign, read_adapter_config):
        with pytest.raises(ModelError) as refused:
            read(folder)
        assert words in str(refused.value) and len(str(refused.value)) < len(str(folder)) + 300


@pytest.mark.parametrize(("changed", "words"), BAD_MANIFESTS, ids=str)
def test_a_bad_checkpoint_in_a_store_costs_no_other(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    store = Checkpoints(tmp_path / ".afmrl/checkpoints")
    good = store.add(adapter(tmp_path / "good"), manifest())
    parcel(store.path("evil"), **({"name": "evil"} | changed))
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")
    done = CliRunner().invoke(app, ["checkpoints", "list", "--catalog", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [each["name"] for each in shown["checkpoints"]] == [good.name]
    assert [each["name"] for each in shown["damaged"]] == ["evil"]
    with pytest.raises(ModelError):
        store.get("evil")


def test_a_manifest_that_never_ends_is_not_read(tmp_path: Path) -> None:
    import os

    folder = parcel(tmp_path / "parcel")
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(ValueError, match="not a file"):
        read_manifest(folder / "manifest.json")
    with (folder / "adapter_config.json").open("wb") as large:
        large.truncate(65 << 20)
    with pytest.raises(ModelError, match="more than 64 MiB"):
        read_adapter_config(folder)
