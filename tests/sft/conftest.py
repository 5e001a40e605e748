"""A small shop whose own columns say what the generator is to answer, and settings to teach a tiny model."""

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
    """40 products of two photos each, with attr_colour, attr_neckline and attr_series."""
    return CatalogFolder(write_shop(tmp_path / "shop", 40) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"sft.steps": 4})`: a tiny Qwen2-VL, fp32, the catalog's own columns, batches of 4 in chunks of 2."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.25,
            "attributes.max_new_tokens": 48,
            "sft.source": "columns",
            "sft.batch_size": 4,
            "sft.chunk_size": 2,
            "sft.learning_rate": 0.003,
            "sft.steps": 6,
            "sft.validate_every": 3,
            "sft.save_every": 1,
        },
    )
