"""Fixtures for tests of retrieval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def model(tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a small model with random weights."""
    return tiny_model("qwen2_vl")


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_model: Callable[[str], Path]) -> Path:
    """The same, for fixtures that live longer than one test."""
    return tiny_model("qwen2_vl")
