"""What every test shares: no settings from outside, no network, one thread a worker."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import NANO

# The same examples each time: a test that fails here fails everywhere. `benchmarks.fuzz` looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

# Tests run side by side on few cores; several torch pools in each would only fight. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ |= NANO  # tests/models/test_auto.py unsets it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a file's tests stay with one worker, so that what they share is made once; those of
    tests/cycle share a whole cycle.
    """
    for item in items:
        folder = item.path.parent
        item.add_marker(
            pytest.mark.xdist_group(folder.name if folder.name == "cycle" else f"{folder.name}/{item.path.stem}")
        )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AFMRL_*, no width and no settings of the developer's own, and a working directory of the test's own."""
    for name in [name for name in os.environ if name.startswith("AFMRL_") and name not in NANO]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # a test that wants a width says which
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own-settings"))
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


def alone(work: Callable[..., object], *arguments: object) -> None:
    """Do `work` in a forked process: OpenMP's threads stayed behind, and waiting for them would never end."""
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    work(*arguments)


def kill_once(there: Callable[[], object], work: Callable[[], object]) -> None:
    """Do `work` in a process of its own and end that by SIGKILL as soon as `there()`.

    Forked: importing the libraries again would take longer than the work.
    """
    process = multiprocessing.get_context("fork").Process(target=alone, args=(work,))
    process.start()
    try:
        while process.is_alive() and not there():
            time.sleep(0.01)
        assert process.is_alive(), "ended before it was killed"
    finally:
        process.kill()
        process.join()


MakeDisk = Callable[[str], Path]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """`make_disk("1m")` is the folder of a real disk of that size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted: list[Path] = []

    def make(size: str) -> Path:
        mount = shutil.which("mount")
        if os.geteuid() != 0 or not mount:
            pytest.skip("mounting a small disk needs root")
        command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.strip()}")
        mounted.append(disk)
        return disk

    yield make
    for each in mounted:
        # Lazily: the exception that a test has caught may still hold a file.
        subprocess.run(["umount", "--lazy", str(each)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on `disk`; the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast
