"""Fixtures for tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.settings import ModelSettings
from afmrl_cli.store.checkpoints import Checkpoints
from tests.tiny import ARCHITECTURES

NO_CHECKPOINTS = Checkpoints(Path("no-such-folder"))


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings_for(folder: Path, **changes: object) -> ModelSettings:
    """Settings with the same base for both roles, small pictures."""
    fields = {"generator": str(folder), "embedder": str(folder), "device": "cpu", "max_pixels": 64 * 64} | changes
    return ModelSettings.model_validate(fields)
