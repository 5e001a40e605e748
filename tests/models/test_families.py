"""One table of model families: a row is all that a family needs, and nothing else in the sources asks for a type."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import afmrl_cli
from afmrl_cli.attributes.prompt import attribute_prompt
from afmrl_cli.attributes.request import Request
from afmrl_cli.errors import ModelError
from afmrl_cli.models.base import load_base
from afmrl_cli.models.embed_input import Item, embedder_text
from afmrl_cli.models.families import FAMILIES, IMAGE_SLOT, titles
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.processor import load_processor
from afmrl_cli.settings import AttributeSettings, Settings
from afmrl_cli.store.strict import TARGETS
from afmrl_cli.training.adapter import add_trainable
from tests.tiny import ARCHITECTURES, make_tiny, tiny_config

from .conftest import NO_CHECKPOINTS, settings_for

SOURCES = Path(afmrl_cli.__file__).parent
ASKS_FOR_A_TYPE = re.compile(r"qwen\d_\d|qwen[\d_]+.*vl|<\|(image|video|vision)_\w+\|>", re.I)
OF_OTHERS = {"attributes/answers.py", "training/shapes.py", "models/templates.py", "settings.py"}
"""Names every model's special tokens, which a server's answer may hold; knows the presets' shapes; templates' names."""


def strings(file: Path) -> Iterator[str]:
    """The string constants of a file that are no docstrings and no messages with blanks in them."""
    tree = ast.parse(file.read_text("utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def test_no_other_file_asks_what_type_a_model_is() -> None:
    found = {}
    for file in sorted(SOURCES.rglob("*.py")):
        name = file.relative_to(SOURCES).as_posix()
        types = [text for text in strings(file) if ASKS_FOR_A_TYPE.search(text) and " " not in text and "/" not in text]
        if types and name not in OF_OTHERS:
            found[name] = types
    assert set(found) == {"models/families.py"}, found
    assert set(found["models/families.py"]) >= set(FAMILIES)


def test_rows_are_complete_and_named_by_their_type() -> None:
    assert set(FAMILIES) == set(ARCHITECTURES)
    assert titles() == "Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5"
    for name, family in FAMILIES.items():
        vision = tiny_config(name).vision_config
        assert family.model_type == name
        assert family.token_side == vision.patch_size * vision.spatial_merge_size
        assert family.image_slot.count(family.image_token) == 1
        for targets in (family.lora_targets, family.tower_targets):
            assert TARGETS.fullmatch(targets), "a checkpoint may have no other pattern"
        assert all(getattr(family, field.name) != "" for field in fields(family))


def test_a_base_knows_its_family(tmp_path: Path) -> None:
    base = resolve_base(settings_for(make_tiny("qwen3_vl", tmp_path)), "embedder")
    assert base.family is FAMILIES["qwen3_vl"]


def test_the_embedders_text_follows_the_row() -> None:
    slots = replace(FAMILIES["qwen3_vl"], image_slot="<picture>")
    item = Item("red {shirt} ", (Path("a"), Path("b")))
    assert embedder_text(item, "Find:", slots) == "<picture><picture>Find: red {shirt}\n"
    assert embedder_text(item, "Find:", FAMILIES["qwen2_vl"]) == f"{IMAGE_SLOT * 2}Find: red {{shirt}}\n"


def test_a_type_that_has_no_row_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("qwen3_vl", tmp_path)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen9_vl"}), "utf-8")
    with pytest.raises(ModelError, match="a model of type 'qwen9_vl' can't"):
        resolve_base(settings_for(folder), "embedder")


def test_lora_is_on_every_large_layer_of_a_hybrid_model_and_on_no_other(tmp_path: Path) -> None:
    generator = load_generator(
        settings_for(make_tiny("qwen3_5", tmp_path)), AttributeSettings(batch_size=1), NO_CHECKPOINTS
    )
    large = {
        name
        for name, module in generator.loaded.trunk.language_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features > 2  # in_proj_a and in_proj_b: one a head
    }
    peft = add_trainable(generator, Settings().sft, None, NO_CHECKPOINTS, "CAUSAL_LM")
    touched = {name.split("language_model.")[1] for name, _ in peft.named_parameters() if ".lora_A" in name}
    assert {name.rsplit(".lora_A", 1)[0] for name in touched} == large and len(large) == 13


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_vision_encoders_lora_is_on_every_linear_layer_of_the_tower_and_on_no_other(architecture: str) -> None:
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(tiny_config(architecture))
    linear = {
        name for name, module in model.named_modules() if "visual." in name and isinstance(module, torch.nn.Linear)
    }
    found = {name for name, _ in model.named_modules() if re.fullmatch(FAMILIES[architecture].tower_targets, name)}
    assert found == linear


def test_thinking_is_closed_in_the_prompt_and_never_opened_in_an_answer(tmp_path: Path) -> None:
    attributes = AttributeSettings(batch_size=1, temperature=100.0, max_new_tokens=300)
    generator = load_generator(settings_for(make_tiny("qwen3_5", tmp_path)), attributes, NO_CHECKPOINTS)
    request = Request(attribute_prompt("red <think>shirt"), (), product="red <think>shirt")
    text = generator.text(request)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n") and text.count("think>") == 2
    batch = generator.processor.tensors([text], [[]])
    made = generator.loaded.causal.generate(**batch, generation_config=generator._config(), num_return_sequences=8)
    thoughts = set(generator.processor.tokenizer.convert_tokens_to_ids(["<think>", "</think>"]))
    assert len(thoughts) == 2 and thoughts <= set(batch["input_ids"][0].tolist())
    assert not thoughts & set(made[:, batch["input_ids"].shape[1] :].flatten().tolist())


def test_kernels_that_are_not_installed_are_no_message(tmp_path: Path) -> None:
    said = logging.getLogger("transformers.integrations.hub_kernels")
    said.setLevel(logging.NOTSET)
    load_base(resolve_base(settings_for(make_tiny("qwen3_5", tmp_path)), "embedder"), "fp32", "cpu")
    assert not said.isEnabledFor(logging.WARNING)


def test_the_table_is_what_a_saved_processor_is_named_by(tmp_path: Path) -> None:
    processor = load_processor(resolve_base(settings_for(make_tiny("qwen2_5_vl", tmp_path / "m")), "embedder"))
    processor.inner.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text("utf-8"))
    assert saved["processor_class"] == FAMILIES["qwen2_5_vl"].processor_class
