"""`afmrl train-sft` as it is typed."""

from __future__ import annotations

import json
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
        fixed = ["--generator", model, "--batch-size", "4", "--chunk-size", "4", "--set", "model.device=cpu"]
        return CliRunner().invoke(app, ["train-sft", str(shop.root), *fixed, *words])

    return run


def test_dry_run_then_training_then_nothing_to_do(shop: CatalogFolder, invoke: Callable[..., Result]) -> None:
    words = ["--source", "columns", "--steps", "2", "--set", "split.validation=0.2"]
    planned = invoke(*words, "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    content = json.loads(planned.stdout)
    assert content["schema"] == "afmrl.train-sft/1" and content["plan"]["keys"] == ["colour", "neckline", "series"]
    assert content["estimate"]["peak_bytes"] > 0 and content["settings"]["sft"]["batch_size"] == 4
    assert not shop.runs.exists()

    trained = invoke(*words, "--name", "first")
    assert trained.exit_code == 0, trained.output
    assert "checkpoint first" in trained.stdout and "attribute accuracy" in trained.stdout
    assert "neckline" in trained.stdout and "targets from columns" in trained.stderr

    again = json.loads(invoke(*words, "--name", "first", "--json").stdout)
    assert again["already_done"] is True and again["best"]["keys"]["colour"]["references"] > 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--source", "teacher"], 3, "no attributes by a teacher"),
        (["--source", "oracle"], 2, "--source"),
        (["--set", "sft.rank=12"], 2, "sft.rank"),
        (["--source", "columns", "--columns", "fabric"], 2, "no column 'fabric'"),
        (["--source", "columns", "--set", "model.generator_checkpoint=nothing"], 4, "no checkpoint 'nothing'"),
    ],
)
def test_one_message_and_an_exit_code(invoke: Callable[..., Result], words: list[str], code: int, said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert "Traceback" not in result.output
