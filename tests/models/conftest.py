"""Fixtures for tests of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from afmrl_cli.errors import ModelError
from afmrl_cli.settings import ModelSettings
from tests.tiny import ARCHITECTURES


@dataclass(frozen=True)
class Adapter:
    """What a checkpoint store says of an adapter."""

    name: str
    base: str
    revision: str
    folder: Path


class Adapters:
    """A checkpoint store of a dictionary."""

    def __init__(self, *adapters: Adapter) -> None:
        self._by_name = {adapter.name: adapter for adapter in adapters}

    def get(self, name: str) -> Adapter:
        if name not in self._by_name:
            raise ModelError(f"no checkpoint {name}")
        return self._by_name[name]


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings_for(folder: Path, **changes: object) -> ModelSettings:
    """Settings with the same base for both roles, small pictures."""
    fields = {"generator": str(folder), "embedder": str(folder), "device": "cpu", "max_pixels": 64 * 64} | changes
    return ModelSettings.model_validate(fields)
