"""A vision encoder's pooler in the checkpoint store: where it belongs and nowhere else, and found when damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from afmrl_cli.errors import ModelError
from afmrl_cli.store.checkpoints import (
    CONFIG,
    POOLER_WEIGHTS,
    WEIGHTS,
    Checkpoints,
    Manifest,
    adapter_hashes,
    changes_tower,
)
from afmrl_cli.store.files import hash_file
from afmrl_cli.store.transfer import export_checkpoint, import_checkpoint, read_foreign

LAYER = "base_model.model.model.visual.blocks.0.attn.qkv"
TARGETS = r".*visual\.(blocks|merger).*\.(qkv|proj)"
POOLER: dict[str, Any] = {"out.weight": np.eye(6, 8), "key.weight": np.eye(8), "query": np.ones(8)}


def vision(folder: Path, pooler: dict[str, Any] | None = None, layer: str = LAYER) -> Path:
    """What `train-vision` leaves: a LoRA on the tower and the pooler beside it."""
    folder.mkdir(parents=True)
    pair = {f"{layer}.lora_A.weight": np.ones((4, 8)), f"{layer}.lora_B.weight": np.ones((24, 4))}
    save_file({name: value.astype(np.float32) for name, value in pair.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": TARGETS}))
    tensors = POOLER if pooler is None else pooler
    made = {name: value if value.dtype == np.float16 else value.astype(np.float32) for name, value in tensors.items()}
    save_file(made, folder / POOLER_WEIGHTS)
    return folder


def manifest(role: str = "vision", **more: Any) -> Manifest:
    return Manifest(role=role, base="nano", base_revision="r", **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def test_it_is_stored_checked_and_a_part_of_what_a_checkpoint_does(store: Checkpoints, tmp_path: Path) -> None:
    first = store.add(vision(tmp_path / "a"), manifest())
    second = store.add(vision(tmp_path / "b", {"out.weight": np.eye(8)}), manifest())
    assert (first.name, second.name) == ("vision-1", "vision-2") and store.find("vision:latest") == second
    assert first.files[WEIGHTS] == second.files[WEIGHTS]
    assert adapter_hashes(first.files) != adapter_hashes(second.files)
    assert changes_tower(store.path("vision-1"))
    (store.path("vision-1") / POOLER_WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"pooler\.safetensors: damaged"):
        store.get("vision-1")


def test_the_same_run_with_another_pooler_is_another_checkpoint(store: Checkpoints, tmp_path: Path) -> None:
    first = store.add(vision(tmp_path / "a"), manifest(run="train-vision-1"))
    assert store.add(tmp_path / "a", manifest(run="train-vision-1")).name == first.name
    other = store.add(vision(tmp_path / "b", {"out.weight": np.eye(8)}), manifest(run="train-vision-1"))
    assert other.name == "vision-2"


def test_a_pooler_belongs_to_a_vision_encoder(store: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a pooler belongs to a vision encoder, this is of the embedder"):
        store.add(vision(tmp_path / "a"), manifest("embedder"))
    (tmp_path / "a" / POOLER_WEIGHTS).unlink()
    with pytest.raises(ModelError, match="a vision encoder makes no vectors without it"):
        store.add(tmp_path / "a", manifest())
    assert store.add(tmp_path / "a", manifest("embedder")).name == "embedder-1"


def test_a_manifest_that_says_otherwise_is_damaged(store: Checkpoints, tmp_path: Path) -> None:
    made = store.add(vision(tmp_path / "a"), manifest())
    for role, files in (("embedder", made.files), ("vision", {WEIGHTS: made.files[WEIGHTS]})):
        content = {**dataclasses.asdict(made), "role": role, "files": files}
        (store.path(made.name) / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match="it does not describe this folder"):
            store.get(made.name)


@pytest.mark.parametrize(
    "pooler",
    [
        {"out.weight": np.eye(6, 8), "query": np.ones(8)},
        {"out.weight": np.eye(6, 8), "key.weight": np.eye(8), "query": np.ones(7)},
        {"out.weight": np.ones((2, 2, 2))},
        {"out.weight": np.eye(8), "more": np.eye(8)},
        {"out.weight": np.zeros((0, 8))},
        {"out.weight": np.eye(8).astype(np.float16)},
        {"query": np.ones(8)},
    ],
)
def test_an_odd_pooler_is_refused(pooler: dict[str, Any], store: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a pooler of this afmrl"):
        store.add(vision(tmp_path / "a", pooler), manifest())


def test_an_adapter_of_the_language_model_is_no_vision_encoder(store: Checkpoints, tmp_path: Path) -> None:
    layer = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    with pytest.raises(ModelError, match="changes the vision tower alone, this one base_model"):
        store.add(vision(tmp_path / "a", layer=layer), manifest())


def test_it_travels_whole(store: Checkpoints, tmp_path: Path) -> None:
    made = store.add(vision(tmp_path / "a"), manifest())
    out, other = tmp_path / "out", Checkpoints(tmp_path / "elsewhere")
    export_checkpoint(made, store, out)
    stored = import_checkpoint(out, read_foreign(out), other, "nano", "r", "")
    assert stored.files == made.files and other.get(stored.name).role == "vision"
    assert import_checkpoint(out, read_foreign(out), other, "nano", "r", "again").name == stored.name, "it is here"


def test_a_strangers_pooler_is_checked_before_it_is_taken_in(store: Checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_checkpoint(store.add(vision(tmp_path / "a"), manifest()), store, out)
    save_file({"out.weight": np.eye(8, dtype=np.float64)}, out / POOLER_WEIGHTS)
    content = json.loads((out / "manifest.json").read_text("utf-8"))
    with pytest.raises(ModelError, match="not what the manifest says"):
        read_foreign(out)
    content["files"][POOLER_WEIGHTS] = hash_file(out / POOLER_WEIGHTS)
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not a pooler of this afmrl"):
        read_foreign(out)
    content["role"] = "embedder"
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="a pooler belongs to a vision encoder"):
        read_foreign(out)
