"""One shop and one service for the tests that spoil neither."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serve.shop import Client, make_shop, opened, serving


@pytest.fixture(scope="session")
def model(tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a small model with random weights."""
    return tiny_model("qwen2_vl")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The folder of an embedded shop; tests copy it."""
    root = tmp_path_factory.mktemp("served") / "shop"
    make_shop(root, model)
    return root


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, embedded: Path, model: Path) -> Iterator[Client]:
    """A client of a service that no test spoils."""
    root = tmp_path_factory.mktemp("kept") / "shop"
    shutil.copytree(embedded, root)
    with serving(opened(root, model)) as client:
        yield client


@pytest.fixture
def shop(tmp_path: Path, embedded: Path) -> Path:
    """A copy of the shop that a test may spoil."""
    root = tmp_path / "shop"
    shutil.copytree(embedded, root)
    return root
