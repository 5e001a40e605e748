"""The embedder judges with its own adapter, in eval mode, and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from afmrl_cli.models.base import Bases
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.rar.frozen import frozen, weights_hash
from afmrl_cli.settings import EmbedSettings
from afmrl_cli.store.checkpoints import Checkpoints
from tests.models.adapters import LANGUAGE_LAYERS, add_random, add_two_sided
from tests.models.conftest import settings_for
from tests.tiny import photo

ITEMS = [Item("red shirt", (photo(1),)), Item("blue jacket")]


@pytest.fixture(params=["bare", "adapter", "two-sided"])
def embedder(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path], tmp_path: Path) -> Embedder:
    """An embedder without or with an adapter of its own, or two, of which the second has no part in this."""
    folder, checkpoints, bases = tiny_model("qwen2_vl"), Checkpoints(tmp_path / "checkpoints"), Bases()
    settings = settings_for(folder)
    if request.param != "bare":
        base = load_embedder(settings, EmbedSettings(), checkpoints).loaded.base
        if request.param == "adapter":
            add_random(checkpoints, base, "e1", 3)
        else:
            add_two_sided(checkpoints, base, "e1", (3, 4))
        settings = settings_for(folder, embedder_checkpoint="e1")
    return load_embedder(settings, EmbedSettings(), checkpoints, bases=bases)


def with_policy(embedder: Embedder) -> PeftModel:
    """A policy on the embedder's base, as a trainer puts it there: being trained, with dropout, first `default`."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules=LANGUAGE_LAYERS, init_lora_weights=False)
    loaded = embedder.loaded
    if loaded.peft is None:
        loaded.peft = get_peft_model(loaded.causal, config)
    else:
        loaded.peft.add_adapter("default", config)
        loaded.peft.set_adapter("default")
    loaded.causal.gradient_checkpointing_enable({"use_reentrant": False})
    return loaded.peft.train()


def state_of(model: PeftModel) -> tuple[object, ...]:
    return (
        model.active_adapter,
        [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        [name for name, module in model.named_modules() if module.training],
        torch.is_grad_enabled(),
    )


def test_vectors_are_those_of_the_embedder_alone_while_a_policy_is_trained(embedder: Embedder) -> None:
    alone = embedder.encode(ITEMS, instruction="Find:")
    policy = with_policy(embedder)
    before = state_of(policy)
    assert before[1] and before[2]
    with frozen(embedder):
        judged = embedder.encode(ITEMS, instruction="Find:")
    assert np.array_equal(alone, judged)
    assert state_of(policy) == before
    batch = policy.get_base_model().model(input_ids=torch.tensor([[5, 6]])).last_hidden_state
    batch.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in policy.parameters())


def test_everything_comes_back_when_a_reward_raises(embedder: Embedder) -> None:
    policy = with_policy(embedder)
    before = state_of(policy)
    embedder.loaded.trunk.rope_deltas = marker = torch.tensor([[7]])
    with pytest.raises(RuntimeError, match="in the middle"), frozen(embedder):
        embedder.encode(ITEMS, instruction="Find:")
        raise RuntimeError("in the middle")
    assert state_of(policy) == before
    assert embedder.loaded.trunk.rope_deltas is marker


def test_an_adapter_that_the_caller_did_not_name_is_an_error(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    embedder = load_embedder(settings_for(tiny_model("qwen2_vl")), EmbedSettings(), Checkpoints(tmp_path))
    get_peft_model(embedder.loaded.causal, LoraConfig(target_modules=LANGUAGE_LAYERS))
    with pytest.raises(RuntimeError, match=r"LoadedBase\.peft"), frozen(embedder):
        pass


def test_the_hash_is_of_the_embedder_and_not_of_the_policy(embedder: Embedder) -> None:
    before = weights_hash(embedder)
    policy = with_policy(embedder)
    assert weights_hash(embedder) == before
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".default." in name:
                parameter.add_(1)
    assert weights_hash(embedder) == before
    if embedder.query_adapter:
        beside = [value for name, value in policy.named_parameters() if f".{embedder.query_adapter}." in name]
        with torch.no_grad():
            assert beside and [value.add_(1) for value in beside]
        assert weights_hash(embedder) == before
    watched = f".{embedder.adapter}." if embedder.adapter else "base_layer"
    changed = next(parameter for name, parameter in policy.named_parameters() if watched in name)
    with torch.no_grad():
        changed.view(-1)[0] += 1
    assert weights_hash(embedder) != before


def test_the_hash_of_a_4_bit_base_stays_the_same_through_use(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    settings = settings_for(tiny_model("qwen3_vl"), precision="nf4")
    embedder = load_embedder(settings, EmbedSettings(), Checkpoints(tmp_path))
    before = weights_hash(embedder)
    with frozen(embedder):
        embedder.encode(ITEMS, instruction="Find:")
    assert weights_hash(embedder) == before
