"""An exported vision encoder makes the same vectors without afmrl, in plain transformers and torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afmrl_cli.errors import DataError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.export_vision import export_vision
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.vision_encoder import load_vision_encoder
from afmrl_cli.store.checkpoints import Checkpoints
from tests.tiny import photo

from .adapters import Pooling, add_vision
from .test_vision_encoder import settings_of

ENCODE = """
import sys
assert not any(name.startswith("afmrl") for name in sys.modules)
from load import PhotoEncoder, open_photo
vectors = PhotoEncoder(sys.argv[1])([open_photo(file) for file in sys.argv[3:]])
import numpy
numpy.save(sys.argv[2], vectors.numpy())
assert not any(name.startswith("afmrl") for name in sys.modules)
"""


def test_it_makes_the_same_vectors_without_afmrl(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Takes what importing transformers takes in another process."""
    check("qwen3_vl", "attention", tiny_model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_5", "nano"])
def test_it_does_for_every_family(architecture: str, tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    check(architecture, "mean" if architecture == "qwen2_vl" else "attention", tiny_model, tmp_path)


def check(architecture: str, pooling: Pooling, tiny_model: Callable[[str], Path], place: Path) -> None:
    """Export a vision encoder, and compare what its program makes in a process of its own."""
    settings = settings_of("nano" if architecture == "nano" else tiny_model(architecture))
    store, base = Checkpoints(place / "checkpoints"), resolve_base(settings.model, "vision")
    manifest = add_vision(store, base, "eyes", dimension=20, pooling=pooling)
    out = place / "exported"
    export_vision(manifest, base, store, out)
    files = [place / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        photo(i, 200 - 60 * i, 130).save(file)
    (place / "turned.jpg").write_bytes(b"")
    exif = Image.Exif()
    exif[274] = 6  # stands on its side
    photo(9, 90, 60).save(place / "turned.jpg", exif=exif, quality=95)
    files.append(place / "turned.jpg")
    run = [sys.executable, "-c", ENCODE, str(out), str(place / "made.npy"), *map(str, files)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(run, cwd=out, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = np.load(place / "made.npy")
    ours = load_vision_encoder(settings, store, None, Silent()).encode([Item("", (f,)) for f in files], instruction="")
    assert made.shape == (4, 20) and np.abs(made - ours).max() < 1e-4


def test_its_folder_says_what_it_is(tmp_path: Path) -> None:
    settings = settings_of("nano")
    store, base = Checkpoints(tmp_path / "checkpoints"), resolve_base(settings.model, "vision")
    manifest = add_vision(store, base, "eyes")
    export_vision(manifest, base, store, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    needed = {"config.json", "model.safetensors", "pooler.safetensors", "preprocessor_config.json", "load.py"}
    assert needed <= names and not names & {"manifest.json", "adapter_model.safetensors"}
    told = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "eyes" in told and "python load.py" in told and "vectors of 192" in told
    with pytest.raises(DataError, match="is there already"):
        export_vision(manifest, base, store, tmp_path / "out")
