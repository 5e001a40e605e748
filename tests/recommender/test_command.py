"""`afmrl train-recommender`, and what `recommend` and `eval-recommender` make of its checkpoint, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from tests.recommender.shop import write_shop

TOML = """[model]
generator = "{model}"
embedder = "{model}"
device = "cpu"
[recommend]
validation = 0.25
[recommender]
text = ["title"]
item_tokens = 8
history = 3
candidates = 4
answers = 1
shortlist = 5
steps = 2
grpo_steps = 1
batch_size = 4
chunk_size = 4
group = 2
prompts = 2
validation_questions = 20
constrained = true
"""
CHOSEN = ["--set", "model.recommender_checkpoint=recommender-1"]


def call(command: str, root: Path, *words: str) -> Result:
    place = ["--catalog", str(root)] if command == "recommend" else [str(root)]
    return CliRunner().invoke(app, [command, *place, *words])


def document(command: str, root: Path, *words: str) -> dict[str, Any]:
    result = call(command, root, *words, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """A shop with recommender-1."""
    root = tmp_path_factory.mktemp("trained") / "shop"
    write_shop(root)
    (root / "afmrl.toml").write_text(TOML.format(model=tiny_model("qwen2_vl")))
    result = call("train-recommender", root)
    assert result.exit_code == 0, result.output
    assert "checkpoint recommender-1" in result.stdout and "fused, weight" in result.stdout
    assert "get another first listing" in result.stdout
    return root


def test_a_second_run_says_that_it_is_done(trained: Path) -> None:
    content = document("train-recommender", trained)
    assert content["already_done"] and content["checkpoint"] == "recommender-1"
    assert content["plan"]["steps"] == {"sft": 2, "grpo": 1} and content["stages"].keys() == {"sft", "grpo"}


def test_recommend_is_ordered_by_it(trained: Path) -> None:
    plain = document("recommend", trained, "--customer", "C3", "-k", "24")
    ordered = document("recommend", trained, "--customer", "C3", "-k", "24", *CHOSEN)
    assert (plain["ranking"], ordered["ranking"]) == ("fused", "recommender")
    first, ours = ([each["id"] for each in content["products"]] for content in (plain, ordered))
    assert sorted(ours[:5]) == sorted(first[:5]) and ours[5:] == first[5:]


def test_the_evaluation_has_a_row_of_it(trained: Path) -> None:
    content = document("eval-recommender", trained, "--max-queries", "10", *CHOSEN)
    rows = {each["system"]: each["metrics"] for each in content["systems"]}
    assert {"fused", "recommender"} <= rows.keys()
    assert 0 <= rows["recommender"]["hr@1_of_10"] <= 1
    assert [each["system"] for each in content["comparisons"] if each["system"] == "recommender"]


def test_it_is_a_checkpoint_like_all_others(trained: Path, tmp_path: Path) -> None:
    assert "recommender-1" in CliRunner().invoke(app, ["checkpoints", "list", "--catalog", str(trained)]).stdout
    place = tmp_path / "out"
    words = ["checkpoints", "export", "recommender-1", str(place), "--to", "afmrl", "--catalog", str(trained)]
    exported = CliRunner().invoke(app, words)
    assert exported.exit_code == 0, exported.output
    other = tmp_path / "other"
    shutil.copytree(trained, other, ignore=shutil.ignore_patterns("checkpoints", "runs"))
    brought = CliRunner().invoke(app, ["checkpoints", "import", str(place), "--catalog", str(other)])
    assert brought.exit_code == 0, brought.output
    assert document("recommend", other, "--customer", "C3", *CHOSEN)["ranking"] == "recommender"


def test_one_of_another_role_is_one_message(trained: Path) -> None:
    wrong = call("recommend", trained, "--customer", "C3", "--set", "model.recommender_checkpoint=nothing-1")
    assert wrong.exit_code == 4 and wrong.stderr.count("\n") <= 3 and "nothing-1" in wrong.stderr
    role = call("search", trained, "shirt", "--set", "model.embedder_checkpoint=recommender-1")
    assert role.exit_code != 0 and "Traceback" not in role.output
