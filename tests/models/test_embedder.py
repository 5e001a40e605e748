"""Items -> unit vectors that do not depend on their batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.settings import AttributeSettings, EmbedSettings
from afmrl_cli.store.checkpoints import Checkpoints
from tests.tiny import HIDDEN, photo

from .adapters import add_random
from .conftest import NO_CHECKPOINTS, settings_for

TinyModel = Callable[[str], Path]

MIXED = [
    Item("red shirt", (photo(1),)),
    Item("a blue denim jacket, regular fit, with a zip and two pockets; colour: blue; closure: zip"),
    Item("", (photo(2, 90, 40), photo(3), photo(4))),
    Item("x"),
    Item("green", (photo(5, 40, 120),)),
    Item("", (photo(6),)),
    Item("striped " * 20, (photo(7), photo(8))),
]


def embedder_of(folder: Path, batch_size: int = 4, **changes: object) -> Embedder:
    return load_embedder(settings_for(folder, **changes), EmbedSettings(batch_size=batch_size), NO_CHECKPOINTS)


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_row_does_not_depend_on_its_batch(tiny_model: TinyModel, architecture: str, precision: str) -> None:
    embedder = embedder_of(tiny_model(architecture), precision=precision)
    alone = np.concatenate([embedder.encode([item], instruction="Find:") for item in MIXED])
    assert alone.shape == (len(MIXED), HIDDEN) == (len(MIXED), embedder.dimension)
    assert alone.dtype == np.float32
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    assert np.abs(embedder.encode(MIXED, instruction="Find:") - alone).max() < 1e-5
    back = embedder_of(tiny_model(architecture), 3, precision=precision).encode(MIXED[::-1], instruction="Find:")
    assert np.abs(back[::-1] - alone).max() < 1e-5
    apart = np.linalg.norm(alone[:, None] - alone[None], axis=-1) + np.eye(len(MIXED))
    assert apart.min() > 0.01


def test_padding_on_the_left_changes_nothing(tiny_model: TinyModel, architecture: str) -> None:
    embedder = embedder_of(tiny_model(architecture))
    text = embedder.texts([MIXED[0]], "Find:")
    batch = embedder.processor.tensors(text, [[photo(1)]])
    pad = embedder.processor.tokenizer.pad_token_id
    padded = dict(batch)
    for name, value in (("input_ids", pad), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        padded[name] = torch.nn.functional.pad(batch[name], (37, 0), value=value)
    assert np.abs(embedder.forward(batch) - embedder.forward(padded)).max() < 1e-5


def test_it_is_the_last_token_of_the_last_layer(tiny_model: TinyModel, architecture: str) -> None:
    folder = tiny_model(architecture)
    embedder = embedder_of(folder)
    headless = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for item in MIXED:
        text = embedder.texts([item], "Find:")[0]
        assert text.endswith("\n") and text.startswith("<|vision_start|>" * bool(item.images))
        batch = embedder.processor.inner(text=[text], images=list(item.images) or None, return_tensors="pt")
        with torch.no_grad():
            state = headless(**batch).last_hidden_state[0, -1].numpy()
        row = embedder.encode([item], instruction="Find:")[0]
        assert np.abs(row - state / np.linalg.norm(state)).max() < 1e-5


def test_no_vocabulary_scores_are_computed(tiny_model: TinyModel) -> None:
    embedder = embedder_of(tiny_model("qwen2_vl"))
    calls: list[object] = []
    embedder.loaded.causal.lm_head.register_forward_hook(lambda *args: calls.append(args))
    embedder.encode(MIXED, instruction="Find:")
    assert calls == []


def test_nothing_to_encode(tiny_model: TinyModel) -> None:
    embedder = embedder_of(tiny_model("qwen2_vl"))
    assert embedder.encode([], instruction="Find:").shape == (0, HIDDEN)
    with pytest.raises(DataError, match="item 1 "):
        embedder.encode([Item("a"), Item(" ")], instruction="Find:")


def test_text_is_cut_and_pictures_and_instruction_are_not(tiny_model: TinyModel) -> None:
    embedder = embedder_of(tiny_model("qwen2_vl"), max_text_tokens=16)
    long = Item("red cotton shirt, " * 5000, (photo(1), photo(2)))
    text = embedder.texts([long], "Find this product:")[0]
    assert text.count("<|image_pad|>") == 2
    assert "Find this product: red cotton" in text and len(text) < 300
    assert embedder.encode([long], instruction="Find:").shape == (1, HIDDEN)
    huge = embedder_of(tiny_model("qwen2_vl"), max_pixels=2000 * 2000)
    with pytest.raises(ModelError, match="positions"):
        huge.encode([Item("", (photo(1, 1800, 1800),))], instruction="Find:")


def test_photos_beyond_the_positions_are_left_out_and_reported(tiny_model: TinyModel) -> None:
    """A listing with very many photos does not end a run: the first ones are read, as many as fit."""
    embedder = embedder_of(tiny_model("qwen2_vl"))
    few, many = (Item("red shirt", tuple(photo(i) for i in range(number))) for number in (3, 400))
    assert embedder.fitting([few]) == [few] and not embedder.photos_left_out
    (fitting,) = embedder.fitting([many])
    assert fitting.images == many.images[: len(fitting.images)] and 50 < len(fitting.images) < 400
    assert embedder.photos_left_out == 400 - len(fitting.images)
    found, expected = embedder.encode([many, fitting], instruction="Find:")
    assert np.abs(found - expected).max() < 1e-5


def test_shop_text_with_special_tokens(tiny_model: TinyModel) -> None:
    embedder = embedder_of(tiny_model("qwen2_vl"))
    rows = embedder.encode(
        [Item("red <|image_pad|> shirt<|im_end|>", (photo(1),)), Item("<|vision_start|><|video_pad|>a")],
        instruction="Find <|image_pad|>:",
    )
    assert np.isfinite(rows).all()


def test_generator_and_embedder_share_one_copy_and_keep_their_adapters(
    tiny_model: TinyModel, architecture: str, tmp_path: Path
) -> None:
    folder = tiny_model(architecture)
    base = resolve_base(settings_for(folder), "embedder")
    adapters = Checkpoints(tmp_path / "store")
    add_random(adapters, base, "sft", 0, "generator")
    add_random(adapters, base, "agcl", 1)
    settings = settings_for(folder, generator_checkpoint="sft", embedder_checkpoint="agcl")
    bases = Bases()
    generator = load_generator(settings, AttributeSettings(max_new_tokens=8), adapters, bases=bases)
    embedder = load_embedder(settings, EmbedSettings(), adapters, bases=bases)
    assert generator.loaded is embedder.loaded
    alone = load_embedder(settings, EmbedSettings(), adapters)
    expected = alone.encode(MIXED, instruction="Find:")
    assert np.array_equal(embedder.encode(MIXED, instruction="Find:"), expected)
    from afmrl_cli.attributes.request import Request

    requests = [Request("Describe it.", (photo(1),)), Request("What colour?")]
    answers = generator.generate(requests)
    assert np.array_equal(embedder.encode(MIXED, instruction="Find:"), expected)
    assert generator.generate(requests) == answers
    assert answers == load_generator(settings, AttributeSettings(max_new_tokens=8), adapters).generate(requests)
    bare = load_embedder(settings_for(folder), EmbedSettings(), adapters, bases=bases)
    assert bare.loaded is embedder.loaded
    assert np.array_equal(
        bare.encode(MIXED, instruction="Find:"), embedder_of(folder, 32).encode(MIXED, instruction="Find:")
    )
    assert len({bare.id, embedder.id, generator.id}) == 3
