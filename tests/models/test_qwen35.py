"""A small random Qwen3.5 through every command that uses or trains a model, one after another on one shop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.training.shop import write_shop

SETTINGS = """
[model]
generator = "{model}"
embedder = "{model}"
device = "cpu"
max_pixels = 4096
generator_images = 1
[split]
validation = 0.3
[attributes]
max_new_tokens = 24
[sft]
steps = 60
batch_size = 8
learning_rate = 0.01
lora_dropout = 0
rank = 32
alpha = 64
[agcl]
steps = 2
batch_size = 8
[rar]
steps = 1
prompts = 2
group = 4
k = 3
"""


@pytest.mark.slow
def test_every_command_takes_it(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_shop(tmp_path / "shop", 24, listings_each=2, photos=1)
    (shop / "afmrl.toml").write_text(SETTINGS.format(model=tiny_model("qwen3_5")))
    monkeypatch.chdir(shop)
    assert CliRunner().invoke(app, ["train-sft"]).exit_code == 0
    taught = "--set=model.generator_checkpoint=generator-1"
    for words in (
        ("attributes", taught),
        ("embed", taught),
        ("search", "red", taught),
        ("train-agcl", taught),
        ("train-rar", taught),
        ("cycle", "--set=cycle.keep_worse=true"),
    ):
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, (words, done.output[-2000:])
    names = {each.name for each in (shop / ".afmrl/checkpoints").iterdir() if each.is_dir()}
    assert {"generator-1", "generator-2", "embedder-1"} <= names
