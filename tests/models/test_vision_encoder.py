"""The vision encoder: photos to vectors by the tower alone, equal to the whole model's tower with the adapter on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from afmrl_cli.catalog.images import ImageProblem
from afmrl_cli.catalog.pictures import Picture
from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models import vision_encoder
from afmrl_cli.models.base import Bases, Cache, active_adapter, add_adapter
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.presets import Base, model_id, name_of, resolve_base
from afmrl_cli.models.vision_encoder import VisionEncoder, bare_tower, load_vision_encoder
from afmrl_cli.saga.pooler import Pooler, load_pooler, save_pooler
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import CONFIG, POOLER_WEIGHTS, WEIGHTS, Checkpoints, Manifest
from tests import NANO
from tests.tiny import photo

from .adapters import add_vision

SIZES = ((56, 56), (84, 60), (112, 40), (60, 90), (56, 56))


def settings_of(model: str | Path, **flags: object) -> Settings:
    base = {"model.generator": str(model), "model.device": "cpu", "model.vision_checkpoint": "eyes"}
    return load_settings(None, {**base, "model.max_pixels": 96 * 96, **flags}, NANO)


def photos() -> list[Image.Image]:
    return [photo(seed, *size) for seed, size in enumerate(SIZES)]


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def opened(settings: Settings, store: Checkpoints, cache: Cache | None = None) -> VisionEncoder:
    return load_vision_encoder(settings, store, cache, Silent())


def encoded(encoder: VisionEncoder, *images: object) -> NDArray[np.float32]:
    return encoder.encode([Item("", (image,)) for image in images], instruction="")  # type: ignore[arg-type]


def by_whole_model(settings: Settings, store: Checkpoints) -> NDArray[np.float32]:
    """Vectors of `photos` by the whole base with PEFT's LoRA on its tower, each photo by itself."""
    base, manifest = resolve_base(settings.model, "vision"), store.get("eyes")
    loaded = Bases().get(base, settings.model)
    adapter = add_adapter(loaded, manifest, store.path("eyes"))
    pooler, made = load_pooler(store.path("eyes") / POOLER_WEIGHTS), []
    for image in photos():
        batch = loaded.processor(base).pixels([image])
        with torch.inference_mode(), active_adapter(loaded.peft, adapter):
            tokens = loaded.trunk.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True)
            made.append(pooler(list(tokens.pooler_output)).vectors[0].numpy())
    return np.stack(made)


def test_its_tower_is_that_of_the_whole_model_with_the_adapter(
    architecture: str, tiny_model: Callable[[str], Path], store: Checkpoints
) -> None:
    settings = settings_of(tiny_model(architecture))
    add_vision(store, resolve_base(settings.model, "vision"), "eyes", dimension=24)
    encoder = opened(settings, store)
    found = encoded(encoder, *photos())
    assert found.shape == (5, 24) and found.dtype == np.float32
    assert np.abs(found - by_whole_model(settings, store)).max() < 1e-5
    encoder.tower = bare_of(settings).tower
    assert np.abs(found - encoded(encoder, *photos())).max() > 0.01, "the adapter does something"


def bare_of(settings: Settings) -> VisionEncoder:
    return bare_tower(settings, None, Silent())


def test_nano_is_a_base_like_any_other(store: Checkpoints) -> None:
    settings = settings_of("nano")
    add_vision(store, resolve_base(settings.model, "vision"), "eyes", pooling="mean")
    found = encoded(opened(settings, store), *photos())
    assert np.abs(found - by_whole_model(settings, store)).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_photos_vector_does_not_depend_on_its_batch(
    tiny_model: Callable[[str], Path], store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tiny_model("qwen3_vl"), **{"embed.batch_size": 2})
    add_vision(store, resolve_base(settings.model, "vision"), "eyes")
    encoder = opened(settings, store)
    monkeypatch.setattr(vision_encoder, "BATCHES", 2)  # five photos are opened in two goes
    together = encoded(encoder, *photos())
    alone = np.concatenate([encoded(encoder, image) for image in photos()])
    assert np.abs(together - alone).max() < 1e-5


def test_the_tower_alone_has_the_whole_models_numbers(architecture: str, tiny_model: Callable[[str], Path]) -> None:
    settings = settings_of(tiny_model(architecture))
    base = resolve_base(settings.model, "vision")
    whole = Bases().get(base, settings.model).trunk.visual.state_dict()
    tower = bare_of(settings).tower.state_dict()
    assert tower.keys() == {name for name in whole if "deepstack" not in name}, "a language model alone reads those"
    assert all(torch.equal(tower[name], whole[name]) for name in tower)


def test_files_of_older_names_are_read(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """The hub's Qwen2-VL calls the tower `visual`, not `model.visual`."""
    own = tiny_model("qwen2_vl")
    folder = Path(shutil.copytree(own, tmp_path / "older"))
    tensors = load_file(own / "model.safetensors")
    older = {name.removeprefix("model.") if ".visual." in name else name: each for name, each in tensors.items()}
    assert any(name.startswith("visual.") for name in older)
    save_file(older, folder / "model.safetensors", {"format": "pt"})
    one, other = (encoded(bare_of(settings_of(place)), *photos()) for place in (own, folder))
    assert np.array_equal(one, other)


def test_a_listing_is_the_mean_of_its_photos(store: Checkpoints) -> None:
    settings = settings_of("nano")
    add_vision(store, resolve_base(settings.model, "vision"), "eyes")
    encoder = opened(settings, store)
    first, second, third = encoded(encoder, *photos()[:3])
    both, one = encoder.encode(
        [Item("words", (photos()[0], photos()[1], photos()[2])), Item(images=(photos()[1],), attributes="color: red")],
        instruction="Find it",
    )
    mean = first + second + third
    assert np.allclose(both, mean / np.linalg.norm(mean), atol=1e-5), "words count for nothing"
    assert np.allclose(one, second, atol=1e-5)


def test_an_item_without_a_photo_is_an_error(store: Checkpoints) -> None:
    settings = settings_of("nano")
    with pytest.raises(DataError, match="item 1 to embed has no photo"):
        bare_of(settings).encode([Item("", (photo(1),)), Item("a shirt")], instruction="")


def test_a_batch_that_does_not_fit_is_halved(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = bare_of(settings_of("nano"))
    expected, forward, sizes = encoded(encoder, *photos()), encoder.forward, []

    def small(batch: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        sizes.append(len(batch["image_grid_thw"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(batch)

    monkeypatch.setattr(encoder, "forward", small)
    assert np.allclose(encoded(encoder, *photos()), expected, atol=1e-5)
    assert sizes[0] == 5 and max(sizes[1:]) == 2


def test_vectors_of_photos_are_kept_under_the_encoders_own_weights(
    store: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither opened nor encoded again by this encoder; another pooler, another adapter: nothing is taken from it."""
    settings = settings_of("nano")
    base = resolve_base(settings.model, "vision")
    for name, dimension in (("eyes", 0), ("other", 12)):
        add_vision(store, base, name, dimension=dimension)
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, file in enumerate(files):
        photo(seed, 80, 60).save(file)
    cache = Cache(tmp_path / "cache", settings.cache, Silent())
    first = encoded(opened(settings, store, cache), *files)
    monkeypatch.setattr(VisionEncoder, "forward", lambda *_: pytest.fail("encoded again"))
    again = opened(settings, store, cache)
    assert isinstance(shown := again.load_image(files[0], settings.catalog), Picture) and shown.image is None
    assert np.array_equal(encoded(again, *reversed(files)), first[::-1])
    monkeypatch.undo()
    other = settings_of("nano", **{"model.vision_checkpoint": "other"})
    assert encoded(opened(other, store, cache), *files).shape == (3, 12)


def test_a_photo_that_can_not_be_read_is_named(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageProblem):
        encoded(bare_of(settings_of("nano")), tmp_path / "broken.png")


def test_what_changes_vectors_changes_the_id_and_nothing_else_does(store: Checkpoints) -> None:
    settings = settings_of("nano")
    base = resolve_base(settings.model, "vision")
    add_vision(store, base, "eyes")

    def id_of(**flags: object) -> str:
        return model_id(settings_of("nano", **flags).model, "vision", store)

    own = id_of()
    assert own.startswith("nano-eyes-") and own == opened(settings, store).id
    assert id_of(**{"model.max_pixels": 64 * 64}) != own and id_of(**{"model.embedder_images": 1}) != own
    for key, value in (("max_text_tokens", 64), ("embedder_checkpoint", "x"), ("embed_template", "gme")):
        assert id_of(**{f"model.{key}": value}) == own
    manifest = store.get("eyes")
    for file in (WEIGHTS, CONFIG, POOLER_WEIGHTS):
        changed = replace(manifest, files={**manifest.files, file: "0" * 64})
        assert name_of(settings.model, "vision", base, changed) != own


def test_a_pooler_of_another_width_is_refused(tiny_model: Callable[[str], Path], store: Checkpoints) -> None:
    base = resolve_base(settings_of("nano").model, "vision")
    add_vision(store, base, "eyes")
    save_pooler(Pooler(24, 24, "mean"), store.path("eyes") / POOLER_WEIGHTS)
    stored_again(store, base)
    with pytest.raises(ModelError, match="its pooler reads tokens of 24 numbers, those of nano have 192"):
        opened(settings_of("nano"), store)


def stored_again(store: Checkpoints, base: Base) -> None:
    """Store the changed files of `eyes` as what it is."""
    place = Path(shutil.move(store.path("eyes"), store.folder.parent / "changed"))
    store.add(place, Manifest("vision", base.name, base.revision, "eyes"))


@pytest.mark.parametrize(
    "said", [{"use_rslora": True}, {"target_modules": ["attn.qkv", "attn.proj", "fc1", "fc2", "mlp.0", "mlp.2"]}]
)
def test_other_forms_of_lora_are_added_as_peft_does(said: dict[str, object], store: Checkpoints) -> None:
    settings = settings_of("nano")
    base = resolve_base(settings.model, "vision")
    add_vision(store, base, "eyes")
    config = store.path("eyes") / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **said}), "utf-8")
    stored_again(store, base)
    assert np.abs(encoded(opened(settings, store), *photos()) - by_whole_model(settings, store)).max() < 1e-5


@pytest.mark.parametrize("spoiled", ["one tensor less", "another shape", "another layer", "rank pattern"])
def test_an_adapter_that_is_not_whole_is_refused(spoiled: str, store: Checkpoints) -> None:
    base = resolve_base(settings_of("nano").model, "vision")
    add_vision(store, base, "eyes")
    file, config = (store.path("eyes") / name for name in (WEIGHTS, CONFIG))
    tensors, said = load_file(file), json.loads(config.read_text("utf-8"))
    first = sorted(tensors)[0]
    tensor = tensors.pop(first)
    if spoiled == "another shape":
        tensors[first] = tensor[:, :-1].contiguous()
    elif spoiled == "another layer":
        tensors[first.replace("blocks.0", "blocks.77")] = tensor
    elif spoiled == "rank pattern":
        tensors[first], said["rank_pattern"] = tensor, {"qkv": 2}
    save_file(tensors, file, {"format": "pt"})
    config.write_text(json.dumps(said), "utf-8")
    stored_again(store, base)
    with pytest.raises(
        ModelError, match=r"checkpoint eyes: (1|2) tensors do not fit|checkpoint eyes: not a plain LoRA"
    ):
        opened(settings_of("nano"), store)


def test_the_light_preset_has_no_tower(store: Checkpoints) -> None:
    settings = load_settings(None, {"model.preset": "light", "model.vision_checkpoint": "eyes"}, {})
    with pytest.raises(ModelError, match="a vision encoder would be trained"):
        opened(settings, store)


def test_the_store_of_features_goes_on_for_the_generator_beside_it(store: Checkpoints, tmp_path: Path) -> None:
    """The encoder has a tower of its own: the shared one stays as it came. With the adapter on that, nothing is taken
    from its store.
    """
    settings = settings_of("nano")
    base = resolve_base(settings.model, "vision")
    manifest = add_vision(store, base, "eyes")
    cache = Cache(tmp_path / "cache", settings.cache, Silent())
    loaded = Bases(cache).get(base, settings.model)
    opened(settings, store, cache)
    assert loaded.vision(base).store is not None
    add_adapter(loaded, manifest, store.path("eyes"))
    assert loaded.vision(base).store is None
