"""The loss with one importance ratio for each attribute: worked by hand, and GSPO where an answer is one pair."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from afmrl_cli.attributes.parse import pair_numbers
from afmrl_cli.rar.pair_loss import PAIRS, pair_objective, pair_ratios, pair_table
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import trainable
from tests.rar.rig import Rig, make_rig, rar_settings
from tests.training.shop import write_shop

PIECES = ["colour", ": red", ";", " sleeve: ", "long; fit", ": slim", ".", ""]


def test_a_token_belongs_to_the_pair_that_it_begins_in() -> None:
    so_far = ["".join(PIECES[: i + 1]) for i in range(len(PIECES))]
    assert pair_numbers(so_far) == [0, 0, 0, 1, 1, 2, 2, 2], "the separator is the first pair's, the end the last one's"
    assert pair_numbers(["a: b", "a: b;", "a: b;"]) == [0, 0, 0] and pair_numbers([]) == []
    assert pair_numbers(["颜色：藏青", "颜色：藏青；", "颜色：藏青；材质"]) == [0, 0, 1]


def test_by_hand() -> None:
    """Two answers: two pairs of two and one tokens, one of them clipped; one pair of two tokens, the third padded."""
    log_ratio = torch.tensor([[0.2, 0.4, -0.1], [-0.3, -0.1, 9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    ratio, sizes = pair_ratios(log_ratio, pair_table([[0, 0, 1], [0, 0]], 3), mask)
    assert sizes.tolist() == [[2, 1], [2, 0]] and ratio[0].tolist() == pytest.approx([math.exp(0.3), math.exp(-0.1)])
    found = pair_objective(ratio, sizes, torch.tensor([1.0, -2.0]), 0.2)
    first = (min(math.exp(0.3), 1.2) + math.exp(-0.1)) / 2
    assert found.tolist() == pytest.approx([first, -2 * math.exp(-0.2)])
    none = pair_objective(*pair_ratios(log_ratio, pair_table([[], []], 3), 0 * mask), torch.tensor([1.0, 1.0]), 0.2)
    assert none.tolist() == [0, 0]


def test_each_pair_counts_the_same_however_many_tokens_it_has() -> None:
    log_ratio = torch.zeros(1, 4, requires_grad=True)
    pairs = pair_table([[0, 0, 0, 1]], 4)
    pair_objective(*pair_ratios(log_ratio, pairs, torch.ones(1, 4)), torch.tensor([6.0]), 0.2).sum().backward()
    assert log_ratio.grad is not None and log_ratio.grad.tolist() == [[1.0, 1.0, 1.0, 3.0]]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    place = tmp_path_factory.mktemp("pairs")
    folder = CatalogFolder(write_shop(place / "shop", 30) / "catalog.csv")
    made = make_rig(folder, rar_settings(**{"rar.from_base": True, "rar.loss": "pairs", "rar.beta": 0.1}), place)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(made.peft).values():
            parameter.normal_(std=0.05)
    return made


def batch_of(rig: Rig) -> dict[str, Any]:
    """A scored batch whose answers were sampled by another policy, and whose advantages differ."""
    torch.manual_seed(2)
    batch = rig.trainer._generate_and_score_completions([{"query": query} for query in (0, 1) for _ in range(4)])
    noise = torch.randn(batch["completion_ids"].shape) * 0.2
    old = {"old_per_token_logps": batch["ref_per_token_logps"] + noise}
    return batch | old | {"advantages": torch.linspace(-1.0, 1.0, len(noise))}


def loss_and_gradient(rig: Rig, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    trainer = rig.trainer
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad(set_to_none=True)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    trainer._metrics["train"].clear()
    trainer.chunk_tokens = []
    return float(loss.detach()), [
        each.grad.clone() for each in trainable(trainer.model).values() if each.grad is not None
    ]


def test_an_answer_of_one_pair_is_gspo(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TRL's loss with one ratio for a sequence, loss and gradient."""
    batch = batch_of(rig)
    assert batch[PAIRS].shape == batch["completion_ids"].shape and int(batch[PAIRS].max()) > 0
    several = loss_and_gradient(rig, batch)[0]
    ours, gradient = loss_and_gradient(rig, batch | {PAIRS: torch.zeros_like(batch[PAIRS])})
    monkeypatch.setattr(rig.trainer, "rar", rig.trainer.rar.model_copy(update={"loss": "grpo"}))
    monkeypatch.setattr(rig.trainer, "importance_sampling_level", "sequence")
    stock, expected = loss_and_gradient(rig, batch)
    assert ours == pytest.approx(stock, rel=1e-5) and several != pytest.approx(stock, rel=1e-3)
    assert len(gradient) == len(expected) > 0
    for mine, theirs in zip(gradient, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm()


def test_a_step_trains_by_it(rig: Rig) -> None:
    rig.trainer.measure()
    rows = (rig.trainer.run / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3 and '"kl"' in rows[0] and '"entropy"' in rows[0]
