"""Which precision weights are loaded in: the rule with numbers of real models and cards, and who asks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.models import device, precision, presets
from afmrl_cli.models.families import FAMILIES
from afmrl_cli.models.precision import Choice, Precision, choose_precision, fitting_precision
from afmrl_cli.models.presets import base_precision, model_id, resolve_base
from afmrl_cli.models.weights import count_numbers
from afmrl_cli.settings import ModelSettings
from afmrl_cli.sft.run import SFT
from afmrl_cli.sources import load_settings
from afmrl_cli.training.memory import estimate_stages
from afmrl_cli.training.shell import Job
from tests import NANO

from .conftest import NO_CHECKPOINTS, settings_for

GIB = 1 << 30
QWEN3_2B, QWEN35_4B, QWEN2_7B = 2 * 2_128_000_000, 2 * 4_500_000_000, 2 * 8_291_000_000
"""Bytes in bf16."""
CASES: list[tuple[str, int, float, Precision, Precision]] = [
    # Family, weights, the card's GiB: for reading, for training.
    ("qwen3_vl", QWEN3_2B, 7.6, "nf4", "nf4"),
    ("qwen3_vl", QWEN3_2B, 11.6, "bf16", "nf4"),
    ("qwen3_vl", QWEN3_2B, 15.7, "bf16", "nf4"),
    ("qwen3_vl", QWEN3_2B, 23.5, "bf16", "bf16"),
    ("qwen2_vl", QWEN2_7B, 23.5, "nf4", "nf4"),
    ("qwen2_vl", QWEN2_7B, 47.5, "bf16", "nf4"),
    ("qwen2_vl", QWEN2_7B, 79.0, "bf16", "bf16"),
    ("qwen3_5", QWEN35_4B, 15.7, "nf4", "nf4"),
    ("qwen3_5", QWEN35_4B, 23.5, "bf16", "bf16"),
]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`card(8 * GIB)`: what the driver says; None: no GPU."""

    def put(memory: int | None) -> None:
        monkeypatch.setattr(device, "cuda_devices", lambda: 0 if memory is None else 1)
        monkeypatch.setattr(device, "device_memory", lambda: memory)
        monkeypatch.setattr(precision, "device_memory", lambda: memory)

    return put


@pytest.mark.parametrize(("family", "half", "gib", "reading", "training"), CASES)
def test_bf16_where_the_weights_fit_and_four_bits_where_they_must(
    family: str, half: int, gib: float, reading: Precision, training: Precision
) -> None:
    trained_in = FAMILIES[family].trained_in
    found = [fitting_precision(trained_in, half, int(gib * GIB), training=value) for value in (False, True)]
    assert [each.precision for each in found] == [reading, training]
    for each in found:
        assert ("do not fit" in each.why) == (each.precision == "nf4") and f"{half / 1e9:.1f} GB" in each.why
    assert ("harm" in found[1].why) == (family == "qwen3_5" and training == "nf4")


def test_what_is_set_holds_and_nothing_is_counted_where_it_does_not_decide(card: Callable[[int | None], None]) -> None:
    def never() -> int:
        raise AssertionError

    card(None)
    assert choose_precision(ModelSettings(), "nf4", never, training=True).precision == "fp32"
    absent = ModelSettings(device="cuda")
    assert choose_precision(absent, "bf16", never, training=True).precision == "bf16"
    assert choose_precision(absent, "nf4", never, training=False).precision == "nf4"
    card(80 * GIB)
    assert choose_precision(ModelSettings(device="cpu"), "nf4", never, training=False).precision == "fp32"
    chosen = choose_precision(ModelSettings(precision="nf4"), "bf16", never, training=False)
    assert chosen == Choice("nf4", "set by model.precision")


def test_a_base_is_weighed_by_the_numbers_in_its_files(
    tiny_model: Callable[[str], Path], card: Callable[[int | None], None]
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    settings = settings_for(tiny_model("qwen3_vl"), device="auto")
    base = resolve_base(settings, "generator")
    numbers = sum(p.numel() for p in AutoModelForImageTextToText.from_pretrained(base.folder).parameters())
    assert count_numbers(base.folder) == numbers and torch.get_num_threads()
    found = {}
    for times in (1, 3, 5):
        card(2 * times * numbers + precision.CONTEXT)
        found[times] = [base_precision(settings, base, training=value).precision for value in (False, True)]
    assert found == {1: ["nf4", "nf4"], 3: ["bf16", "nf4"], 5: ["bf16", "bf16"]}


def test_a_training_has_its_own_precision_and_id_and_what_is_stored_keeps_its_own(
    tiny_model: Callable[[str], Path], card: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card that weights fit into three times: read in bf16, trained on in 4 bits."""
    from afmrl_cli.listener import Silent
    from afmrl_cli.store.folder import CatalogFolder
    from afmrl_cli.workspace import Workspace

    model = str(tiny_model("qwen3_vl"))
    settings = load_settings(None, {"model.generator": model, "model.embedder": model}, NANO)
    base = resolve_base(settings.model, "generator")
    card(2 * 3 * count_numbers(base.folder) + precision.CONTEXT)
    catalog = Path("catalog.csv")
    catalog.write_text("id,title\n1,red shirt\n")
    job = Job(SFT, Workspace(CatalogFolder(catalog), settings, Silent()), base, None)
    assert job.bare_model.precision == "nf4" and job.work.settings.model.precision == "auto"
    read = settings.model.model_copy(update={"precision": "bf16"})
    assert model_id(settings.model, "generator", NO_CHECKPOINTS) == model_id(read, "generator", NO_CHECKPOINTS)
    assert job.model_id == presets.name_of(job.bare_model, "generator", base, None)
    assert job.model_id != job.reading_id == model_id(settings.model, "generator", NO_CHECKPOINTS)
    stages = {each.stage: each for each in estimate_stages(settings)}
    assert {name: each.chosen.precision for name, each in stages.items()} == {
        "attributes": "bf16",
        "embed": "bf16",
        "train-sft": "nf4",
        "train-agcl": "nf4",
        "train-rar": "nf4",
        "train-rerank": "nf4",
        "train-recommender": "nf4",
        "train-vision": "nf4",
        "train-composed": "nf4",
    }
    assert stages["train-rar"].weight_bytes == stages["train-sft"].weight_bytes, "one copy for both roles"
