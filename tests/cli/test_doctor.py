"""`afmrl doctor`, on installations that are really broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.cli.doctor import _kernels
from afmrl_cli.retrieval.faiss_install import faiss_conflict, installed_faiss
from afmrl_cli.sources import load_settings
from tests import NANO


def doctor(*arguments: str, extra: Path | None = None) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where nothing is imported yet."""
    path = os.pathsep.join([*([str(extra)] if extra else []), *filter(None, sys.path)])
    command = [sys.executable, "-m", "afmrl_cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=300)


def in_process(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def install(site: Path, name: str, release: str) -> None:
    """What pip leaves behind of a distribution."""
    folder = site / f"{name.replace('-', '_')}-{release}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")


def test_a_sound_installation() -> None:
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "libraries' warnings about each other are nothing to a user"
    content = json.loads(done.stdout)
    assert content["ok"] is True and content["troubles"] == []
    assert content["versions"]["torch"] == version("torch")
    assert content["device"]["memory"] > 1 << 30
    assert {row["preset"] for row in content["models"]} == {"nano", "light", "qwen3", "qwen3.5", "paper"}
    table = in_process("doctor", "--set=model.device=cpu").stdout
    assert "fp32 for attributes, train-sft, embed, train-agcl, train-rar" in table
    assert "Qwen/Qwen2-VL-2B-Instruct" in table and "GiB" in table


def test_what_stands_behind_an_endpoint_is_told_in_place_of_the_presets_model() -> None:
    named = [
        f"--set={key}"
        for key in ("model.preset=nano", "embed.endpoint=http://u:secret@127.0.0.1:9", "embed.endpoint_model=org/M")
    ]
    content = json.loads(in_process("doctor", "--json", *named).stdout)
    told = [(row["role"], row["model"], row["state"]) for row in content["models"] if row["preset"] == "(settings)"]
    assert told == [("embedder", "org/M", "behind an endpoint, which is not asked here")]
    here = ["attributes", "train-sft", "train-rerank", "train-recommender", "train-vision"]
    assert [each["stage"] for each in content["memory"]] == here, "what runs here"
    shown = in_process("config", *named)
    assert '# embedder = ""  # default: here org/M behind the endpoint' in shown.stdout
    both = in_process("doctor", *named, "--set=attributes.endpoint=http://127.0.0.1:9")
    assert "fits" not in both.stdout and "secret" not in both.output and both.exit_code == 0


def test_a_model_whose_shape_cannot_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "hidden_size": "x"}')
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    done = in_process("doctor", f"--set=model.embedder={tmp_path}")
    assert done.exit_code == 0 and "memory can't be estimated" in done.stderr.replace("\n", "")


def test_what_runs_delta_nets(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"model.embedder": str(tiny_model("qwen3_5")), "model.device": "cpu"}
    done = in_process("doctor", "--json", *(f"--set={name}={value}" for name, value in chosen.items()))
    assert json.loads(done.stdout)["device"]["delta_nets"] == "by PyTorch: their kernels are for GPUs"
    settings = load_settings(None, chosen | {"model.preset": "nano"}, NANO)
    lacking = "by PyTorch, slower: pip install flash-linear-attention causal-conv1d"
    assert _kernels(settings, "cuda") == {"delta_nets": lacking}
    for name in ("flash-linear-attention", "causal-conv1d"):
        install(tmp_path, name, "1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _kernels(settings, "cuda") == {"delta_nets": "by kernels"}
    assert _kernels(load_settings(None, {"model.preset": "nano"}, NANO), "cuda") == {}


def test_two_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faiss_conflict() is None
    assert "faiss-cpu" in installed_faiss()
    install(tmp_path, "faiss-gpu", "1.15.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    conflict = faiss_conflict()
    assert conflict is not None
    assert conflict.message == "faiss-cpu and faiss-gpu are both installed and overwrite each other"
    done = in_process("doctor")
    assert done.exit_code == 1
    assert "python -m pip uninstall -y faiss-cpu faiss-gpu\n" in done.stdout
    assert "python -m pip install faiss-gpu==1.15.1\n" in done.stdout
    content = json.loads(in_process("doctor", "--json").stdout)
    assert content["troubles"][0]["mend"] == list(conflict.commands)
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n", "utf-8")
    searching = in_process("search", "a", "--catalog", str(tmp_path))
    assert "warning: faiss-cpu and faiss-gpu are both installed" in searching.stderr


def test_torchvision_that_can_not_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\ntorch.library.register_fake('torchvision::nms')(lambda: None)\n"
    )
    done = doctor("--json", extra=tmp_path)
    assert done.returncode == 1
    trouble = json.loads(done.stdout)["troubles"][0]
    assert "torchvision::nms does not exist" in trouble["what"]
    assert trouble["mend"] == ["python -m pip uninstall -y torchvision"]


def test_settings_that_this_machine_can_not_follow() -> None:
    done = in_process("doctor", "--set", "model.device=cuda", "--set", "model.embedder=/no/such/model", "--json")
    content = json.loads(done.stdout)
    assert any("/no/such/model" in row["model"] and row["state"].startswith("no") for row in content["models"])
    assert (done.exit_code == 1) == bool(content["troubles"])
