"""A group's vectors with a shared beginning are those of encoding each text in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.listener import Silent
from afmrl_cli.models.batching import Batches
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.rar.frozen import frozen
from afmrl_cli.rar.prefix import encode_groups, split_group
from afmrl_cli.settings import EmbedSettings
from afmrl_cli.store.checkpoints import Checkpoints
from tests.models.adapters import add_random
from tests.models.conftest import NO_CHECKPOINTS, settings_for
from tests.tiny import photo

TinyModel = Callable[[str], Path]
FIND = "Find this product:"
TEXT = "Title: red cotton shirt with short sleeves\nBrand: X"
LINE = "\nAttributes: "


def group(text: str, images: int, rests: list[str], seed: int = 0) -> list[Item]:
    """Items with the same pictures, of different sizes, and texts that begin with `text`."""
    pictures = tuple(photo(seed + i, 56 + 28 * i, 84) for i in range(images))
    return [Item(text + rest, pictures) for rest in rests]


GROUPS = [
    group(TEXT, 1, [LINE + "colour: red", LINE + "colour: red; closure: zip", "", LINE + "pattern: striped"], 1),
    group("", 2, ["Attributes: colour: blue", "Attributes: colour: green; neckline: round", "Attributes: x: y"], 5),
    group("blue denim jacket", 0, [LINE + "colour: blue", LINE + "colour: green; series: " + "striped " * 20], 9),
    group(TEXT * 3, 3, [LINE + "a: b", LINE + "a: b", LINE + "c: d", LINE + "a: b"], 12),
    group("", 1, [LINE + "only: one"], 20),
]


def load(folder: Path, **changes: object) -> Embedder:
    return load_embedder(settings_for(folder, **changes), EmbedSettings(), NO_CHECKPOINTS)


def farthest(embedder: Embedder, groups: list[list[Item]], size: int = 8, instruction: str = FIND) -> float:
    """The largest difference between the two ways, over all vectors; their spread is made sure of."""
    with frozen(embedder):
        found = encode_groups(embedder, groups, instruction=instruction, batches=Batches(size, Silent(), "reward"))
        full = [embedder.encode(items, instruction=instruction) for items in groups]
    assert [vectors.shape for vectors in found] == [vectors.shape for vectors in full]
    every = np.concatenate(full)
    assert np.linalg.norm(every - every.mean(0), axis=1).min() > 0.01
    return max(float(np.abs(a - b).max()) for a, b in zip(found, full, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_equal_to_encoding_each_in_full(tiny_model: TinyModel, architecture: str, precision: str) -> None:
    embedder = load(tiny_model(architecture), precision=precision)
    for size in (1, 8, 64):
        assert farthest(embedder, GROUPS, size) < 1e-5


def test_equal_with_the_built_in_model() -> None:
    embedder = load_embedder(settings_for(Path("nano"), max_pixels=0), EmbedSettings(), NO_CHECKPOINTS)
    assert farthest(embedder, GROUPS) < 1e-5


def test_equal_with_an_adapter(tiny_model: TinyModel, architecture: str, tmp_path: Path) -> None:
    folder, checkpoints = tiny_model(architecture), Checkpoints(tmp_path)
    bare = load(folder)
    add_random(checkpoints, bare.loaded.base, "e1", 3)
    settings = settings_for(folder, embedder_checkpoint="e1")
    embedder = load_embedder(settings, EmbedSettings(), checkpoints)
    assert farthest(embedder, GROUPS) < 1e-5
    item = GROUPS[0][0]
    assert np.abs(embedder.encode([item], instruction=FIND) - bare.encode([item], instruction=FIND)).max() > 1e-3


def test_equal_where_tokens_would_merge_across_a_cut_between_letters(tiny_model: TinyModel) -> None:
    embedder = load(tiny_model("qwen2_vl"))
    tokens = embedder.processor.tokenizer
    # "shirt" is one token, "shir" and "t" are others: a cut after the letters that are shared would be inside a token.
    assert len(tokens(" shirt")["input_ids"]) < len(tokens(" shir")["input_ids"]) + 1
    items = [Item(f"a red shir{end}") for end in ("t", "t with", "", "ts", "e")]
    assert farthest(embedder, [items]) < 1e-5
    split = split_group(embedder, items, FIND)
    whole = tokens(embedder.texts(items, FIND))["input_ids"]
    assert [split.prefix + split.rests[place] for place in split.place] == whole


def test_nothing_shared_is_encoded_in_full(tiny_model: TinyModel) -> None:
    embedder = load(tiny_model("qwen2_vl"))
    apart, same = [Item("red"), Item("<blue>")], [Item("red"), Item("red")]
    assert not split_group(embedder, same, FIND).prefix
    assert split_group(embedder, apart, FIND).prefix
    embedder.texts = lambda items, instruction: [item.text for item in items]  # type: ignore[method-assign]
    assert not split_group(embedder, apart, "").prefix
    assert farthest(embedder, [apart, GROUPS[2], same], instruction="") < 1e-5


def test_pictures_and_what_is_shared_run_once_for_a_group(tiny_model: TinyModel, architecture: str) -> None:
    embedder = load(tiny_model(architecture))
    patches: list[int] = []
    tokens: list[int] = []
    trunk = embedder.loaded.trunk
    trunk.visual.register_forward_pre_hook(lambda _, args, kwargs: patches.append(len(args[0])), with_kwargs=True)
    trunk.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    items = group(TEXT, 2, [f"{LINE}colour: {word}" for word in ("red", "blue", "green", "red")], 1)
    with frozen(embedder):
        encode_groups(embedder, [items], instruction=FIND, batches=Batches(8, Silent(), "reward"))
    split = split_group(embedder, items, FIND)
    once = embedder.processor.pixels([embedder.opened(image) for image in items[0].images])
    assert patches == [len(once["pixel_values"])]
    shown = int(once["image_grid_thw"].prod(1).sum()) // 4
    assert tokens == [len(split.prefix) - 2 + shown, 3 * max(map(len, split.rests))]
    assert max(map(len, split.rests)) <= 6


def test_groups_of_other_pictures_are_refused(tiny_model: TinyModel) -> None:
    embedder = load(tiny_model("qwen2_vl"))
    with pytest.raises(ValueError, match="same pictures"):
        split_group(embedder, [Item("a", (photo(1),)), Item("a", (photo(2),))], FIND)
