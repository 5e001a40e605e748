"""What every test shares: no settings from outside, no network, one thread a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Tests run side by side on few cores; several torch pools in each would only fight. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AFMRL_* of the developer's shell, and a working directory of the test's own."""
    for name in [name for name in os.environ if name.startswith("AFMRL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_model("qwen2_vl")` is the folder of a small model with random weights; see tests/tiny.py."""
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        from tests.tiny import make_tiny

        if architecture not in made:
            made[architecture] = make_tiny(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return make
