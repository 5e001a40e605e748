"""Estimates of memory by the formula: by hand, against files and a real process, and what they advise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import memory
from safetensors import safe_open

from afmrl_cli.models.base import load_base
from afmrl_cli.models.precision import Choice
from afmrl_cli.models.presets import Base, family_of, nano_folder
from afmrl_cli.sources import load_settings
from afmrl_cli.training.memory import LIBRARIES, Model, StageMemory, estimate_stages, load_model
from afmrl_cli.training.shapes import KNOWN, Deltas, Shape, read_shape
from afmrl_cli.training_settings import AgclSettings
from tests import NANO

ROOT = Path(__file__).parents[2]
SMALL = Shape(numbers=10_000, hidden=8, layers=3, mlp=32, query=8, keys=4, words=100, tower=16, tower_layers=2)


def model(**changes: object) -> Model:
    fields: dict[str, object] = {"shape": SMALL, "bytes": 4, "four_bit": False, "image_tokens": 2, "cuda": False}
    fields |= {"packs_answers": True, "chosen": Choice("fp32", "")}
    return Model(**(fields | changes))  # type: ignore[arg-type]


def test_weights_by_hand() -> None:
    assert model().weights == 40_000
    assert model(bytes=2).weights == 20_000
    linear = 3 * (2 * 8 * (8 + 4) + 3 * 8 * 32)  # q, k, v, o and the MLP of three layers
    packed = 0.5 + 1 / 64 + 1 / 4096  # 64 numbers share a byte's scale, 256 of these one of four bytes
    assert model(bytes=2, four_bit=True).weights == round(2 * (10_000 - linear) + linear * packed)


def test_a_forward_by_hand() -> None:
    assert model().forward(10, 0) == 3 * 4 * 10 * (8 + 32)
    assert model(bytes=2, four_bit=True).forward(10, 0) == 3 * 2 * 10 * (8 + 32) + 2 * 8 * 32
    assert model().forward(1, 5) == 20 * 4 * (5 * 2 * 4) * 16 + 5 * 2 * 4 * 3 * 2 * 16 * 16 * 4, "the tower is larger"


def test_a_training_by_hand() -> None:
    adapter = 16 * 8 * 3 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 32))
    inputs = 5 * 8 + 8 + 32

    def above(one: Model, **changes: object) -> int:
        settings = AgclSettings.model_validate({"rank": 8, "lora_dropout": 0.0} | changes)
        return one.training(settings, 10, 0) - adapter - one.forward(10, 0)

    plain = 8 * 8 + 4 * (4 * 8 + 3 * 32) + 4 * (2 * 8 + 32)
    assert above(model()) == 10 * 3 * plain
    dropped = 8 * 8 + 4 * (4 * 8 + 3 * 32) + 4 * inputs + 4 * inputs
    assert above(model(), lora_dropout=0.1) == 10 * 3 * dropped
    half = 8 * 8 + 2 * (4 * 8 + 3 * 32) + 4 * inputs
    assert above(model(bytes=2, cuda=True)) == 10 * 3 * half
    assert above(model(bytes=2, cuda=True), lora_dropout=0.1) == 10 * 3 * (half + inputs)
    assert above(model(), activation_checkpointing=True) == 10 * (3 * 4 * 8 + plain)


def test_delta_nets_by_hand() -> None:
    """Two of three layers: 2 value heads of 4 with keys of 2 for each, so e = 4, w = 8, c = 2 x 2 + 8."""
    deltas = Deltas(layers=2, keys=4, values=8, mixed=12, chunk=128, state=16)
    shape = replace(SMALL, numbers=100_000, deltas=deltas)
    attention, net, mlp = 8 * 16 + 2 * 8 * 4 + 8 * 8, 8 * 12 + 8 * 8 + 8 * 8, 3 * 8 * 32
    linear, packed = attention + 2 * net + 3 * mlp, 0.5 + 1 / 64 + 1 / 4096
    hybrid = model(shape=shape)
    assert model(shape=shape, bytes=2, four_bit=True).weights == round(2 * (100_000 - linear) + linear * packed)
    assert hybrid.adapter(8) == 16 * 8 * (24 + 2 * 12 + 16 + 2 * (20 + 16 + 16) + 3 * 3 * 40)
    rule = 4 * (5 * 4 + 5 * 8 + 3 * 128) + 4 * (12 + 8 + 2 * 8)
    assert hybrid.forward(10, 0) == 10 * rule and rule > 3 * 4 * (8 + 32)
    assert hybrid.cache(10, 3) == 2 * 4 * 4 * 1 * 10 + 3 * 2 * (4 * 16 + 4 * 4 * 12)
    settings = AgclSettings.model_validate({"rank": 8, "lora_dropout": 0.0})
    above = hybrid.training(settings, 10, 0) - hybrid.adapter(8) - hybrid.forward(10, 0)
    own = 8 * 8 + 4 * (12 + 2 * 8 + 3 * 32) + 4 * (2 * 8 + 32) + 4 * (8 * 4 + 6 * 8 + 5 * 128 + 16 // 64)
    assert above == 10 * (8 * 8 + 4 * (4 * 8 + 3 * 32) + 4 * (2 * 8 + 32) + 2 * own)


def test_the_shape_of_delta_nets_is_that_of_their_files(tiny_model: Callable[[str], Path]) -> None:
    shape = read_shape(tiny_model("qwen3_5"), "tiny")
    assert shape.deltas == Deltas(layers=1, keys=32, values=32, mixed=96, chunk=128, state=512) and shape.layers == 2
    with safe_open(tiny_model("qwen3_5") / "model.safetensors", "np") as file:
        real = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    large = [each for name, each in real.items() if re.search(r"\d\.\w+\.(\w+_proj|in_proj_(qkv|z))\.weight", name)]
    assert sum(times * inputs * outputs for times, inputs, outputs in shape.linears()) == sum(a * b for a, b in large)
    assert sum(times for times, *_ in shape.linears()) == len(large) == 13


def test_a_row_of_the_reranker_is_two_listings() -> None:
    flags: dict[str, object] = {"model.preset": "nano", "model.device": "cpu", "model.generator_images": 2}
    settings = load_settings(None, flags | {"rerank.chunk_size": 3, "rerank.negatives": 4}, NANO)
    own = load_model(settings, "generator", training=True)
    assert own is not None
    stage = next(each for each in estimate_stages(settings) if each.stage == "train-rerank")
    rows, row = 3 * (1 + 4), 2 * (2 * own.image_tokens + settings.model.max_text_tokens) + 64
    above = own.training(settings.rerank, rows * row, rows * 4) + 16 * 2560 * rows
    assert (stage.weight_bytes, stage.peak_bytes) == (own.weights, own.weights + above)


def test_the_shape_of_the_built_in_model_is_that_of_its_files() -> None:
    assert read_shape(nano_folder(), "nano") == Shape(5_452_992, 192, 4, 576, 192, 96, 2560, 192, 5)


def test_four_bit_weights_take_what_is_estimated(tmp_path: Path) -> None:
    folder, real = memory.make(tmp_path / "wide", "qwen2_vl", 256, 2), 0
    for parameter in load_base(Base("wide", "", folder, 0, 0, family_of(folder, "wide")), "nf4", "cpu").parameters():
        real += parameter.nbytes
        if (state := getattr(parameter, "quant_state", None)) is not None:
            real += state.absmax.nbytes + state.state2.absmax.nbytes
    own = {"model.embedder": str(folder), "model.precision": "nf4", "model.device": "cpu"}
    estimated = load_model(load_settings(None, own, NANO), "embedder", training=False)
    assert estimated is not None and estimated.weights == pytest.approx(real, rel=0.02)


@pytest.mark.slow
def test_a_real_process_takes_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage of one architecture; the benchmark compares all."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    guess, real = memory.apart("qwen2_vl", ["train-agcl"])["train-agcl"]
    assert guess == pytest.approx(real, rel=0.25)


def test_estimates_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from afmrl_cli.sources import load_settings; from afmrl_cli.training.memory import *; "
        "assert len(estimate_stages(load_settings(None, {'model.preset': 'nano', 'model.device': 'cpu'}, {}))) == 9; "
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("preset", "card"), [("paper", 8), ("qwen3", 8)])
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
    settings = load_settings(None, flags | {"agcl.batch_size": 256}, NANO)
    assert settings.rar.group == 8
    stages = estimate_stages(settings)
    assert len(stages) == 9
    assert {each.stage: each.peak_bytes / 2**30 for each in stages if each.peak_bytes > (card - 0.5) * 2**30} == {}


def test_defaults_follow_the_models() -> None:
    nano, paper, mixed = (
        load_settings(None, {"model.preset": "nano"} | flags, NANO)
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
    back = load_settings(None, {"model.preset": "paper", "model.generator": "nano", "model.embedder": "nano"}, NANO)
    assert back.sft == nano.sft and back.agcl == nano.agcl


def test_what_is_too_large_is_reported_with_the_setting() -> None:
    stages = {stage.stage: stage for stage in estimate_stages(load_settings(None, {"model.preset": "paper"}, NANO))}
    trainings = ["train-agcl", "train-rar", "train-rerank", "train-recommender", "train-vision", "train-composed"]
    assert list(stages) == ["attributes", "train-sft", "embed", *trainings]
    agcl = stages["train-agcl"]
    assert agcl.advice(agcl.peak_bytes) == ""
    assert agcl.advice(agcl.peak_bytes - 1).startswith("lower agcl.chunk_tokens")
    assert "weights alone" in agcl.advice(agcl.weight_bytes - 1)
    assert isinstance(agcl, StageMemory)


def test_a_model_that_is_not_at_hand_and_unknown_is_left_out() -> None:
    flags = {"model.generator": "someone/unknown-model", "model.embedder": next(iter(KNOWN))}
    stages = [each.stage for each in estimate_stages(load_settings(None, flags, NANO))]
    assert stages == ["embed", "train-agcl", "train-composed"]


def test_beside_a_measured_peak_stands_no_smaller_estimate() -> None:
    """On the CPU the measured one is of the whole process; a card's holds what torch has allocated there."""
    for device in ("cpu", "cuda"):
        stages = estimate_stages(load_settings(None, {"model.preset": "nano", "model.device": device}, NANO))
        assert len(stages) == 9
        for stage in stages:
            assert stage.beside(0) - stage.peak_bytes == (0 if device == "cuda" else LIBRARIES)
            assert stage.beside(stage.peak_bytes * 10) == stage.peak_bytes * 10
