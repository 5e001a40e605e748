"""Every example is run, by the commands that it shows."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from afmrl_cli.nano.model import nano_folder

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def afmrl_on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `afmrl` is the project that is being tested."""
    script = tmp_path / "bin" / "afmrl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m afmrl_cli "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}


def test_first_catalog(tmp_path: Path, afmrl_on_path: dict[str, str]) -> None:
    assert (nano_folder() / "model.safetensors").is_file()
    shop = tmp_path / "shop"
    shop.mkdir()
    command = ["bash", str(EXAMPLES / "first-catalog.sh"), str(shop)]
    done = subprocess.run(command, capture_output=True, text=True, env=afmrl_on_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with (shop / "attributes.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"NB-01", "NB-02", "NB-03", "TS-01", "DR-01", "HO-01"}
    assert rows["NB-01"]["attr_colour"] == "navy"
    assert rows["NB-02"]["attr_colour"] == "burgundy"
    assert "data:image/jpeg;base64," in (shop / "like.html").read_text("utf-8")
    like = (shop / "run.trec").read_text("utf-8").splitlines()
    best = {line.split()[0]: line.split()[2] for line in like if line.split()[3] == "1"}
    assert set(best) == {"NB-01", "NB-03"}
    assert not (EXAMPLES / "first-catalog" / ".afmrl").exists()
