"""A small shop whose photos can be labelled by its columns, and settings for a tiny model."""

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
    """40 products of two listings with a photo each, with attr_colour, attr_neckline and attr_series."""
    return CatalogFolder(write_shop(tmp_path / "shop", 40, listings_each=2, photos=2) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"vision.classes": "colour"})`: a tiny Qwen2-VL, fp32."""
    return tiny_settings(tiny_model("qwen2_vl"), {"split.validation": 0.25, "split.test": 0.25})
