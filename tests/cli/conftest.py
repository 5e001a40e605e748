"""What the tests of retrieval commands share; each file makes the shop that it has `embedded`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def shop(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, and the folder to stand in."""
    root = tmp_path / "shop"
    shutil.copytree(embedded, root)
    monkeypatch.chdir(root)
    return root
