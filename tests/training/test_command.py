"""`afmrl train-agcl` as it is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.store.folder import CatalogFolder


@pytest.fixture
def invoke(shop: CatalogFolder, tiny_model: Callable[[str], Path]) -> Callable[..., Result]:
    model = str(tiny_model("qwen2_vl"))

    def run(*words: str) -> Result:
        fixed = ["--embedder", model, "--batch-size", "8", "--set", "model.device=cpu", "--set", "split.validation=0.3"]
        return CliRunner().invoke(app, ["train-agcl", str(shop.root), *fixed, *words])

    return run


def test_dry_run_then_training_then_nothing_to_do(shop: CatalogFolder, invoke: Callable[..., Result]) -> None:
    planned = invoke("--attributes", "given", "--steps", "2", "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    content = json.loads(planned.stdout)
    assert content["schema"] == "afmrl.train-agcl/1" and content["plan"]["steps"] == 2
    assert content["estimate"]["peak_bytes"] > 0 and content["settings"]["agcl"]["batch_size"] == 8
    assert not shop.runs.exists()

    trained = invoke("--attributes", "given", "--steps", "2", "--name", "first")
    assert trained.exit_code == 0, trained.output
    assert "checkpoint first" in trained.stdout and "recall@10" in trained.stdout
    held_out, tested, listings = (content["plan"][f"{side}_listings"] for side in ("validation", "test", "train"))
    words = " ".join(trained.stdout.split())
    line = re.search(r"\(validation: (\d+) queries of the kind photos, no attributes, gallery of (\d+)\)", words)
    assert line and 5 <= int(line[1]) <= int(line[2]) == held_out
    assert "afmrl eval (protocol photo) asks about" in words
    assert f"(test split: {tested} listings), in the whole catalog of 40" in words
    assert held_out + tested + listings == 40
    assert "pairs: " in trained.stderr and "pairs a second" in trained.stderr

    again = invoke("--attributes", "given", "--steps", "2", "--name", "first", "--json")
    assert json.loads(again.stdout)["already_done"] is True


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 3, "no attributes yet"),
        (["--loss", "triplet"], 2, "--loss"),
        (["--set", "agcl.rank=12"], 2, "agcl.rank"),
        (["--attributes", "given", "--batch-size", "500"], 3, "fewer than agcl.batch_size = 500"),
    ],
)
def test_one_message_and_an_exit_code(invoke: Callable[..., Result], words: list[str], code: int, said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert "Traceback" not in result.output
