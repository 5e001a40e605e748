"""A small embedder, and environments on a small shop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.rar.environment import Environments, make_environments
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests.tiny import ARCHITECTURES, tiny_settings
from tests.training.shop import write_shop

Make = Callable[..., Environments]


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """16 products of two listings each, two photos a listing."""
    return CatalogFolder(write_shop(tmp_path / "shop", 16, listings_each=2) / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> Callable[..., Settings]:
    """`settings(**{"rar.k": 2})`: a tiny Qwen2-VL for both roles, fp32, half of the products for validation."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.4,
            "rar.k": 3,
            "rar.reward": "recall",
        },
    )


@pytest.fixture
def make(shop: CatalogFolder, tmp_path: Path) -> Make:
    """`make(settings)`: environments of the shop, kept in one run folder."""

    def environments(settings: Settings, folder: CatalogFolder = shop, bases: Bases | None = None) -> Environments:
        checkpoints = Checkpoints(folder.checkpoints)
        embedder = load_embedder(settings.model, settings.embed, checkpoints, bases=bases, catalog=settings.catalog)
        return make_environments(Workspace(folder, settings, Silent()), embedder, tmp_path / "run", Problems())

    return environments
