"""Estimates of memory from the configuration: against a real process, and what they advise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from benchmarks import memory
from trl.kernels import ChunkedLogProbFunction

from afmrl_cli.models.base import load_base
from afmrl_cli.models.known import known_config
from afmrl_cli.models.presets import Base, family_of
from afmrl_cli.sources import load_settings
from afmrl_cli.training.activations import LiveBytes, activations
from afmrl_cli.training.memory import HEAD_WORDS, LIBRARIES, Model, StageMemory, estimate_stages, load_model

ROOT = Path(__file__).parents[2]
MILLIONS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3755,
    "Qwen/Qwen2-VL-2B-Instruct": 2209,
    "Qwen/Qwen3-VL-2B-Instruct": 2128,
}
"""Parameters, as their makers' files hold them."""


@pytest.mark.parametrize("name", MILLIONS)
def test_known_shapes_have_the_models_parameters(name: str) -> None:
    flags = {"model.generator": name, "model.precision": "bf16", "model.device": "cpu"}
    model = load_model(load_settings(None, flags, {}), "generator")
    assert model is not None
    assert model.weights / 2 / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)


@pytest.mark.slow
def test_a_real_process_takes_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage of one architecture; the benchmark compares all."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    guess, real = memory.apart("qwen2_vl", ["train-agcl"])["train-agcl"]
    assert guess == pytest.approx(real, rel=0.15)


def test_less_with_checkpoints_and_shorter_chunks() -> None:
    config = known_config("Qwen/Qwen3-VL-2B-Instruct")
    full = activations(config, torch.bfloat16, 2, 256, rank=16)
    assert activations(config, torch.bfloat16, 2, 256, rank=16, checkpointing=True) < full / 4
    assert activations(config, torch.bfloat16, 1, 256, rank=16) == pytest.approx(full / 2, rel=0.1)
    assert activations(config, torch.bfloat16, 2, 256) < full / 10


@pytest.mark.parametrize(("preset", "card"), [("paper", 8), ("qwen3", 6)])
@pytest.mark.parametrize("photos", [1, 3])
def test_the_presets_fit_small_cards_as_they_are(preset: str, card: int, photos: int) -> None:
    """Photos of 448 px, batches of 256 pairs, groups of 8; a CUDA context and what the allocator loses come on top."""
    flags = {
        "model.preset": preset,
        "model.device": "cuda",
        "model.max_pixels": 448 * 448,
        "model.generator_images": photos,
        "model.embedder_images": photos,
    }
    settings = load_settings(None, flags | {"agcl.batch_size": 256}, {})
    assert settings.rar.group == 8
    stages = estimate_stages(settings)
    assert len(stages) == 5
    assert {each.stage: each.peak_bytes / 2**30 for each in stages if each.peak_bytes > (card - 0.5) * 2**30} == {}


def test_defaults_follow_the_models() -> None:
    nano, paper, mixed = (
        load_settings(None, flags, {})
        for flags in ({}, {"model.preset": "paper"}, {"model.embedder": "Qwen/Qwen2-VL-2B-Instruct"})
    )
    assert (nano.attributes.batch_size, nano.embed.batch_size, nano.sft.chunk_size) == (32, 32, 8)
    assert not any(each.activation_checkpointing for each in (nano.agcl, nano.sft, nano.rar))
    assert all(each.activation_checkpointing for each in (paper.agcl, paper.sft, paper.rar))
    assert mixed.agcl.activation_checkpointing and mixed.sft == nano.sft
    assert (paper.sft.batch_size, paper.agcl.chunk_tokens) == (nano.sft.batch_size, nano.agcl.chunk_tokens)
    own = {"model.preset": "paper", "sft.chunk_size": 4, "agcl.activation_checkpointing": "false"}
    chosen = load_settings(None, own, {"AFMRL_EMBED_BATCH_SIZE": "40"})
    assert (chosen.sft.chunk_size, chosen.embed.batch_size) == (4, 40)
    assert chosen.sft.activation_checkpointing and not chosen.agcl.activation_checkpointing
    back = load_settings(None, {"model.preset": "paper", "model.generator": "nano", "model.embedder": "nano"}, {})
    assert back.sft == nano.sft and back.agcl == nano.agcl


def test_what_is_too_large_is_told_with_the_setting() -> None:
    stages = {stage.stage: stage for stage in estimate_stages(load_settings(None, {"model.preset": "paper"}, {}))}
    assert list(stages) == ["attributes", "train-sft", "embed", "train-agcl", "train-rar"]
    agcl = stages["train-agcl"]
    assert agcl.advice(agcl.peak_bytes) == ""
    assert agcl.advice(agcl.peak_bytes - 1).startswith("lower agcl.chunk_tokens")
    assert "weights alone" in agcl.advice(agcl.weight_bytes - 1)
    assert isinstance(agcl, StageMemory)


def wide(folder: Path, architecture: str) -> Path:
    return memory.make(folder / architecture, architecture, 256, 2)


def estimated(folder: Path, **flags: object) -> Model:
    own = {"model.embedder": str(folder), "model.precision": "fp32", "model.device": "cpu", "model.max_pixels": 50176}
    model = load_model(load_settings(None, own | flags, {}), "embedder")
    assert model is not None
    return model


def test_four_bit_weights_take_what_is_estimated(tmp_path: Path) -> None:
    folder = wide(tmp_path, "qwen2_vl")
    real = 0
    for parameter in load_base(Base("wide", "", folder, 0, 0, family_of(folder, "wide")), "nf4", "cpu").parameters():
        real += parameter.nbytes
        if (state := getattr(parameter, "quant_state", None)) is not None:
            real += state.absmax.nbytes + state.state2.absmax.nbytes
    assert estimated(folder, **{"model.precision": "nf4"}).weights == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("architecture", memory.ARCHITECTURES)
def test_tower_and_cache_take_what_is_estimated(architecture: str, tmp_path: Path) -> None:
    folder = wide(tmp_path, architecture)
    guess = estimated(folder)
    model = load_base(Base("wide", "", folder, 0, 0, family_of(folder, "wide")), "fp32", "cpu")
    side = 224 // model.config.vision_config.patch_size // 2 * 2
    images, patches = 6, side * side
    assert guess.image_tokens == patches // 4
    pixels = torch.randn(images * patches, 3 * 2 * model.config.vision_config.patch_size**2)
    known = {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers(), pixels]}
    with LiveBytes(known) as counter, torch.no_grad():
        model.model.visual(pixels, torch.tensor([[1, side, side]] * images))
    assert pixels.nbytes == guess.pixels(images)
    assert guess.vision(images) - pixels.nbytes == pytest.approx(counter.peak, rel=0.1)

    with torch.no_grad():
        cache = model.model.language_model(torch.randint(100, (3, 50)), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    layers = len(cache.layers)
    assert guess.cache(3, 50) == held * (layers + 1) / layers


def test_the_log_probabilities_of_trl_take_what_is_estimated(tmp_path: Path) -> None:
    """Of a vocabulary that is looked at in two parts."""
    guess = estimated(wide(tmp_path, "qwen2_vl"))
    answers, words, width = 40, 40_000, 256
    guess.config.get_text_config().vocab_size = words
    hidden, weight = torch.randn(answers, width, requires_grad=True), torch.randn(words, width)
    targets = torch.zeros(answers, dtype=torch.long)
    with LiveBytes({each.untyped_storage()._cdata for each in (hidden, weight, targets)}) as counter:
        made = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, HEAD_WORDS, None, 1.0, ("entropy",))
        torch.autograd.backward(made[0].sum())
    assert guess.head(answers) == pytest.approx(counter.peak, rel=0.1)


def test_beside_a_measured_peak_stands_no_smaller_estimate() -> None:
    """On the CPU the measured one is of the whole process; a card's holds what torch has allocated there."""
    for device in ("cpu", "cuda"):
        stages = estimate_stages(load_settings(None, {"model.device": device}, {}))
        assert len(stages) == 5
        for stage in stages:
            assert stage.beside(0) - stage.peak_bytes == (0 if device == "cuda" else LIBRARIES)
            assert stage.beside(stage.peak_bytes * 10) == stage.peak_bytes * 10
