"""From settings to a base on this disk: found, refused, named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.errors import ModelError, UsageError
from afmrl_cli.models.presets import base_name, model_id, resolve_base
from afmrl_cli.models.weights import fingerprint_files
from afmrl_cli.settings import ModelSettings
from afmrl_cli.store.checkpoints import Checkpoints
from tests.tiny import make_tiny

from .adapters import add_random
from .conftest import NO_CHECKPOINTS, settings_for

TinyModel = Callable[[str], Path]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(tiny_model("qwen2_vl"), tmp_path / "shop-model"))


def refused(settings: ModelSettings) -> ModelError:
    with pytest.raises(ModelError) as caught:
        resolve_base(settings, "embedder")
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_presets_name_a_model_for_each_role() -> None:
    assert base_name(ModelSettings(preset="paper"), "embedder") == "Qwen/Qwen2-VL-2B-Instruct"
    assert base_name(ModelSettings(preset="paper"), "generator") == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert base_name(ModelSettings(preset="qwen3", embedder="mine"), "embedder") == "mine"


def test_own_limits_are_kept_but_not_above_512_tokens_a_picture(tiny_model: TinyModel) -> None:
    settings = settings_for(tiny_model("qwen2_vl"), max_pixels=0)
    base = resolve_base(settings, "embedder")
    assert (base.min_pixels, base.max_pixels) == (3136, 512 * 28 * 28)
    base = resolve_base(settings_for(tiny_model("qwen3_vl"), max_pixels=0), "embedder")
    assert (base.min_pixels, base.max_pixels) == (4096, 512 * 32 * 32)


def test_pixel_settings_win(tiny_model: TinyModel) -> None:
    base = resolve_base(settings_for(tiny_model("qwen2_vl"), min_pixels=10_000, max_pixels=20_000), "generator")
    assert (base.min_pixels, base.max_pixels) == (10_000, 20_000)
    base = resolve_base(settings_for(tiny_model("qwen2_vl"), max_pixels=1_000), "generator")
    assert (base.min_pixels, base.max_pixels) == (1_000, 1_000)
    with pytest.raises(UsageError, match="above"):
        resolve_base(settings_for(tiny_model("qwen2_vl"), min_pixels=2, max_pixels=1), "generator")


@pytest.mark.parametrize("name", ["/no/such/folder", "nothing", "a/b/c", "./x", "some/--bad..name"])
def test_neither_folder_nor_hub_name(name: str) -> None:
    assert name in str(refused(ModelSettings(embedder=name)))


def test_hub_model_that_is_not_cached_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "HF_HUB_OFFLINE" in str(refused(ModelSettings(preset="paper")))


def test_hub_that_does_not_answer_is_one_error(tmp_path: Path) -> None:
    code = (
        "from afmrl_cli.models.presets import *; from afmrl_cli.settings import ModelSettings\n"
        "try: resolve_base(ModelSettings(preset='paper'), 'embedder')\n"
        "except ModelError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=30,
    )
    assert run.stderr == b""
    assert b"can't be fetched" in run.stdout


def test_hub_model_in_the_cache_is_named_by_its_commit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    model = cache / "models--Shop--Tiny-VL"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    settings = ModelSettings(embedder="Shop/Tiny-VL", device="cpu")
    base = resolve_base(settings, "embedder")
    assert (base.name, base.revision, base.folder) == ("Shop/Tiny-VL", commit, model / "snapshots" / commit)
    assert model_id(settings, "embedder", NO_CHECKPOINTS).startswith("tiny-vl-")
    pinned = settings.model_copy(update={"embedder_revision": commit})
    assert model_id(pinned, "embedder", NO_CHECKPOINTS) == model_id(settings, "embedder", NO_CHECKPOINTS)
    assert "Shop/Tiny-VL" in str(refused(settings.model_copy(update={"embedder_revision": "other"})))
    (model / "snapshots" / commit / "model.safetensors").unlink()  # a download that was cut off
    assert "not in the local cache" in str(refused(settings))


def test_other_kinds_of_model_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}))
    assert "'bert'" in str(refused(settings_for(folder)))


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x01"])
def test_damaged_config(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json" in str(refused(settings_for(folder)))


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pickled weights" in str(refused(settings_for(folder)))


def test_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in str(refused(settings_for(folder)))


def test_whatever_changes_the_output_changes_the_id(folder: Path, tiny_model: TinyModel, tmp_path: Path) -> None:
    settings = settings_for(folder)
    original = resolve_base(settings_for(tiny_model("qwen2_vl")), "embedder")
    ids = [model_id(settings, "embedder", NO_CHECKPOINTS)]
    for change in ({"precision": "nf4"}, {"max_pixels": 9999}, {"embedder_images": 1}, {"max_text_tokens": 99}):
        ids.append(model_id(settings.model_copy(update=change), "embedder", NO_CHECKPOINTS))
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    ids.append(model_id(settings, "embedder", NO_CHECKPOINTS))
    (folder / "preprocessor_config.json").write_text("{}")
    ids.append(model_id(settings, "embedder", NO_CHECKPOINTS))
    for seed in range(2):
        checkpoints = Checkpoints(tmp_path / str(seed))
        add_random(checkpoints, original, "agcl-1", seed, said=resolve_base(settings, "embedder"))
        ids.append(model_id(settings.model_copy(update={"embedder_checkpoint": "agcl-1"}), "embedder", checkpoints))
    assert len(set(ids)) == len(ids) == 9
    assert all(name.startswith("shop-model-") for name in ids)
    assert ids[-1].startswith("shop-model-agcl-1-")


def test_a_copy_elsewhere_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "shop-model"))
    ids = {model_id(settings_for(place), "embedder", NO_CHECKPOINTS) for place in (folder, copy)}
    assert len(ids) == 1


def test_an_adapter_that_is_not_for_this(tiny_model: TinyModel, tmp_path: Path) -> None:
    settings = settings_for(tiny_model("qwen2_vl"), embedder_checkpoint="x", generator_checkpoint="x")
    checkpoints = Checkpoints(tmp_path / "store")
    with pytest.raises(ModelError, match="no checkpoint 'x'"):
        model_id(settings, "embedder", checkpoints)
    other = resolve_base(settings_for(make_tiny("qwen2_vl", tmp_path / "other-model", seed=1)), "embedder")
    add_random(checkpoints, other, "x", 0)
    with pytest.raises(ModelError, match=r"was trained on .*other-model"):
        model_id(settings, "embedder", checkpoints)
    with pytest.raises(ModelError, match="to the embedder, not to the generator"):
        model_id(settings, "generator", checkpoints)


def test_large_files_are_fingerprinted_by_header_and_edges(tmp_path: Path) -> None:
    def made(name: str, header: bytes, edge: bytes) -> str:
        file = tmp_path / name / "model.safetensors"
        file.parent.mkdir()
        with file.open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            stream.truncate(100 << 20)  # sparse: costs no disk
            stream.seek(-1, 2)
            stream.write(edge)
        return fingerprint_files([file])

    long = b"x" * (3 << 20)
    prints = {made("a", long, b"1"), made("b", long, b"2"), made("c", long[:-1] + b"y", b"1")}
    assert len(prints) == 3
    assert made("d", long, b"1") in prints


def test_ids_need_no_torch(tiny_model: TinyModel) -> None:
    code = (
        "import sys; from afmrl_cli.models.presets import *; from afmrl_cli.settings import ModelSettings\n"
        f"settings = ModelSettings(embedder={str(tiny_model('qwen2_vl'))!r})\n"
        "model_id(settings, 'embedder', Checkpoints(Path('x')))\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.slow
def test_an_embedder_without_an_adapter_imports_no_peft(tiny_model: TinyModel) -> None:
    code = (
        "import sys; from afmrl_cli.models.embedder import *; from afmrl_cli.settings import ModelSettings\n"
        f"settings = ModelSettings(embedder={str(tiny_model('qwen2_vl'))!r}, device='cpu')\n"
        "embedder = load_embedder(settings, EmbedSettings(), Checkpoints(Path('x')))\n"
        "assert embedder.encode([Item('red shirt')], instruction='').shape == (1, embedder.dimension)\n"
        "assert not {'peft', 'bitsandbytes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_each_role_has_photos_of_its_own_size(tiny_model: TinyModel) -> None:
    folder = str(tiny_model("qwen2_vl"))
    settings = ModelSettings(
        generator=folder, embedder=folder, device="cpu", max_pixels=112 * 112, generator_pixels=224 * 224
    )
    assert resolve_base(settings, "generator").max_pixels == 224 * 224
    assert resolve_base(settings, "embedder").max_pixels == 112 * 112
    assert resolve_base(settings, "generator").revision == resolve_base(settings, "embedder").revision, "shared weights"
    small = settings.model_copy(update={"min_pixels": 300 * 300})
    with pytest.raises(UsageError, match=r"model\.generator_pixels = 50176"):
        resolve_base(small, "generator")
