"""Bases in memory: precision, damage, adapters, sharing."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from afmrl_cli.errors import ModelError
from afmrl_cli.models.base import Bases, LoadedBase, active_adapter, add_adapter, load_base
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.store.checkpoints import Checkpoints, Manifest
from afmrl_cli.training.adapter import ADAPTER_NAME
from tests.tiny import HYBRID, LINEAR_LAYERS, make_tiny

from .adapters import LANGUAGE_LAYERS, add_random, save_random
from .conftest import settings_for

TinyModel = Callable[[str], Path]
ONE, TWO = "checkpoint:one:a", "checkpoint:two"


def test_nf4_quantises_the_language_model_and_nothing_else(tiny_model: TinyModel, architecture: str) -> None:
    settings = settings_for(tiny_model(architecture), precision="nf4")
    loaded = Bases().get(resolve_base(settings, "embedder"), settings)
    quantised = [name for name, module in loaded.causal.named_modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(quantised) == LINEAR_LAYERS + (architecture == HYBRID)
    assert all(name.startswith("model.language_model.layers.") for name in quantised)
    one = loaded.causal.get_submodule(quantised[0])
    assert one.compute_dtype == torch.float32
    assert one.weight.quant_state.quant_type == "nf4"
    assert one.weight.quant_state.nested
    rest = [p.dtype for m in (loaded.trunk.visual, loaded.causal.lm_head) for p in m.parameters()]
    assert set(rest) == {torch.float32}


def test_nf4_has_the_same_values_and_gradients_after_a_pass_in_eval_mode(tiny_model: TinyModel) -> None:
    settings = settings_for(tiny_model("qwen2_vl"), precision="nf4")
    model = Bases().get(resolve_base(settings, "embedder"), settings).causal
    layer = next(module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit))

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.linspace(-1, 1, 3 * layer.in_features).reshape(3, -1).requires_grad_()
        values = layer.train()(rows)
        (gradient,) = torch.autograd.grad(values.square().sum(), rows)
        return values.detach(), gradient

    values, gradient = both()
    with torch.no_grad():
        again = layer.eval()(torch.linspace(-1, 1, 3 * layer.in_features).reshape(3, -1))
    assert torch.equal(again, values)
    assert all(torch.equal(a, b) for a, b in zip(both(), (values, gradient), strict=True))


def test_precisions(tiny_model: TinyModel) -> None:
    base = resolve_base(settings_for(tiny_model("qwen2_vl")), "embedder")
    assert {p.dtype for p in load_base(base, "fp32", "cpu").parameters()} == {torch.float32}
    model = load_base(base, "bf16", "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training


def test_one_copy_for_both_roles_and_release(tiny_model: TinyModel) -> None:
    settings = settings_for(tiny_model("qwen2_vl"))
    bases = Bases()
    first = bases.get(resolve_base(settings, "embedder"), settings)
    assert bases.get(resolve_base(settings, "generator"), settings) is first
    smaller = settings_for(tiny_model("qwen2_vl"), max_pixels=3136)
    base = resolve_base(smaller, "generator")
    assert bases.get(base, smaller) is first
    assert first.processor(base) is not first.processor(first.base)
    bases.release()
    assert bases.get(resolve_base(settings, "embedder"), settings) is not first


@pytest.mark.parametrize("damage", ["cut short", "no header", "other shapes", "tensors missing"])
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_damaged_weights_are_one_error(tmp_path: Path, damage: str, precision: str) -> None:
    folder = make_tiny("qwen2_vl", tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "no header":
        weights.write_bytes(b"<html>not found</html>" * 100)
    else:
        other = make_tiny(
            "qwen2_vl", tmp_path / "other", **({"hidden": 128} if damage == "other shapes" else {"layers": 1})
        )
        shutil.copy(other / "model.safetensors", weights)
    settings = settings_for(folder, precision=precision)
    with pytest.raises(ModelError, match=r"can't be loaded|the weights lack") as caught:
        Bases().get(resolve_base(settings, "embedder"), settings)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.fixture
def with_adapters(tiny_model: TinyModel, tmp_path: Path) -> LoadedBase:
    """A base with the adapters "one.a", which PEFT knows as ONE, and "two"."""
    settings = settings_for(tiny_model("qwen2_vl"))
    base = resolve_base(settings, "embedder")
    loaded = Bases().get(base, settings)
    checkpoints = Checkpoints(tmp_path / "store")
    for seed, name in enumerate(("one.a", "two")):
        add_adapter(loaded, add_random(checkpoints, base, name, seed), checkpoints.path(name))
    return loaded


def outputs(loaded: LoadedBase) -> torch.Tensor:
    with torch.inference_mode():
        ids = torch.arange(20, 30)[None]
        hidden: torch.Tensor = loaded.trunk(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).last_hidden_state
        return hidden


def test_adapters_are_switched_and_put_back(with_adapters: LoadedBase, tiny_model: TinyModel) -> None:
    loaded, model = with_adapters, with_adapters.peft
    assert model is not None
    seen = {}
    for name in (ONE, TWO, None):
        with active_adapter(model, name):
            seen[name] = outputs(loaded)
            assert not any(p.requires_grad for p in model.parameters())
    settings = settings_for(tiny_model("qwen2_vl"))
    bare = Bases().get(resolve_base(settings, "embedder"), settings)
    assert torch.equal(seen[None], outputs(bare))
    assert not torch.allclose(seen[ONE], seen[TWO], atol=1e-2)
    assert not torch.allclose(seen[ONE], seen[None], atol=1e-2)


def test_no_two_checkpoints_and_no_adapter_that_is_trained_are_one_adapter(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Whatever they are called: PEFT knows the trained one as "default", and no dots."""
    settings = settings_for(tiny_model("qwen2_vl"))
    base, checkpoints = resolve_base(settings, "embedder"), Checkpoints(tmp_path / "store")
    causal = load_base(base, "fp32", "cpu")
    model = get_peft_model(causal, LoraConfig(r=4, target_modules=LANGUAGE_LAYERS), adapter_name=ADAPTER_NAME)
    loaded, seen = LoadedBase(base, causal, peft=model), []
    for seed, name in enumerate(("a.b", "a_b", ADAPTER_NAME)):
        adapter = add_random(checkpoints, base, name, seed)
        with active_adapter(model, add_adapter(loaded, adapter, checkpoints.path(name))):
            seen.append(outputs(loaded))
    with active_adapter(model, ADAPTER_NAME):
        seen.append(outputs(loaded))
    apart = [not torch.allclose(one, other, atol=1e-2) for i, one in enumerate(seen) for other in seen[:i]]
    assert len(apart) == 6 and all(apart)


def test_an_adapter_is_loaded_without_asking_anybody_about_the_base_that_it_names(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tiny_model("qwen2_vl"))
    base, checkpoints = resolve_base(settings, "embedder"), Checkpoints(tmp_path / "store")
    folder = save_random(tmp_path / "adapter", base, 0)
    content = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(content | {"base_model_name_or_path": "Stranger/Model"}))
    adapter = checkpoints.add(folder, Manifest("embedder", base.name, base.revision))
    asked = []

    def resolve(host: str, *_: object, **__: object) -> object:
        asked.append(host)
        raise socket.gaierror("nothing is resolved here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # PEFT looks there
    add_adapter(Bases().get(base, settings), adapter, checkpoints.path(adapter.name))
    assert asked == []


@pytest.mark.parametrize("inner", [TWO, None])
def test_a_trainer_finds_its_adapter_as_it_left_it(with_adapters: LoadedBase, inner: str | None) -> None:
    model = with_adapters.peft
    assert model is not None
    model.set_adapter(ONE)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all(f".{ONE}." in name for name in trainable)
    before = outputs(with_adapters)
    with pytest.raises(KeyError), active_adapter(model, inner):
        assert not torch.equal(outputs(with_adapters), before)
        raise KeyError("work that fails")
    assert model.active_adapter == ONE
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    assert torch.equal(outputs(with_adapters), before)


def test_no_adapter_to_switch_on(tiny_model: TinyModel) -> None:
    settings = settings_for(tiny_model("qwen2_vl"))
    loaded = Bases().get(resolve_base(settings, "embedder"), settings)
    with active_adapter(loaded.peft, None):
        assert outputs(loaded).shape == (1, 10, 64)
    with pytest.raises(ModelError, match="no adapter"), active_adapter(loaded.peft, "x"):
        pass


def test_adapters_that_do_not_fit(tiny_model: TinyModel, tmp_path: Path) -> None:
    settings = settings_for(tiny_model("qwen2_vl"))
    base = resolve_base(settings, "embedder")
    checkpoints = Checkpoints(tmp_path / "store")
    for name, shape in (("wide", {"hidden": 128}), ("deep", {"layers": 3})):
        folder = make_tiny("qwen2_vl", tmp_path / name, **shape)
        adapter = add_random(checkpoints, resolve_base(settings_for(folder), "embedder"), name, 0, said=base)
        with pytest.raises(ModelError, match=r"can't be loaded|tensors do not fit") as caught:
            add_adapter(Bases().get(base, settings), adapter, checkpoints.path(name))
        assert "\n" not in str(caught.value)


def test_adapter_on_a_quantised_base_learns(tiny_model: TinyModel, architecture: str) -> None:
    settings = settings_for(tiny_model(architecture), precision="nf4")
    loaded = Bases().get(resolve_base(settings, "embedder"), settings)
    model = get_peft_model(loaded.causal, LoraConfig(r=4, target_modules=LANGUAGE_LAYERS))
    ids = torch.arange(20, 40)[None]
    losses = []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        loss = model(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids), labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
