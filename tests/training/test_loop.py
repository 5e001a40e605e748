"""A transformers Trainer that goes on from its own states, and a trainable adapter on a generator."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from afmrl_cli.attributes.request import Request
from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, active_adapter
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.generator import LocalGenerator, load_generator
from afmrl_cli.settings import Settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.training.adapter import ADAPTER_NAME, add_trainable, save_adapter, trainable
from afmrl_cli.training.loop import Resumable, common_arguments, train_resumably
from afmrl_cli.training_settings import TrainingSettings

from .test_run import MakeSettings, run

STEPS = 7
TEXTS = ["red cotton shirt", "blue denim jacket", "colour: green", "round neckline", "pattern: striped"]
LORA = TrainingSettings(rank=8, lora_dropout=0.2, save_every=2, warmup=0.3)


class TextTrainer(Resumable, Trainer):  # type: ignore[misc]
    """Next words of short texts; `broken_at` is a step whose loss is no number."""

    broken_at = -1

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **named)
        return loss * float("nan") if self.state.global_step == self.broken_at else loss

    def products_of_step(self) -> list[str]:
        return [f"S{self.state.global_step}"]


class At(TrainerCallback):  # type: ignore[misc]
    """Does something when a step has ended."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.step, self.do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.do()


def make(folder: Path, base: Settings, at: At | None = None) -> tuple[TextTrainer, LocalGenerator]:
    generator = load_generator(base.model, base.attributes, Checkpoints(folder))
    model = add_trainable(generator, LORA, None, Checkpoints(folder), "CAUSAL_LM")
    tokenizer = generator.processor.tokenizer

    def collate(texts: list[str]) -> dict[str, torch.Tensor]:
        batch = generator.processor.tensors(texts, [()] * len(texts))
        return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    arguments = common_arguments(LORA, folder / "run", steps=STEPS, peak_rate=0.01, device="cpu")
    (folder / "run").mkdir(parents=True, exist_ok=True)
    data: Any = [TEXTS[i % len(TEXTS)] + tokenizer.eos_token for i in range(2 * STEPS)]
    args = TrainingArguments(per_device_train_batch_size=2, **arguments)
    trainer = TextTrainer(model, args=args, train_dataset=data, data_collator=collate)
    if at is not None:
        trainer.add_callback(at)
    return trainer, generator


def weights(trainer: TextTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainable(trainer.model).items()}


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_going_on_gives_the_weights_of_an_unbroken_run(tmp_path: Path, settings: MakeSettings) -> None:
    whole, _ = make(tmp_path / "whole", settings())
    started: list[int] = []
    assert train_resumably(whole, Silent(), steps_per_epoch=2, at_start=lambda: started.append(1)) == 0
    assert started == [1] and [row["step"] for row in rows(tmp_path / "whole")] == [*range(1, STEPS + 1)]
    assert rows(tmp_path / "whole")[3]["epoch"] == 2.0

    def die() -> None:
        raise RuntimeError("dead")

    broken, _ = make(tmp_path / "broken", settings(), At(5, die))
    with pytest.raises(RuntimeError, match="dead"):
        train_resumably(broken, Silent(), steps_per_epoch=2)
    states = list((tmp_path / "broken" / "run").glob("state-*"))
    assert [state.name for state in states] == ["state-4"]
    written = {path.name for path in (tmp_path / "broken" / "run").rglob("*") if path.is_file()}
    assert written == {"state.safetensors", "state.json", "trainer_state.json", "metrics.jsonl"}, "no pickles"

    resumed, _ = make(tmp_path / "broken", settings())
    assert train_resumably(resumed, Silent(), steps_per_epoch=2, at_start=lambda: started.append(2)) == 4
    assert started == [1], "only a new run has a start"
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")

    again, _ = make(tmp_path / "broken", settings())
    assert train_resumably(again, Silent(), steps_per_epoch=2) == STEPS, "killed after the last step"
    assert again.state.global_step == STEPS


def test_ctrl_c_saves_first(tmp_path: Path, settings: MakeSettings) -> None:
    trainer, _ = make(tmp_path, settings(), At(3, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        train_resumably(trainer, Silent(), steps_per_epoch=2)
    assert [state.name for state in (tmp_path / "run").glob("state-*")] == ["state-3"]
    resumed, _ = make(tmp_path, settings())
    assert train_resumably(resumed, Silent(), steps_per_epoch=2) == 3


def test_a_loss_that_is_no_number_changes_nothing(tmp_path: Path, settings: MakeSettings) -> None:
    trainer, _ = make(tmp_path, settings())
    trainer.broken_at = 3
    with pytest.raises(ModelError, match=r"step 4: training broke down \(loss nan\) on products S3; .*state-2"):
        train_resumably(trainer, Silent(), steps_per_epoch=2)
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())
    assert json.loads((tmp_path / "run" / "failed-batch.json").read_text())["products"] == ["S3"]


def test_states_that_do_not_fit(tmp_path: Path, settings: MakeSettings) -> None:
    trainer, _ = make(tmp_path, settings(), At(3, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        train_resumably(trainer, Silent(), steps_per_epoch=2)
    (tmp_path / "run" / "state-3" / "state.safetensors").write_bytes(b"x")
    resumed, _ = make(tmp_path, settings())
    with pytest.raises(ModelError, match="state-3: can't go on from here"):
        train_resumably(resumed, Silent(), steps_per_epoch=2)


def test_a_generators_adapter_beside_the_embedders(tmp_path: Path, settings: MakeSettings, shop: Any) -> None:
    """One base with the embedder's frozen adapter on it: the generator's is trained, the embedder stays as it was."""
    checkpoint = run(shop, settings()).checkpoint
    chosen = settings(**{"model.embedder_checkpoint": checkpoint, "attributes.max_new_tokens": 8})
    checkpoints, bases = Checkpoints(shop.checkpoints), Bases()
    embedder = load_embedder(chosen.model, chosen.embed, checkpoints, bases=bases)
    before = embedder.encode([Item("red shirt")], instruction="Find this product:")
    generator = load_generator(chosen.model, chosen.attributes, checkpoints, bases=bases)
    assert generator.loaded is embedder.loaded
    untrained = generator.generate([Request("red shirt")])

    model = add_trainable(generator, LORA, None, checkpoints, "CAUSAL_LM")
    assert generator.adapter == ADAPTER_NAME and model is embedder.loaded.peft
    assert generator.generate([Request("red shirt")]) == untrained, "a new adapter changes nothing"
    parameters = trainable(model)
    assert parameters and all(f".{ADAPTER_NAME}." in name and "language_model" in name for name in parameters)
    with torch.no_grad(), active_adapter(model, ADAPTER_NAME):
        for parameter in parameters.values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert generator.generate([Request("red shirt")]) != untrained
    after = embedder.encode([Item("red shirt")], instruction="Find this product:")
    assert (after == before).all()

    save_adapter(model, generator.loaded.base, tmp_path / "adapter", "card")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
    }
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
