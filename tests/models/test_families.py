"""One table of model families: a row is all that a family needs, and nothing else in the sources asks for a type."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import afmrl_cli
from afmrl_cli.attributes.prompt import attribute_prompt
from afmrl_cli.attributes.request import Request
from afmrl_cli.errors import ModelError
from afmrl_cli.models.embed_input import Item, embedder_text
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.families import FAMILIES, IMAGE_SLOT, Family, titles
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.processor import load_processor
from afmrl_cli.rar.prefix import split_group
from afmrl_cli.settings import AttributeSettings, EmbedSettings, Settings
from afmrl_cli.store.strict import TARGETS
from afmrl_cli.training.adapter import add_trainable
from tests.tiny import ARCHITECTURES, make_tiny, photo, tiny_config

from .conftest import NO_CHECKPOINTS, settings_for

SOURCES = Path(afmrl_cli.__file__).parent
ASKS_FOR_A_TYPE = re.compile(r"qwen[\d_]+.*vl|<\|(image|video|vision)_\w+\|>", re.I)
OF_OTHERS = {"attributes/answers.py", "training/memory.py"}
"""Names every model's special tokens, which a server's answer may hold; knows the presets' shapes."""


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
    assert titles() == "Qwen2-VL, Qwen2.5-VL or Qwen3-VL"
    for name, family in FAMILIES.items():
        vision = tiny_config(name).vision_config
        assert family.model_type == name
        assert family.token_side == vision.patch_size * vision.spatial_merge_size
        assert family.image_slot.count(family.image_token) == 1
        assert TARGETS.fullmatch(family.lora_targets), "a checkpoint may have no other pattern"
        assert all(getattr(family, field.name) != "" for field in fields(family))


def test_a_base_knows_its_family(tmp_path: Path) -> None:
    base = resolve_base(settings_for(make_tiny("qwen3_vl", tmp_path)), "embedder")
    assert base.family is FAMILIES["qwen3_vl"]


def test_the_embedders_text_follows_the_row() -> None:
    turns = replace(FAMILIES["qwen3_vl"], embed_template="<s>{instruction}</s>{images}{text}", embed_end="<end>")
    item = Item("red {shirt} ", (Path("a"), Path("b")))
    assert embedder_text(item, "Find:", turns) == f"<s>Find:</s>{IMAGE_SLOT * 2}red {{shirt}}<end>"
    assert embedder_text(item, "Find:", FAMILIES["qwen2_vl"]) == f"{IMAGE_SLOT * 2}Find: red {{shirt}}\n"


# Qwen3.5 is no row yet: three of four layers are gated delta nets, and its vision tower has no DeepStack.
NEW = Family(
    "qwen3_5",
    "Qwen3.5",
    "Qwen3VLProcessor",
    token_side=32,
    gpu_precision="bf16",
    lora_targets=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|in_proj_qkv|in_proj_z|out_proj|gate_proj|up_proj|down_proj)",
    shared_prefix=False,
)


KEPT = {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"}
KEPT |= {"rope_parameters"}


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of a type that the table does not have."""
    from transformers import AutoModelForImageTextToText, Qwen3_5Config

    folder = make_tiny("qwen3_vl", tmp_path_factory.mktemp("newcomer"))
    known = tiny_config("qwen3_vl").to_dict()
    text = {
        **{key: value for key, value in known["text_config"].items() if key in KEPT},
        **{"max_position_embeddings": 1024, "num_hidden_layers": 4, "initializer_range": 0.1, "eos_token_id": 2},
        **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "pad_token_id": 0},
        **{"linear_value_head_dim": 16, "tie_word_embeddings": True},
    }
    vision = {key: known["vision_config"][key] for key in ("depth", "num_heads", "hidden_size", "out_hidden_size")}
    vision |= {"intermediate_size": 64, "patch_size": 16, "num_position_embeddings": 16}
    ids = {key: value for key, value in known.items() if key.endswith("token_id")}
    torch.manual_seed(0)
    config = Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


def test_a_type_that_has_no_row_is_refused(newcomer: Path) -> None:
    with pytest.raises(ModelError, match="a model of type 'qwen3_5' can't be used"):
        resolve_base(settings_for(newcomer), "embedder")


def test_a_row_is_all_that_a_new_family_needs(newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "qwen3_5", NEW)
    settings = settings_for(newcomer)
    items = [Item("red shirt", (photo(1),)), Item("a blue denim jacket, regular fit"), Item("", (photo(2, 90, 60),))]
    embedder = load_embedder(settings, EmbedSettings(batch_size=8), NO_CHECKPOINTS)
    together = embedder.encode(items, instruction="Find this product:")
    for i, item in enumerate(items):
        assert np.abs(embedder.encode([item], instruction="Find this product:")[0] - together[i]).max() < 1e-5

    attributes = AttributeSettings(max_new_tokens=8, batch_size=4)
    generator = load_generator(settings, attributes, NO_CHECKPOINTS)
    requests = [Request(attribute_prompt(item.text), item.images, product=item.text) for item in items]  # type: ignore[arg-type]
    assert generator.generate(requests) == [generator.generate([request])[0] for request in requests]

    peft = add_trainable(generator, Settings().sft, None, NO_CHECKPOINTS, "CAUSAL_LM")
    touched = {name.rsplit(".lora_A", 1)[0] for name, _ in peft.named_parameters() if ".lora_A" in name}
    assert len(touched) == 3 * (3 + 3) + (4 + 3), "three layers of delta nets, one of attention, each with its MLP"


def test_prompts_are_run_for_each_answer_where_states_can_not_be_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    folder = make_tiny("qwen2_vl", tmp_path)
    items = [Item("red shirt", (photo(1),), attributes) for attributes in ("colour: red", "colour: blue")]
    embedder = load_embedder(settings_for(folder), EmbedSettings(), NO_CHECKPOINTS)
    assert split_group(embedder, items, "Find:").prefix
    monkeypatch.setitem(FAMILIES, "qwen2_vl", replace(FAMILIES["qwen2_vl"], shared_prefix=False))
    embedder = load_embedder(settings_for(folder), EmbedSettings(), NO_CHECKPOINTS)
    group = split_group(embedder, items, "Find:")
    assert not group.prefix and len(group.rests) == 2


def test_the_table_is_what_a_saved_processor_is_named_by(tmp_path: Path) -> None:
    processor = load_processor(resolve_base(settings_for(make_tiny("qwen2_5_vl", tmp_path / "m")), "embedder"))
    processor.inner.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text("utf-8"))
    assert saved["processor_class"] == FAMILIES["qwen2_5_vl"].processor_class
