from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from afmrl_cli.errors import ModelError
from afmrl_cli.store.checkpoints import Checkpoints, versions
from afmrl_cli.store.files import TEMPORARY_PREFIX

from .adapters import adapter, manifest


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def test_added_listed_and_found_again(store: Checkpoints, tmp_path: Path) -> None:
    assert store.list() == []
    source = adapter(tmp_path / "adapter")
    first = store.add(source, manifest(metrics={"recall@10": 0.7}, settings={"lr": 1e-4}, data="d", created=1.0))
    second = store.add(source, manifest(parent=first.name, created=2.0))
    other = store.add(source, manifest("generator", created=3.0))
    named = store.add(source, manifest(name="summer-2", created=4.0))
    assert [m.name for m in store.list()] == ["embedder-1", "embedder-2", "generator-1", "summer-2"]
    assert [first, second, other, named] == store.list() == [store.get(m.name) for m in store.list()]
    assert sorted(first.files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert store.find("summer-2") == named and store.find("latest", "generator") == other
    assert first.versions == versions() and first.versions["python"]
    assert sorted(p.name for p in store.path("embedder-1").iterdir()) == [*sorted(first.files), "manifest.json"]


def test_what_a_killed_removal_left_does_not_stand_in_the_way(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    store.add(source, manifest())
    shutil.copytree(
        store.path("embedder-1"), store.path("embedder-1").with_name(f"{TEMPORARY_PREFIX}removed-embedder-1")
    )
    store.remove("embedder-1")
    assert store.list() == [] and not list(store.folder.glob("*embedder-1*"))


def test_a_number_is_not_used_again_while_a_later_one_stands(store: Checkpoints, tmp_path: Path) -> None:
    import shutil

    source = adapter(tmp_path / "adapter")
    for _ in range(3):
        store.add(source, manifest())
    shutil.rmtree(store.path("embedder-2"))
    assert store.add(source, manifest()).name == "embedder-4"


@pytest.mark.parametrize("name", ["nothing", "../adapter", "", "a/b", ".."])
def test_a_missing_one_names_those_that_are_there(name: str, store: Checkpoints, tmp_path: Path) -> None:
    store.add(adapter(tmp_path / "adapter"), manifest())
    with pytest.raises(ModelError, match="no checkpoint") as caught:
        store.get(name)
    assert caught.value.hint == "there are: embedder-1" and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [("embedder:latest", "train one"), ("embedder:best", "a finished `afmrl cycle`"), ("best", "write generator:best")],
)
def test_a_label_of_nothing_says_how_to_get_one(name: str, hint: str, store: Checkpoints) -> None:
    with pytest.raises(ModelError) as caught:
        store.find(name)
    assert caught.value.hint is not None and caught.value.hint.startswith(hint)


def test_damage_is_found(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    for name in ("changed", "missing", "json", "renamed"):
        store.add(source, manifest(name=name))
    weights = store.path("changed") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (store.path("missing") / "adapter_config.json").unlink()
    (store.path("json") / "manifest.json").write_text("{")
    store.path("renamed").rename(store.path("other"))
    for name, words in {
        "changed": "not what was stored",
        "missing": "No such file",
        "json": "not a manifest",
        "other": "does not describe this folder",
    }.items():
        with pytest.raises(ModelError, match=f"damaged: .*{words}") as caught:
            store.get(name)
        assert name in str(caught.value) and caught.value.exit_code == 4
    # Two manifests can't be read; that files differ from their hashes is not seen before they are used.
    found, damaged = store.survey()
    assert [m.name for m in found] == ["changed", "missing"] == [m.name for m in store.list()]
    assert sorted(damaged) == ["json", "other"] and "not a manifest" in str(damaged["json"])
    with pytest.raises(ModelError) as caught:
        store.get("none")
    assert caught.value.hint == "there are: changed, missing"


def test_only_safetensors_get_in(store: Checkpoints, tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        return adapter(tmp_path / name)

    (folder("pickle") / "adapter_model.bin").write_bytes(pickle.dumps({}))
    (folder("trainer") / "training_args.bin").write_bytes(b"x")
    (folder("link") / "notes.txt").symlink_to("/etc/passwd")
    (folder("nested") / "other").mkdir()
    (folder("disguised") / "adapter_model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    weights = folder("cut") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2])
    (folder("bare") / "adapter_config.json").unlink()
    for name, words in {
        "pickle": "adapter_model.bin: not allowed",
        "trainer": "training_args.bin: not allowed",
        "link": "notes.txt: not allowed",
        "nested": "other: not allowed",
        "disguised": "not a safetensors file",
        "cut": "cut off or damaged",
        "bare": "adapter_config.json is missing",
        "gone": "no such folder",
    }.items():
        with pytest.raises(ModelError, match=words):
            store.add(tmp_path / name, manifest())
    assert store.list() == []


def test_names_that_do_not_do(store: Checkpoints, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    store.add(source, manifest(name="taken"))
    for name in ("taken", "../out", "A", ".hidden", "x" * 65):
        with pytest.raises(ModelError):
            store.add(source, manifest(name=name))


def test_the_manifest_is_readable_json(store: Checkpoints, tmp_path: Path) -> None:
    store.add(adapter(tmp_path / "adapter"), manifest(metrics={"loss": 0.5}))
    content = json.loads((store.path("embedder-1") / "manifest.json").read_text())
    assert content["role"] == "embedder" and content["metrics"] == {"loss": 0.5}
    assert len(content["files"]["adapter_model.safetensors"]) == 64
