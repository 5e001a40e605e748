"""Adapters and rows for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from afmrl_cli.store.checkpoints import Manifest, Role
from afmrl_cli.store.database import StoredAttributes


def adapter(folder: Path, numbers: int = 4) -> Path:
    """A folder as PEFT's save_pretrained writes it."""
    folder.mkdir(parents=True)
    save_file({"a": np.arange(numbers, dtype=np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "README.md").write_text("an adapter")
    return folder


def manifest(role: Role = "embedder", **more: object) -> Manifest:
    return Manifest(role=role, base="nano", **more)  # type: ignore[arg-type]


def attributes(fingerprint: str, generator: str = "g", prompt: str = "p", **more: object) -> StoredAttributes:
    row = {"listing": "A", "text": "color: navy", "failure": None, "created": 1.5} | more
    return StoredAttributes(fingerprint, generator, prompt, **row)  # type: ignore[arg-type]
