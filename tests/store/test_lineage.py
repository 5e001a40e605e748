"""Labels, parents, what must stay, what travels: with real adapters where their format counts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save

from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.models.presets import Base, resolve_base
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints, Manifest
from afmrl_cli.store.lineage import checkpoint_of, differences, learnt_from, needed, tree
from afmrl_cli.store.transfer import export_checkpoint, import_checkpoint, read_foreign
from tests.models.adapters import add_random

from .adapters import adapter, manifest


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def test_labels(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    with pytest.raises(ModelError, match="no latest embedder"):
        store.find("latest", "embedder")
    store.add(source, manifest())
    store.add(source, manifest("generator"))
    store.add(source, manifest())
    assert store.find("latest", "embedder").name == store.find("embedder:latest").name == "embedder-2"
    assert store.find("generator:latest", "embedder").name == "generator-1"
    with pytest.raises(ModelError, match="no best embedder"):
        store.find("best", "embedder")
    with pytest.raises(ModelError, match="of which role"):
        store.find("best")
    store.set_best("embedder-1")
    store.set_best("generator-1")
    assert store.find("best", "embedder").name == "embedder-1"
    assert store.labels() == {
        "embedder:latest": "embedder-2",
        "embedder:best": "embedder-1",
        "generator:latest": "generator-1",
        "generator:best": "generator-1",
    }
    store.remove("embedder-1")
    assert "embedder:best" not in store.labels() and [m.name for m in store.list()] == ["generator-1", "embedder-2"]
    with pytest.raises(ModelError, match="no name for a checkpoint"):
        store.add(source, manifest(name="latest"))


def test_a_clock_that_went_backwards_does_not_change_the_order(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    store.add(source, manifest(created=2e9))
    store.add(source, manifest(created=1e9))
    assert [m.name for m in store.list()] == ["embedder-1", "embedder-2"]
    assert store.find("embedder:latest").name == "embedder-2"


def test_a_run_stores_its_checkpoint_once(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    first = store.add(source, manifest(run="train-agcl-1"))
    assert store.add(source, manifest(run="train-agcl-1")) == first
    assert store.add(source, manifest(run="train-agcl-2")).name == "embedder-2"
    assert store.add(adapter(tmp_path / "other", 5), manifest(run="train-agcl-1")).name == "embedder-3"
    assert store.add(source, manifest(run="train-agcl-1", name="mine")).name == "mine"


def test_ids_lead_to_checkpoints() -> None:
    names = ["embedder-1", "1", "my_own", "embedder-11"]
    for model, name in {
        "nano-embedder-1-0123456789": "embedder-1",
        "nano-embedder-11-0123456789": "embedder-11",
        "nano-my-own-0123456789": "my_own",
        "nano-0123456789": "",
        "gpt-4o": "",
        "nano-embedder-2-0123456789": "",
    }.items():
        assert checkpoint_of(model, names) == name


def chain(store: Checkpoints, source: Path) -> None:
    """generator-1 -> generator-2, rewarded by embedder-1, which learnt from generator-1's texts; embedder-2 from that;
    and two that nobody needs."""
    by = "nano-{}-0123456789".format
    store.add(source, manifest("generator"))
    store.add(source, manifest("embedder", inputs={"attributes": by("generator-1")}))
    store.add(source, manifest("generator", parent="generator-1", inputs={"embedder": by("embedder-1")}))
    store.add(source, manifest("embedder", parent="embedder-1", inputs={"attributes": by("generator-2")}))
    store.add(source, manifest("embedder", name="lonely"))
    store.add(source, manifest("generator", name="lost", parent="lonely-not-there"))


def test_what_must_stay(store: Checkpoints, tmp_path: Path) -> None:
    chain(store, adapter(tmp_path / "adapter"))
    found = store.list()
    assert learnt_from(found[3], [m.name for m in found]) == {"parent": "embedder-1", "attributes": "generator-2"}
    kept = needed(found, {"embedder-2": "embedder:best", "gone": "model.embedder_checkpoint"})
    assert set(kept) == {"embedder-2", "embedder-1", "generator-2", "generator-1"}
    assert kept["embedder-2"] == "embedder:best" and kept["generator-2"] == "its attributes made embedder-2"
    assert set(needed(found, {"embedder-1": "a"})) == {"embedder-1", "generator-1"}
    assert [(depth, m.name) for depth, m in tree(found)] == [
        (0, "generator-1"),
        (1, "generator-2"),
        (0, "embedder-1"),
        (1, "embedder-2"),
        (0, "lonely"),
        (0, "lost"),
    ]


def test_differences() -> None:
    one = manifest(files={"adapter_model.safetensors": "a"}, metrics={"r": 0.5}, settings={"agcl": {"rank": 8, "k": 1}})
    other = dataclasses.replace(one, parent="p", metrics={"r": 0.6}, settings={"agcl": {"rank": 16, "k": 1, "n": 2}})
    assert differences(one, one) == []
    assert differences(one, other) == [
        ("parent", None, "p"),
        ("metrics.r", 0.5, 0.6),
        ("settings.agcl.rank", 8, 16),
        ("settings.agcl.n", None, 2),
    ]


@pytest.fixture
def base(tiny_model: Callable[[str], Path]) -> Base:
    return resolve_base(load_settings(None, {"model.embedder": str(tiny_model("qwen2_vl"))}, {}).model, "embedder")


def test_a_checkpoint_travels(store: Checkpoints, base: Base, tmp_path: Path) -> None:
    first = add_random(store, base, "embedder-1", 0)
    child = dataclasses.replace(first, name="embedder-2", parent="embedder-1")
    add_random(store, base, "other", 1)
    second = store.add(store.path("other"), child)
    export_checkpoint(first, store, tmp_path / "one")
    export_checkpoint(second, store, tmp_path / "two")
    with pytest.raises(DataError, match="is there already"):
        export_checkpoint(second, store, tmp_path / "one")
    there = Checkpoints(tmp_path / "there")

    def take(folder: str, name: str = "") -> Manifest:
        return import_checkpoint(
            tmp_path / folder, read_foreign(tmp_path / folder), there, base.name, base.revision, name
        )

    taken = take("one", "from-afar")
    assert taken.name == "from-afar" and taken.files == first.files and take("one").name == "from-afar"
    # The parent is known by its weights, whatever it is called here.
    assert take("two").name == "embedder-2" and there.get("embedder-2").parent == "from-afar"
    with pytest.raises(ModelError, match="here the embedder is"):
        import_checkpoint(tmp_path / "one", first, there, "nano", "files-other", "")


def test_what_is_not_taken_in(store: Checkpoints, base: Base, tmp_path: Path) -> None:
    first = add_random(store, base, "embedder-1", 0)
    export_checkpoint(first, store, tmp_path / "good")

    def changed(name: str, file: str, change: Callable[[bytes], bytes], sealed: bool = False) -> Path:
        folder = tmp_path / name
        shutil.copytree(tmp_path / "good", folder)
        (folder / file).write_bytes(change((folder / file).read_bytes() if (folder / file).exists() else b""))
        if sealed:  # the manifest knows of the change
            import hashlib

            content = json.loads((folder / "manifest.json").read_text())
            content["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    weights, config = "adapter_model.safetensors", "adapter_config.json"
    for folder, words in (
        (changed("bits", weights, lambda b: b[:-1] + bytes([b[-1] ^ 1])), "not what the manifest says"),
        (changed("more", "extra.bin", lambda b: b"x"), "does not know this file"),
        (changed("cut", weights, lambda b: b[:-2], sealed=True), "cut off or damaged"),
        (changed("pickle", weights, lambda b: b"\x80\x04K\x01.", sealed=True), "not a safetensors file"),
        (changed("kind", config, lambda b: b.replace(b"LORA", b"LOHA"), sealed=True), "type 'LOHA'"),
        (
            changed("rank", config, lambda b: b.replace(b'"r": 4', b'"r": 8'), sealed=True),
            "no matrix of a LoRA",
        ),
        (changed("empty", weights, lambda b: save({}), sealed=True), "no tensors in it"),
        (changed("json", "manifest.json", lambda b: b"{"), "not a manifest"),
    ):
        with pytest.raises(ModelError, match=words):
            read_foreign(folder)
    (tmp_path / "good" / config).unlink()
    with pytest.raises(ModelError, match="is missing"):
        read_foreign(tmp_path / "good")
    with pytest.raises(ModelError, match=r"manifest\.json: No such file"):
        read_foreign(tmp_path / "nothing")
