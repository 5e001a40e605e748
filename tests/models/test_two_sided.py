"""Embedders with a second adapter for composed queries: loaded, stored, exported, and refused where damaged."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, LoadedBase, Opened, add_adapter, add_query_adapter, load_base
from afmrl_cli.models.dimensions import shortened
from afmrl_cli.models.embed_input import Encoder, Item, for_composed
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.export import export_peft, export_sentence_transformers
from afmrl_cli.models.import_adapter import import_adapter
from afmrl_cli.models.presets import Base, embed_template, name_of, nano_folder, resolve_base
from afmrl_cli.settings import EmbedSettings, ModelSettings
from afmrl_cli.store.checkpoints import CONFIG, MANIFEST, QUERY_WEIGHTS, WEIGHTS, Checkpoints, Manifest, changes_tower
from afmrl_cli.store.lineage import differences
from afmrl_cli.store.transfer import export_checkpoint, import_checkpoint, read_foreign
from tests.tiny import photo

from .adapters import LANGUAGE_LAYERS, add_random, add_two_sided, save_two_sided
from .conftest import settings_for

ITEMS = [Item("in red", (photo(1),), "color: red"), Item("blue jacket"), Item("", (photo(2, 90, 40),))]
GALLERY, QUERY = 1, 2
"""Seeds of the two sides."""


class Shop(NamedTuple):
    """A store with the two-sided checkpoint `two`, and `gallery` and `query`, which are one of its sides each."""

    settings: ModelSettings
    base: Base
    store: Checkpoints
    bases: Bases

    def load(self, name: str) -> Embedder:
        model = self.settings.model_copy(update={"embedder_checkpoint": name})
        return load_embedder(model, EmbedSettings(batch_size=4), self.store, bases=self.bases)


@pytest.fixture(scope="module")
def made(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    settings = settings_for(tiny_model("qwen2_vl"))
    base, store = resolve_base(settings, "embedder"), Checkpoints(tmp_path_factory.mktemp("store"))
    add_two_sided(store, base, "two", (GALLERY, QUERY))
    add_random(store, base, "gallery", GALLERY)
    add_random(store, base, "query", QUERY)
    return Shop(settings, base, store, Bases())


@pytest.fixture
def shop(made: Shop, tmp_path: Path) -> Shop:
    """A copy of the store that a test may spoil."""
    shutil.copytree(made.store.folder, tmp_path / "store")
    return made._replace(store=Checkpoints(tmp_path / "store"), bases=Bases())


def vectors(encoder: Encoder) -> NDArray[np.float32]:
    return encoder.encode(ITEMS, instruction="Find:")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_each_side_gives_the_vectors_of_its_adapter_alone(made: Shop, precision: str) -> None:
    made = made._replace(settings=made.settings.model_copy(update={"precision": precision}))
    two, gallery, query = (made.load(name) for name in ("two", "gallery", "query"))
    assert np.abs(vectors(gallery) - vectors(query)).max() > 0.05
    for _ in range(2):  # neither side leaves its adapter switched on
        assert np.array_equal(vectors(two), vectors(gallery))
        assert np.array_equal(vectors(for_composed(two)), vectors(query))
    assert for_composed(gallery) is gallery and two.queries.queries.adapter == two.query_adapter
    short = for_composed(shortened(two, 8))
    assert np.array_equal(vectors(short), vectors(shortened(query, 8)))
    one_sided = shortened(gallery, 8)
    assert for_composed(one_sided) is one_sided


def test_both_sides_share_the_base_and_count_together(made: Shop) -> None:
    two = made.load("two")
    assert two.queries.loaded is two.loaded and two.queries.vision is two.vision
    two.queries.encode([Item("word " * 2000)], instruction="Find:")
    assert two.texts_cut == two.queries.texts_cut == 1
    two.encode([Item("word " * 2000)], instruction="Find:")
    assert two.queries.texts_cut == 2


def test_a_trainer_finds_its_adapter_as_it_left_it(made: Shop) -> None:
    causal = load_base(made.base, "fp32", "cpu")
    model = get_peft_model(causal, LoraConfig(r=4, target_modules=LANGUAGE_LAYERS))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    loaded, two = LoadedBase(made.base, causal, peft=model), made.store.get("two")
    two_sided = add_adapter(loaded, two, made.store.path("two"))
    name = add_query_adapter(loaded, two, made.store.path("two"))
    assert add_query_adapter(loaded, two, made.store.path("two")) == name
    assert set(model.peft_config) == {"default", two_sided, name} and model.active_adapter == "default"
    assert trainable and {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable


def test_the_query_adapter_is_part_of_the_id_and_ids_without_one_are_as_ever(made: Shop) -> None:
    base = Base("nano", "files-0123456789abcdef", nano_folder(), 3136, 50176, made.base.family)
    settings = ModelSettings(device="cpu", precision="fp32")
    files = {WEIGHTS: "a" * 64, CONFIG: "b" * 64, "README.md": "c" * 64}

    def named(more: dict[str, str]) -> str:
        manifest = Manifest("embedder", "nano", base.revision, "embedder-1", files=files | more)
        return name_of(settings, "embedder", base, manifest)

    assert named({}) == "nano-embedder-1-3ee4517d0d", "the id of this checkpoint in earlier versions"
    one, other = (named({QUERY_WEIGHTS: digest * 64}) for digest in "de")
    assert len({named({}), one, other}) == 3 and one.startswith("nano-embedder-1-")


def test_damage_to_the_second_file_is_refused(shop: Shop) -> None:
    file = shop.store.path("two") / QUERY_WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=rf"{QUERY_WEIGHTS}: damaged: its content is not what was stored"):
        shop.load("two")
    file.unlink()
    with pytest.raises(ModelError, match=rf"{QUERY_WEIGHTS}: damaged"):
        shop.load("two")


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"a": 1}))


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def another_shape(file: Path) -> None:
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name: torch.cat([tensors[name]] * 2, 1)}, file)


def another_name(file: Path) -> None:
    save_file({name.replace("layers.1", "layers.7"): value for name, value in load_file(file).items()}, file)


def a_tensor_less(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file)


def whole_numbers(file: Path) -> None:
    save_file({name: value.to(torch.int32) for name, value in load_file(file).items()}, file)


def a_link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere.safetensors")
    file.symlink_to(file.parent.parent / "elsewhere.safetensors")


def remade(folder: Path) -> Path:
    """Make the manifest say what the files are, as a stranger would."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    content["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in content["files"]}
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pickled, "not a safetensors file"),
        (cut_off, "cut off or damaged"),
        (another_shape, "tensors are not as in adapter_model|no matrix of a LoRA"),
        (another_name, "tensors are not as in adapter_model"),
        (a_tensor_less, "1 tensors are not as in adapter_model"),
    ],
)
def test_a_second_file_that_is_not_of_the_first_is_refused_at_every_door(
    shop: Shop, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """Stored by a run, imported from a folder, or in a stranger's store whose hashes are right."""
    adapter = save_two_sided(tmp_path / "adapter", shop.base, (3, 4))
    spoil(adapter / QUERY_WEIGHTS)
    with pytest.raises(ModelError, match=words):
        shop.store.add(adapter, Manifest("embedder", shop.base.name, shop.base.revision))
    shutil.copytree(shop.store.path("two"), tmp_path / "parcel")
    spoil(tmp_path / "parcel" / QUERY_WEIGHTS)
    with pytest.raises(ModelError, match=words):
        read_foreign(remade(tmp_path / "parcel"))
    spoil(shop.store.path("two") / QUERY_WEIGHTS)
    remade(shop.store.path("two"))
    for _ in range(2):  # what was refused has left nothing behind that would be taken the second time
        with pytest.raises(ModelError, match=rf"checkpoint two: .*{QUERY_WEIGHTS}"):
            shop.load("two")


@pytest.mark.parametrize(
    ("spoil", "words"), [(whole_numbers, "no matrix of a LoRA"), (a_link, "not what the manifest")]
)
def test_an_import_is_as_strict_with_the_second_file_as_with_the_first(
    shop: Shop, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(shop.store.path("two"), tmp_path / "parcel")
    spoil(tmp_path / "parcel" / QUERY_WEIGHTS)
    with pytest.raises(ModelError, match=words):
        read_foreign(remade(tmp_path / "parcel"))


def test_only_embedders_have_a_query_adapter(shop: Shop, tmp_path: Path) -> None:
    adapter = save_two_sided(tmp_path / "adapter", shop.base, (3, 4))
    for role in ("generator", "reranker"):
        with pytest.raises(ModelError, match=f"belongs to an embedder, this is a {role}"):
            shop.store.add(adapter, Manifest(role, shop.base.name, shop.base.revision))
    shutil.copytree(shop.store.path("two"), tmp_path / "parcel")
    content = json.loads((tmp_path / "parcel" / MANIFEST).read_text("utf-8"))
    (tmp_path / "parcel" / MANIFEST).write_text(json.dumps(content | {"role": "generator"}), "utf-8")
    with pytest.raises(ModelError, match="belongs to an embedder"):
        read_foreign(tmp_path / "parcel")


def test_the_tower_of_either_side_counts(tmp_path: Path) -> None:
    layer, tower = "base_model.model.model.{}.q.lora_A.weight", torch.zeros(4, 4)
    save_file({layer.format("language_model.layers.0"): tower}, tmp_path / WEIGHTS)
    assert not changes_tower(tmp_path)
    save_file({layer.format("visual.blocks.0"): tower}, tmp_path / QUERY_WEIGHTS)
    assert changes_tower(tmp_path)


def test_another_query_adapter_is_another_checkpoint(shop: Shop, tmp_path: Path) -> None:
    first = save_two_sided(tmp_path / "first", shop.base, (3, 4))
    second = save_two_sided(tmp_path / "second", shop.base, (3, 5))
    manifest = Manifest("embedder", shop.base.name, shop.base.revision, run="train-composed-1")
    one, other = shop.store.add(first, manifest), shop.store.add(second, manifest)
    assert one.two_sided and one.files[WEIGHTS] == other.files[WEIGHTS] and one.name != other.name
    assert shop.store.add(first, manifest).name == one.name, "the same run again"
    (first / QUERY_WEIGHTS).unlink()
    plain = shop.store.add(first, manifest)
    assert not plain.two_sided and plain.name not in (one.name, other.name)
    assert ("two_sided", True, False) in differences(one, plain)
    assert "query_weights" in {what for what, _, _ in differences(one, other)}


def test_what_is_exported_is_imported_elsewhere_once(shop: Shop, tmp_path: Path) -> None:
    export_checkpoint(shop.store.get("two"), shop.store, tmp_path / "out")
    there = Checkpoints(tmp_path / "there")
    add_random(there, shop.base, "gallery", GALLERY)  # the same gallery adapter, and no query adapter

    def taken() -> Manifest:
        return import_checkpoint(
            tmp_path / "out", read_foreign(tmp_path / "out"), there, shop.base.name, shop.base.revision, ""
        )

    assert taken().name == "two" == taken().name
    assert [each.name for each in there.list()] == ["gallery", "two"]
    imported, own = shop._replace(store=there, bases=Bases()).load("two"), shop.load("two")
    assert np.array_equal(vectors(imported), vectors(own))
    assert np.array_equal(vectors(imported.queries), vectors(own.queries))


def test_peft_opens_both_sides_of_an_export(shop: Shop, tmp_path: Path) -> None:
    export_peft(shop.store.get("two"), shop.store, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", CONFIG, WEIGHTS, "query"]
    causal = load_base(shop.base, "fp32", "cpu")
    model = PeftModel.from_pretrained(causal, str(tmp_path / "out"))
    model.load_adapter(str(tmp_path / "out" / "query"), "query")
    two = shop.load("two")
    opened = Opened("theirs", shop.base, LoadedBase(shop.base, causal, peft=model), "default", "query", None)
    theirs = Embedder(
        opened, template=two.template, max_text_tokens=256, batch_size=4, catalog=two._catalog, listener=two._listener
    )
    assert np.array_equal(vectors(theirs), vectors(two))
    assert np.array_equal(vectors(theirs.queries), vectors(two.queries))


def test_an_import_that_leaves_the_query_adapter_says_so(shop: Shop, tmp_path: Path) -> None:
    class Notes(Silent):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, message: str) -> None:
            self.said.append(message)

    export_peft(shop.store.get("two"), shop.store, tmp_path / "out")
    listener = Notes()
    done = import_adapter(tmp_path / "out", "embedder", shop.settings, Checkpoints(tmp_path / "there"), listener)
    [said] = listener.said
    assert said.startswith(f"{tmp_path / 'out' / 'query' / WEIGHTS} is not taken in") and not done.manifest.two_sided


def test_sentence_transformers_opens_both_sides_of_an_export(shop: Shop, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = shop.settings.model_copy(update={"embedder_checkpoint": "two"})
    template = embed_template(model, shop.store)
    out = tmp_path / "out"
    export_sentence_transformers(shop.store.get("two"), shop.base, template, EmbedSettings(), shop.store, out)
    assert sorted(path.name for path in out.iterdir()) == ["gallery", "query"]
    two, texts = shop.load("two"), ["red v-neck shirt", "color: red"]
    for side, ours in (("gallery", two), ("query", two.queries)):
        theirs = sentence_transformers.SentenceTransformer(str(out / side), device="cpu")
        expected = ours.encode([Item(text) for text in texts], instruction=two.template.query_instruction)
        np.testing.assert_allclose(theirs.encode(texts, prompt_name="query"), expected, atol=1e-5)
