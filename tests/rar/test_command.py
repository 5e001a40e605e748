"""`afmrl train-rar` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.models.presets import model_id
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from tests import NANO
from tests.training.shop import write_shop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop", 24)


def invoke(root: Path, *words: str) -> Result:
    fixed = ["model.device=cpu", "split.validation=0.4", "split.test=0", "rar.validation_queries=5"]
    fixed += ["rar.query=text-to-photos"]
    short = ["rar.reward=rank", "attributes.max_new_tokens=24", "rar.margin=0.2"]
    sets = [word for pair in fixed + short for word in ("--set", pair)]
    return CliRunner().invoke(
        app, ["train-rar", str(root), "--prompts", "2", "--group", "2", "--k", "2", *sets, *words]
    )


def test_training_then_nothing_to_do(root: Path) -> None:
    words = ["--from-base", "--steps", "1", "--name", "first", "--learning-rate", "1e-9"]
    trained = invoke(root, *words)
    assert trained.exit_code == 0, trained.output
    assert "checkpoint first" in trained.stdout and "no attributes" in trained.stdout and "recall@10" in trained.stdout
    assert "queries (text-to-photos) against" in trained.stderr and "held-out mrr" in trained.stderr
    assert "Warning" not in trained.stderr and "{'loss'" not in trained.output

    again = json.loads(invoke(root, *words, "--json").stdout)
    assert again["schema"] == "afmrl.train-rar/1" and again["already_done"] is True and again["checkpoint"] == "first"


def test_it_is_rewarded_by_an_embedder_that_reads_turns(root: Path, tiny_model: Callable[[str], Path]) -> None:
    chosen = {"model.embedder": str(tiny_model("qwen3_vl")), "model.embed_template": "qwen3-vl-embedding"}
    words = ["--from-base", "--steps", "1", "--learning-rate", "1e-9", "--json"]
    trained = invoke(root, *words, *(f"--set={name}={value}" for name, value in chosen.items()))
    assert trained.exit_code == 0, trained.output
    manifest = Checkpoints(root / ".afmrl" / "checkpoints").get(json.loads(trained.stdout)["checkpoint"])
    ids = []
    for template in ("plain", chosen["model.embed_template"]):
        settings = load_settings(root, chosen | {"model.embed_template": template, "model.device": "cpu"}, NANO)
        ids.append(model_id(settings.model, "embedder", Checkpoints(root)))
    assert ids[0] != manifest.inputs["embedder"] == ids[1]


@pytest.mark.slow
def test_a_collapse_stops_the_run_and_is_a_failed_check(root: Path) -> None:
    words = ["--from-base", "--steps", "9", "--learning-rate", "1", "--set", "rar.validate_every=1"]
    stopped = invoke(root, *words, "--json")
    assert stopped.exit_code == 1, stopped.output
    content = json.loads(stopped.stdout)
    assert "at the start" in content["collapsed"] and content["step"] < 9
    again = invoke(root, *words)
    assert again.exit_code == 1 and "error: the policy collapsed: " in again.stderr and "--beta" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 4, "no SFT checkpoint to start from"),
        (["--from-base", "--loss", "ppo"], 2, "--loss"),
        (["--from-base", "--embedder", "embedder-9"], 4, "no checkpoint 'embedder-9'"),
        (["--from-base", "--k", "50"], 3, "the gallery has"),
    ],
)
def test_one_message_and_an_exit_code(root: Path, words: list[str], code: int, said: str) -> None:
    result = invoke(root, *words)
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0] and "Traceback" not in result.output
