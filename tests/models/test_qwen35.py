"""A small random Qwen3.5 through every command that uses or trains a model, one after another on one shop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, open_role
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.families import THOUGHT
from afmrl_cli.models.reranker import choose_words, make_reranker
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from tests import NANO
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
[rerank]
steps = 2
batch_size = 4
chunk_size = 2
validate_every = 2
[rar]
steps = 1
prompts = 2
group = 4
k = 3
temperature = 0.5
least_spread = 0
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
        ("train-rerank",),
        ("search", "red", "--rerank=3", "--set=model.reranker_checkpoint=reranker-1"),
        ("cycle", "--set=cycle.keep_worse=true"),
    ):
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, (words, done.output[-2000:])
    names = {each.name for each in (shop / ".afmrl/checkpoints").iterdir() if each.is_dir()}
    assert {"generator-1", "generator-2", "embedder-1", "reranker-1"} <= names


def test_the_reranker_closes_the_thought_and_a_pair_does_not_depend_on_its_batch(
    tiny_model: Callable[[str], Path],
) -> None:
    flags = {"model.generator": str(tiny_model("qwen3_5")), "model.device": "cpu", "model.precision": "fp32"}
    settings = load_settings(None, flags, NANO)
    checkpoints = Checkpoints(Path("nowhere"))
    opened = open_role(settings.model, "reranker", checkpoints, Bases(), Silent())
    words = choose_words(opened.loaded.vision(opened.base).processor.tokenizer, "tiny")
    reranker = make_reranker(opened, words, 0.5, settings, Silent())
    pairs = [(Item("red shirt"), Item("a red shirt with a long text")), (Item("x"), Item("y"))]
    prompt = reranker.text(reranker.read(pairs[0]))
    assert prompt.rstrip().endswith(THOUGHT[1]), "what comes next is the verdict, not a thought"
    alone = np.concatenate([reranker.score([pair]) for pair in pairs])
    assert reranker.score(pairs) == pytest.approx(alone, abs=1e-5)
    (first, second), _ = reranker.score(pairs)
    assert first != second, "each order is read"
