"""Models come from the hub only after their size was shown and somebody said yes."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.hub import Hub, serve_hub

NAME = "Shop/Tiny-VL"
COMMAND = [sys.executable, "-m", "afmrl_cli", "embed", "shop", f"--set=model.embedder={NAME}"]


@pytest.fixture
def hub(tiny_model: Callable[[str], Path], tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "catalog.csv").write_text("id,title\n1,Bag\n2,Hat\n")
    with serve_hub(NAME, tiny_model("qwen2_vl"), "apache-2.0") as hub:
        yield hub


def environment(hub: Hub, place: Path) -> dict[str, str]:
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(place / "hub"), "TERM": "dumb"}
    return os.environ | own | {"PYTHONPATH": ":".join(sys.path), "HF_HUB_DISABLE_XET": "1"}


def embed(hub: Hub, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=place, env=environment(hub, place), capture_output=True, text=True, timeout=120
    )


def test_without_a_yes_nothing_is_fetched_and_size_and_licence_are_told(hub: Hub, tmp_path: Path) -> None:
    done = embed(hub, tmp_path)
    assert done.returncode == 4 and not done.stdout
    assert f"{NAME} (0.0 GB, apache-2.0): not on this disk, and not fetched without a yes" in done.stderr
    assert "AFMRL_MODEL_FETCH=yes" in done.stderr and "Traceback" not in done.stderr
    assert not hub.fetched


def test_a_yes_in_the_settings_fetches_it_once_and_never_code(hub: Hub, tmp_path: Path) -> None:
    done = embed(hub, tmp_path, "--set=model.fetch=yes")
    assert done.returncode == 0, done.stderr
    assert f"fetching {NAME} (0.0 GB, apache-2.0) from {hub.address}" in done.stderr
    assert hub.fetched.count("model.safetensors") == 1
    before = list(hub.asked)
    assert embed(hub, tmp_path).returncode == 0
    assert hub.asked == before, "what is on this disk is used without a question"


def test_a_person_at_a_terminal_is_asked(hub: Hub, tmp_path: Path) -> None:
    assert "Fetch" in typed(hub, tmp_path, "n\n") and not hub.fetched
    said = typed(hub, tmp_path, "y\n")
    assert "2 vectors computed" in said and "model.safetensors" in hub.fetched


def typed(hub: Hub, place: Path, answer: str) -> str:
    """Run the command on a terminal, type `answer` to its question, and return what stood there."""
    master, slave = pty.openpty()
    with subprocess.Popen(COMMAND, cwd=place, env=environment(hub, place), stdin=slave, stdout=slave, stderr=slave):
        os.close(slave)
        said = ""
        while select.select([master], [], [], 60)[0]:
            try:
                part = os.read(master, 4096).decode(errors="replace")
            except OSError:  # the other end is closed: the command has ended
                break
            said += part
            if "?" in part:
                os.write(master, answer.encode())
    os.close(master)
    return said


def test_never_is_never(hub: Hub, tmp_path: Path) -> None:
    done = embed(hub, tmp_path, "--set=model.fetch=no")
    assert done.returncode == 4 and "model.fetch = no" in done.stderr and not hub.asked


def test_a_folder_can_not_say_yes_for_its_user(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,Bag\n")
    (tmp_path / "afmrl.toml").write_text('[model]\nfetch = "yes"\n')
    done = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert done.exit_code == 2 and "model.fetch = yes fetches gigabytes without asking" in done.stderr
