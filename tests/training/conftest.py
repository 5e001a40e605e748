"""A small shop, and the settings to train a tiny model on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from tests.tiny import tiny_settings
from tests.training.shop import write_shop


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """40 products of two photos each."""
    return CatalogFolder(write_shop(tmp_path / "shop", 40) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"agcl.steps": 4})`: a tiny Qwen2-VL, fp32, weights from the catalog's own columns, batches of 8."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.25,
            "agcl.attributes": "given",
            "agcl.batch_size": 8,
            "agcl.chunk_tokens": 128,
            "agcl.learning_rate": 0.003,
            "agcl.steps": 6,
            "agcl.validate_every": 3,
            "agcl.save_every": 1,
        },
    )
