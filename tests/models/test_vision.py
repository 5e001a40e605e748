"""Photos are looked at once: what is stored gives what the tower gives, and is never trusted where it must not be."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from afmrl_cli.attributes.request import Request
from afmrl_cli.catalog.images import ImageProblem
from afmrl_cli.catalog.pictures import Picture
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.families import LORA_TARGETS
from afmrl_cli.models.features import FeatureStore
from afmrl_cli.models.generator import load_generator
from afmrl_cli.settings import AttributeSettings, CacheSettings, CatalogSettings, EmbedSettings, ModelSettings
from tests.tiny import photo

from .conftest import NO_CHECKPOINTS, settings_for

TinyModel = Callable[[str], Path]
CATALOG = CatalogSettings()
FIND = "Find:"
ROUNDING = 2e-3
"""Of unit vectors: features carry 11 bits."""
PREPARED = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "nano"}


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    warn = note


def cache_in(place: Path, listener: Silent | None = None, **settings: object) -> Cache:
    return Cache(place / "cache", CacheSettings.model_validate(settings), listener or Silent())


def model_of(name: str, tiny_model: TinyModel) -> ModelSettings:
    if name == "nano":
        return ModelSettings.model_validate({"preset": "nano", "device": "cpu"})
    return settings_for(tiny_model(name))


def embedder_of(settings: ModelSettings, cache: Cache | None) -> Embedder:
    return load_embedder(settings, EmbedSettings(batch_size=8), NO_CHECKPOINTS, bases=Bases(cache))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Of several shapes; the last has the bytes of the first."""
    made = []
    for i, size in enumerate([(56, 56), (200, 90), (60, 150), (64, 64), (300, 300)]):
        photo(i, *size).save(tmp_path / f"{i}.png")
        made.append(tmp_path / f"{i}.png")
    shutil.copy(made[0], tmp_path / "twin.png")
    return [*made, tmp_path / "twin.png"]


def items_of(photos: list[Path]) -> list[Item]:
    return [
        Item("red shirt", (photos[0],)),
        Item("a blue denim jacket, regular fit", (photos[1], photos[2])),
        Item("no photo at all"),
        Item("", (photos[3],)),
        Item("striped " * 20, (photos[4], photos[0], photos[5])),
    ]


def looks(embedder: Embedder) -> list[int]:
    """Grows by the number of pictures that the tower sees, each time it does."""
    seen: list[int] = []
    embedder.loaded.trunk.visual.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    return seen


@pytest.fixture(params=sorted(PREPARED))
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> ModelSettings:
    return model_of(request.param, tiny_model)


def test_vectors_are_the_same_and_the_tower_sees_a_photo_once(
    model: ModelSettings, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, cache = items_of(photos), cache_in(tmp_path)
    plain = embedder_of(model, None).encode(items, instruction=FIND)
    first = embedder_of(model, cache)
    seen = looks(first)
    made = first.encode(items, instruction=FIND)
    assert sum(seen) == 5, "six photos, two of which are the same"
    assert 0 < np.abs(made - plain).max() < ROUNDING
    assert np.array_equal(first.encode(items, instruction=FIND), made) and sum(seen) == 5

    again = embedder_of(model, cache)
    seen = looks(again)
    monkeypatch.setattr("afmrl_cli.models.vision.open_image", None)  # a photo that is known stays closed
    assert np.array_equal(again.encode(items, instruction=FIND), made)
    assert seen == []
    assert all(isinstance(again.load_image(path, CATALOG), Picture) for path in photos)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_what_is_stored_of_a_photo_does_not_depend_on_those_beside_it(
    name: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Else a run that was killed goes on to other weights than one that was not: it meets some photos in the store."""
    for i in range(96):
        photo(i, 48 + i % 7 * 9, 112 - i % 5 * 13).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(96)]
    model = embedder_of(model_of(name, tiny_model), cache_in(tmp_path))
    alone = [model.vision.inputs(model.vision.show([picture]), model.loaded.device) for picture in opened(model, paths)]
    together = model.vision.inputs(model.vision.show(opened(model, paths)), model.loaded.device)
    there = seen_in(together)
    assert all(torch.equal(one, other) for each, other in zip(alone, there, strict=True) for one in seen_in(each))


def opened(model: Embedder, paths: list[Path]) -> list[Picture]:
    """Unknown to the store: nothing has been flushed."""
    return [replace(model.load_image(path, CATALOG), content="") for path in paths]


def seen_in(inputs: dict[str, Any]) -> list[torch.Tensor]:
    rows: list[torch.Tensor] = inputs["mm_encoder_outputs"]["image"].pooler_output
    return rows


def test_answers_are_the_same(model: ModelSettings, photos: list[Path], tmp_path: Path) -> None:
    attributes, cache = AttributeSettings(max_new_tokens=12, batch_size=2), cache_in(tmp_path)

    def answers(cache: Cache | None, settings: AttributeSettings, each: int = 1) -> tuple[Any, list[int]]:
        generator = load_generator(model, settings, NO_CHECKPOINTS, bases=Bases(cache))
        seen: list[int] = []
        generator.loaded.trunk.visual.register_forward_pre_hook(lambda *_: seen.append(1))
        requests = [
            Request(f"Describe {item.text}", tuple(generator.load_image(path, CATALOG) for path in item.images))  # type: ignore[arg-type]
            for item in items_of(photos)
        ]
        return generator.generate([request for request in requests for _ in range(each)]), seen

    plain, _ = answers(None, attributes)
    assert answers(cache, attributes)[0] == plain
    known, seen = answers(cache, attributes)
    assert known == plain and seen == []
    warm = attributes.model_copy(update={"temperature": 0.7})
    sampled, seen = answers(cache, warm, 3)
    assert sampled == answers(cache_in(tmp_path / "new"), warm, 3)[0] and seen == []
    assert len({answer.text for answer in sampled}) > 3


def test_generator_and_embedder_share_what_was_seen(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    settings, bases = settings_for(tiny_model("qwen3_vl")), Bases(cache_in(tmp_path))
    embedder = load_embedder(settings, EmbedSettings(), NO_CHECKPOINTS, bases=bases)
    embedder.encode(items_of(photos), instruction=FIND)
    seen = looks(embedder)
    generator = load_generator(settings, AttributeSettings(max_new_tokens=8), NO_CHECKPOINTS, bases=bases)
    generator.generate([Request("What is it?", (generator.load_image(photos[1], CATALOG),))])
    assert seen == []


def test_it_depends_on_base_size_and_precision(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    cache, item = cache_in(tmp_path), [Item("", (photos[4],))]
    variants = [
        settings_for(tiny_model("qwen2_vl")),
        settings_for(tiny_model("qwen2_5_vl")),
        settings_for(tiny_model("qwen2_vl"), max_pixels=112 * 112),
        settings_for(tiny_model("qwen2_vl"), min_pixels=60 * 60),
        settings_for(tiny_model("qwen2_vl"), precision="bf16"),
    ]
    for number, settings in enumerate(variants):
        embedder = embedder_of(settings, cache)
        seen = looks(embedder)
        embedder.encode(item, instruction=FIND)
        assert seen == [1], settings
        assert len(list((cache.folder / "vision").iterdir())) == number + 1
    half = embedder_of(variants[-1], None).encode(item, instruction=FIND)
    assert np.array_equal(embedder_of(variants[-1], cache).encode(item, instruction=FIND), half), (
        "bf16 is kept as it is"
    )


def test_a_changed_photo_is_encoded_again(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    settings, cache = settings_for(tiny_model("qwen2_vl")), cache_in(tmp_path)
    item = [Item("", (photos[0],))]
    before = embedder_of(settings, cache).encode(item, instruction=FIND)
    photo(9).save(photos[0])
    after = embedder_of(settings, cache).encode(item, instruction=FIND)
    assert np.abs(before - after).max() > 10 * ROUNDING
    assert np.abs(embedder_of(settings, None).encode(item, instruction=FIND) - after).max() < ROUNDING


def test_pixel_limits_and_missing_files_are_reported_as_without_it(
    tiny_model: TinyModel, photos: list[Path], tmp_path: Path
) -> None:
    embedder = embedder_of(settings_for(tiny_model("qwen2_vl")), cache_in(tmp_path))
    embedder.encode([Item("", (photos[4],))], instruction=FIND)
    with pytest.raises(ImageProblem, match="at most 1,000"):
        embedder.load_image(photos[4], CatalogSettings(max_image_pixels=1000))
    with pytest.raises(ImageProblem, match="no such file"):
        embedder.load_image(tmp_path / "none.png", CATALOG)
    (tmp_path / "bad.png").write_text("no photo")
    with pytest.raises(ImageProblem, match="no photo but text"):
        embedder.load_image(tmp_path / "bad.png", CATALOG)


def test_it_may_be_deleted_while_it_is_used(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    settings, cache, items = settings_for(tiny_model("qwen2_vl")), cache_in(tmp_path), items_of(photos)
    embedder_of(settings, cache).encode(items, instruction=FIND)
    embedder = embedder_of(settings, cache)
    known = [Item(item.text, tuple(embedder.load_image(path, CATALOG) for path in item.images)) for item in items]  # type: ignore[arg-type]
    shutil.rmtree(cache.folder)
    seen = looks(embedder)
    again = embedder.encode(known, instruction=FIND)
    assert sum(seen) == 5
    assert np.abs(embedder_of(settings, None).encode(items, instruction=FIND) - again).max() < ROUNDING
    assert looks(embedder_of(settings, cache)) == []
    assert list(cache.folder.rglob("*.safetensors")), "it fills again"


def test_half_a_file_is_no_reason_to_stop(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    settings, cache, items = settings_for(tiny_model("qwen2_vl")), cache_in(tmp_path), items_of(photos)
    made = embedder_of(settings, cache).encode(items, instruction=FIND)
    (shard,) = cache.folder.rglob("*.safetensors")
    whole = shard.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff" * 100):
        shard.write_bytes(damaged)
        embedder = embedder_of(settings, cache)
        assert not shard.exists()
        assert np.array_equal(embedder.encode(items, instruction=FIND), made)
        for file in cache.folder.rglob("*.safetensors"):
            file.rename(shard)


def test_an_adapter_on_the_tower_switches_it_off(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    heard, items = Heard(), items_of(photos)
    settings, cache = settings_for(tiny_model("qwen2_vl")), cache_in(tmp_path, heard)
    embedder_of(settings, cache).encode(items, instruction=FIND)
    embedder = embedder_of(settings, cache)
    config = LoraConfig(target_modules=r".*visual.*\.(qkv|proj)", init_lora_weights=False)
    embedder.loaded.peft = get_peft_model(embedder.loaded.causal, config)
    embedder.adapter = "default"
    seen = looks(embedder)
    other = embedder.encode(items, instruction=FIND)
    assert sum(seen) == 7 and len(heard.notes) == 1 and "vision tower" in heard.notes[0]
    assert np.abs(embedder_of(settings, None).encode(items, instruction=FIND) - other).max() > 10 * ROUNDING
    files = sorted(cache.folder.rglob("*.safetensors"))
    embedder.encode(items, instruction=FIND)
    assert sorted(cache.folder.rglob("*.safetensors")) == files and len(heard.notes) == 1

    usual = embedder_of(settings, cache)  # what train-agcl puts on: the language model's layers alone
    usual.loaded.peft = get_peft_model(usual.loaded.causal, LoraConfig(target_modules=LORA_TARGETS))
    assert usual.vision.store is not None
    whole = embedder_of(settings, cache)
    config = LoraConfig(target_modules=LORA_TARGETS, modules_to_save=["merger"])
    whole.loaded.peft = get_peft_model(whole.loaded.causal, config)
    assert whole.vision.store is None, "a part of the tower is trained"


def store_in(place: Path, gigabytes: float = 1.0, listener: Silent | None = None) -> FeatureStore:
    return FeatureStore(place, ["tower"], torch.float16, CacheSettings(gigabytes=gigabytes), listener or Silent())


def features(seed: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(seed)).half()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for i in range(4):
        store = store_in(tmp_path)
        store.keep(str(i), (4, 4), 99, features(i, 40))  # 2,560 bytes each
        store.flush()
        shard = store.folder / store._kept[str(i)].shard
        os.utime(shard, (1000 + i, 1000 + i))
    reader = store_in(tmp_path)
    assert torch.equal(reader.read("0"), features(0, 40))  # type: ignore[arg-type]
    writer = store_in(tmp_path, gigabytes=12e-6)
    writer.keep("5", (4, 4), 99, features(5, 40))
    writer.flush()
    left = store_in(tmp_path)
    assert {key for key in "012345" if left.find(key)} == {"0", "2", "3", "5"}
    found = left.find("5")
    assert found is not None and (found.grid, found.pixels, found.rows) == ((4, 4), 99, 40)
    assert reader.read("1") is None, "gone by another's hand"


def test_a_run_does_not_push_out_what_it_uses_itself(tmp_path: Path) -> None:
    heard = Heard()
    store = store_in(tmp_path, 12e-6, heard)
    for i in range(9):
        store.keep(str(i), (4, 4), 99, features(i, 40))
        store.flush()
    assert [key for key in "012345678" if store.find(key)] == ["0", "1", "2", "3"]
    assert len(heard.notes) == 1 and "cache.gigabytes" in heard.notes[0]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 12_000


def test_a_store_that_cannot_be_written_is_reported_and_left(tmp_path: Path) -> None:
    heard = Heard()
    store = store_in(tmp_path, 1.0, heard)
    store.folder.parent.mkdir(parents=True)
    store.folder.write_text("in the way")
    for i in range(2):
        store.keep(str(i), (4, 4), 99, features(i))
        store.flush()
    assert len(heard.notes) == 1 and "not kept" in heard.notes[0]


def _write_until_killed(place: str, ready: Any) -> None:
    i = 0
    while True:
        store = store_in(Path(place))
        for _ in range(5):
            store.keep(f"{os.getpid()}-{i}", (2, 2), 9, features(i))
            i += 1
        store.flush()
        ready.set()


def test_two_that_write_and_one_that_is_killed_leave_whole_files(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_write_until_killed, args=(str(tmp_path), ready))
    other.start()
    assert ready.wait(120)
    mine = store_in(tmp_path)
    for i in range(20):
        mine.keep(f"me-{i}", (2, 2), 9, features(i))
        mine.flush()
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    store = store_in(tmp_path)
    assert len(store) >= 25
    for key in store._kept:
        assert torch.equal(store.read(key), features(int(key.split("-")[1])))  # type: ignore[arg-type]


def test_it_can_be_switched_off(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    cache = cache_in(tmp_path, vision=False)
    items, settings = items_of(photos), settings_for(tiny_model("qwen2_vl"))
    made = embedder_of(settings, cache).encode(items, instruction=FIND)
    assert np.array_equal(made, embedder_of(settings, None).encode(items, instruction=FIND))
    assert not cache.folder.exists()


def test_what_16_bits_cannot_hold_is_not_kept(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    cache, settings = cache_in(tmp_path), settings_for(tiny_model("qwen2_vl"))
    embedder, plain = embedder_of(settings, cache), embedder_of(settings, None)
    for each in (embedder, plain):
        with torch.no_grad():
            each.loaded.trunk.visual.merger.mlp[-1].bias[0] = 1e6
    item = [Item("red", (photos[0],))]
    assert np.array_equal(embedder.encode(item, instruction=FIND), plain.encode(item, instruction=FIND))
    assert not list(cache.folder.rglob("*.safetensors"))


def test_photos_are_reduced_once(model: ModelSettings, tmp_path: Path) -> None:
    """Qwen's size of a picture of that size is another one again."""
    embedder = embedder_of(model, None)
    photo(3, 240, 180).save(tmp_path / "wide.png")
    photo(3, 224, 224).save(tmp_path / "square.png")
    stock = embedder.processor.inner.image_processor
    for name in ("wide.png", "square.png"):
        with Image.open(tmp_path / name) as image:
            expected = stock([image.convert("RGB")], return_tensors="pt")
            small = embedder.processor.resized(image.convert("RGB"))
        for shown in (embedder.load_image(tmp_path / name, CATALOG), small):
            made = embedder.processor.pixels([shown])
            assert torch.equal(made["pixel_values"], expected["pixel_values"])
            assert torch.equal(made["image_grid_thw"], expected["image_grid_thw"])
    assert embedder.processor.resized(photo(3, 224, 224)).width < 224


def test_a_picture_left_closed_equals_one_opened(tiny_model: TinyModel, photos: list[Path], tmp_path: Path) -> None:
    embedder = embedder_of(settings_for(tiny_model("qwen3_vl")), cache_in(tmp_path))
    seen = embedder.load_image(photos[1], CATALOG)
    assert isinstance(seen, Picture) and seen.image is not None
    embedder.encode([Item("", (seen,))], instruction=FIND)
    known = embedder.load_image(photos[1], CATALOG)
    assert known == replace(seen, image=None)
    assert embedder.vision.image_tokens(known) == embedder.image_tokens(photo(1, 200, 90))
