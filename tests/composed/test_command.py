"""`afmrl train-composed` as it is typed, and its checkpoint in search and eval."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from tests.composed.conftest import write_composed_shop


def call(root: Path, command: str, *words: str) -> Result:
    return CliRunner().invoke(app, [command, str(root), *words])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """A shop with settings."""
    made = write_composed_shop(tmp_path_factory.mktemp("typed") / "shop")
    model = tiny_model("qwen2_vl")
    (made / "afmrl.toml").write_text(
        f'[model]\nembedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nprecision = "fp32"\n'
        "[split]\nvalidation = 0.25\ntest = 0.2\n"
        "[composed]\nsteps = 2\nbatch_size = 8\nvalidate_every = 2\nlearning_rate = 0.01\n"
    )
    return made


def test_a_checkpoint_is_made_and_search_and_eval_use_it(root: Path) -> None:
    planned = call(root, "train-composed", "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    content = json.loads(planned.stdout)
    assert content["schema"] == "afmrl.train-composed/1" and content["estimate"]["step_seconds"] > 0
    assert content["plan"]["triplets"] and not (root / ".afmrl" / "checkpoints").exists()

    made = call(root, "train-composed")
    assert made.exit_code == 0, made.output
    assert "checkpoint embedder-1" in made.stdout and "batch: both sides" in made.stdout
    assert "triplets:" in made.stderr and max(map(len, made.stdout.splitlines()[:9])) <= 80

    again = json.loads(call(root, "train-composed", "--json").stdout)
    assert again["already_done"] and again["checkpoint"] == "embedder-1"
    assert set(again["stages"]) == {"batch", "bank"} and again["metrics"].keys() >= {"recall@1", "mrr"}

    done = next(root.glob(".afmrl/runs/train-composed-*/done.json"))
    whole = done.read_text()
    for forged in ({"stages": [1]}, {"stages": {"batch": {"before": {"mrr": 1}}}}, {"validation": None}):
        done.write_text(json.dumps(json.loads(whole) | forged))
        refused = call(root, "train-composed")
        assert refused.exit_code == 3 and "done.json: damaged" in " ".join(refused.stderr.split()), refused.output
    done.write_text(whole)

    chosen = ["--set", "model.embedder_checkpoint=embedder-1"]
    assert call(root, "embed", *chosen).exit_code == 0
    like = ["--like", "S0", "--change", "colour: blue", "--catalog", str(root), "--json", *chosen]
    searched = CliRunner().invoke(app, ["search", *like])
    assert searched.exit_code == 0, searched.output
    assert "never learnt" not in searched.stderr
    untaught = CliRunner().invoke(app, ["embed", str(root)])
    assert untaught.exit_code == 0, untaught.output
    untaught = CliRunner().invoke(app, ["search", *like[:-2]])
    assert "`afmrl train-composed` teaches it" in " ".join(untaught.stderr.split())
    hits = json.loads(searched.stdout)["hits"]
    assert hits and all(hit["id"] != "S0" for hit in hits)
    scored = call(root, "eval", "--protocol", "composed", "--split", "all", "--json", *chosen)
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["systems"][0]["composed"]["metrics"]["R@10"] >= 0


def test_an_embedder_that_can_not_be_trained_is_told_apart(root: Path) -> None:
    refused = call(root, "train-composed", "--embedder", "light")
    assert refused.exit_code == 4 and len(refused.stderr.strip().splitlines()) <= 3, refused.stderr
    refused = call(root, "train-composed", "--windows", "close")
    assert refused.exit_code == 2 and "composed.windows" in refused.stderr
