"""A small shop whose products are listed twice, and settings to teach a tiny reranker."""

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
    """32 products, two listings of one photo each."""
    return CatalogFolder(write_shop(tmp_path / "shop", 32, listings_each=2, photos=1) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"rerank.steps": 4})`: a tiny Qwen2-VL, fp32, four queries a step, two in memory at a time."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.25,
            "split.test": 0.25,
            "rerank.batch_size": 4,
            "rerank.chunk_size": 2,
            "rerank.negatives": 2,
            "rerank.candidates": 4,
            "rerank.learning_rate": 0.01,
            "rerank.steps": 4,
            "rerank.validate_every": 2,
            "rerank.save_every": 1,
        },
    )
