"""A small shop, and the settings to train a tiny model on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests.training.shop import write_shop


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """40 products of two photos each."""
    return CatalogFolder(write_shop(tmp_path / "shop", 40) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"agcl.steps": 4})`: a tiny Qwen2-VL, fp32, weights from the catalog's own columns, batches of 8."""
    model = str(tiny_model("qwen2_vl"))

    def make(**changes: object) -> Settings:
        flags: dict[str, object] = {
            "model.embedder": model,
            "model.generator": model,
            "model.device": "cpu",
            "model.precision": "fp32",
            "split.validation": 0.25,
            "agcl.attributes": "given",
            "agcl.batch_size": 8,
            "agcl.chunk_tokens": 128,
            "agcl.learning_rate": 0.003,
            "agcl.steps": 6,
            "agcl.validate_every": 3,
            "agcl.save_every": 1,
        }
        return load_settings(None, flags | changes, {})

    return make
