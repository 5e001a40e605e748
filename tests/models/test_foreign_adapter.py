"""Adapters that other programs trained: every tensor finds its layer, or nothing is stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.models.base import load_base
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.import_adapter import plain_name
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.settings import AttributeSettings, EmbedSettings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import add_trainable, save_adapter
from afmrl_cli.training_settings import AgclSettings
from tests.retrieval.shop import shop_rows, write_shop
from tests.tiny import HYBRID, photo, without_head

from .conftest import settings_for

TinyModel = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LANGUAGE = ["q_proj", "k_proj", "v_proj", "o_proj"]
ITEMS = [Item("red shirt", (photo(1),)), Item("a blue denim jacket"), Item("", (photo(2, 90, 40), photo(3)))]


def theirs(base: Path, folder: Path, **config: Any) -> Path:
    """An adapter of `base` with random weights as PEFT writes it, layers named as they are today."""
    torch.manual_seed(7)
    given = {"r": 4, "lora_alpha": 8, "target_modules": LANGUAGE, "init_lora_weights": False} | config
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), LoraConfig(**given))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1 + torch.rand_like(parameter)) if "magnitude" in name else parameter.add_(0.1)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    written = json.loads((folder / CONFIG).read_text())
    # As others leave it: a list of names, a class of their own, fields that PEFT fills in by itself.
    written |= {"target_modules": given["target_modules"], "init_lora_weights": "gaussian", "eva_config": None}
    written["auto_mapping"] = {"base_model_class": "MMEBModel", "parent_library": "src.model"}
    (folder / CONFIG).write_text(json.dumps(written))
    return folder


def change(folder: Path, rename: Callable[[str], str] = str, more: Tensors | None = None, **config: Any) -> Path:
    """The folder with other names of its tensors, more of them, and other fields of its configuration."""
    tensors = {rename(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file({name: each.contiguous() for name, each in (tensors | (more or {})).items() if name}, folder / WEIGHTS)
    content = json.loads((folder / CONFIG).read_text()) | config
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


def change_config(folder: Path, like: Path) -> Path:
    shutil.copyfile(like / CONFIG, folder / CONFIG)
    return folder


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """The base with the adapter (named as today) merged into its weights by the formula, as a model of its own."""
    model = AutoModelForImageTextToText.from_pretrained(base)
    config, tensors = json.loads((adapter / CONFIG).read_text()), load_file(adapter / WEIGHTS)
    own = dict(model.named_parameters())
    for name, low in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        rank, leaf = len(low), layer.rpartition(".")[2]
        alpha = (config["alpha_pattern"] or {}).get(leaf, config["lora_alpha"])
        scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
        weight = own[f"{layer}.weight"].data
        weight += scale * tensors[name.replace("lora_A", "lora_B")] @ low
        magnitude = tensors.get(name.replace("lora_A.weight", "lora_magnitude_vector"))
        if magnitude is not None:
            weight *= (magnitude / weight.norm(dim=1))[:, None]
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(folder)
    return folder


def vectors(folder: Path, **changes: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    store = Checkpoints(CatalogFolder(Path("catalog.csv").absolute()).checkpoints)
    settings = settings_for(folder, **changes)
    return load_embedder(settings, EmbedSettings(), store).encode(ITEMS, instruction="Find:")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_shop(tmp_path / "shop", shop_rows(4))
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def take(base: Path, folder: Path, *words: str, code: int = 0, role: str = "embedder") -> dict[str, Any]:
    """What `afmrl checkpoints import` prints, `base` being that of both roles."""
    chosen = ["--set", f"model.embedder={base}", "--set", f"model.generator={base}"] if base.parts else []
    given = ["checkpoints", "import", str(folder), *(["--role", role] if role else []), *chosen, *words, "--json"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == code, done.output
    content: dict[str, Any] = json.loads(done.stdout)
    if code:
        stored = Path(".afmrl/checkpoints")
        assert not stored.exists() or not [each for each in stored.iterdir() if each.is_dir()]
    return content


def before_4_52(name: str) -> str:
    return name.replace(".model.language_model.", ".model.").replace(".model.model.visual.", ".model.visual.")


LAYOUTS: dict[str, Callable[[str], str]] = {
    "today": str,
    "before 4.52": before_4_52,
    "without head": lambda name: name.replace("base_model.model.model.", "base_model.model."),
    "without head, before 4.52": lambda name: name.replace(
        "base_model.model.model.language_model.", "base_model.model."
    ),
    "with the adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "without a wrapper": lambda name: name.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_vectors_are_those_of_the_merged_model(
    tiny_model: TinyModel, architecture: str, layout: str, shop: Path
) -> None:
    base = tiny_model(architecture)
    nets = ["in_proj_qkv", "in_proj_z", "out_proj"] if architecture == HYBRID else []
    folder = theirs(base, shop.parent / "theirs", target_modules=LANGUAGE + nets)
    expected = merged(base, folder, shop.parent / "merged")
    change(folder, LAYOUTS[layout])
    done = take(base, folder)
    number = 2 * (len(LANGUAGE) + (len(nets) or len(LANGUAGE)))
    assert done == {
        "schema": "afmrl.checkpoints-import/1",
        "checkpoint": "embedder-1",
        "was_here": False,
        "template": "plain",
        "tensors": number,
        "renamed": 0 if layout == "today" else number,
    }
    made = vectors(base, embedder_checkpoint="embedder-1")
    assert np.abs(made - vectors(expected)).max() < 1e-5
    assert np.abs(made - vectors(base)).max() > 1e-2


def test_the_old_layout_is_the_one_that_transformers_writes(tiny_model: TinyModel) -> None:
    """What the tests above rename to is what old versions called the layers: so folders of a model still have them."""
    from safetensors import safe_open

    base = tiny_model("qwen2_vl")
    with safe_open(base / "model.safetensors", "pt") as file:
        written = {f"base_model.model.{name}" for name in file.keys()}  # noqa: SIM118
    names = [
        f"base_model.model.{name}"
        for name, _ in load_base(resolve_base(settings_for(base), "embedder"), "fp32", "cpu").named_parameters()
    ]
    assert {before_4_52(name) for name in names} == written and set(names) != written


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": [*LANGUAGE, "qkv", "fc1"]},
        {"use_dora": True, "target_modules": ["gate_proj", "attn.proj"]},
    ],
    ids=["dora", "ranks and alphas", "tower", "dora on the tower"],
)
def test_kinds_of_lora_give_the_vectors_of_the_merged_model(
    tiny_model: TinyModel, config: dict[str, Any], shop: Path
) -> None:
    base = tiny_model("qwen2_vl")
    folder = theirs(base, shop.parent / "theirs", **config)
    expected = merged(base, folder, shop.parent / "merged")
    take(base, change(folder, before_4_52))
    made = vectors(base, embedder_checkpoint="embedder-1")
    assert np.abs(made - vectors(expected)).max() < 1e-5
    assert np.abs(made - vectors(base)).max() > 1e-2


def test_the_manifest_says_where_it_is_from_and_the_same_again_is_one(tiny_model: TinyModel, shop: Path) -> None:
    import hashlib

    base = tiny_model("qwen2_vl")
    folder = change(theirs(base, shop.parent / "their-adapter"), before_4_52)
    (folder / "README.md").write_text("licence: mit")
    (folder / "tokenizer.json").write_text("{}")
    take(base, folder, "--name", "vlm")
    store = Checkpoints(shop / ".afmrl/checkpoints")
    manifest = store.get("vlm")
    about = manifest.settings["imported"]
    assert about["origin"] == "imported" and about["name"] == "their-adapter"
    assert about["source"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert set(manifest.files) == {WEIGHTS, CONFIG, "README.md"}
    shown = CliRunner().invoke(app, ["checkpoints", "show", "vlm"]).stdout
    assert f"came from: their-adapter (imported, SHA-256 {about['source'][:12]})" in shown
    assert manifest.base_revision == resolve_base(settings_for(base), "embedder").revision
    again = take(base, folder)
    assert (again["checkpoint"], again["was_here"]) == ("vlm", True)
    assert take(base, folder, role="generator")["checkpoint"] == "generator-1"
    # The same weights count for more: vectors differ, so it is another one.
    assert take(base, change(folder, lora_alpha=16))["was_here"] is False
    # What is stored goes out and comes in again, as an archive and as a plain adapter.
    for kind, role in (("afmrl", ""), ("peft", "embedder")):
        out = shop.parent / kind
        words = ["checkpoints", "export", "vlm", str(out), "--to", kind]
        assert CliRunner().invoke(app, words).exit_code == 0
        write_shop(shop.parent / f"second-{kind}", shop_rows(2))
        there = take(base, out, "--catalog", str(shop.parent / f"second-{kind}"), role=role)
        assert there["was_here"] is False


def test_a_generator_answers_as_the_merged_one(tiny_model: TinyModel, shop: Path) -> None:
    from afmrl_cli.attributes.request import Request

    base = tiny_model("qwen3_vl")
    folder = theirs(base, shop.parent / "theirs", target_modules=["gate_proj", "down_proj"])
    take(base, folder, role="generator")
    requests = [Request("What is it?", (photo(1),)), Request("red shirt", ())]

    def answers(model: Path, **changes: object) -> object:
        store = Checkpoints(shop / ".afmrl/checkpoints")
        attributes = AttributeSettings(max_new_tokens=12)
        return load_generator(settings_for(model, **changes), attributes, store).generate(requests)

    expected = answers(merged(base, folder, shop.parent / "merged"))
    assert answers(base, generator_checkpoint="generator-1") == expected != answers(base)


def test_a_base_without_a_head_takes_one_embeds_and_trains_on(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.training.shop import write_shop as write_larger

    whole = tiny_model("qwen3_vl")
    base = without_head(whole, tmp_path / "headless")
    monkeypatch.chdir(write_larger(tmp_path / "shop", 24))
    folder = theirs(whole, tmp_path / "theirs")
    expected = vectors(merged(whole, folder, tmp_path / "merged"))
    take(base, change(folder, LAYOUTS["without head"], base_model_name_or_path=str(base)))
    assert np.abs(vectors(base, embedder_checkpoint="embedder-1") - expected).max() < 1e-5
    chosen = [f"--set=model.embedder={base}", "--set=model.embedder_checkpoint=embedder-1", "--set=model.device=cpu"]
    short = ["--attributes=given", "--steps=1", "--batch-size=8", "--set=split.validation=0.3"]
    for words in (["embed"], ["train-agcl", *short]):
        done = CliRunner().invoke(app, [*words, *chosen])
        assert done.exit_code == 0, done.output
    assert Checkpoints(Path(".afmrl/checkpoints")).get("embedder-2").parent == "embedder-1"


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_training_goes_on_from_it(tiny_model: TinyModel, dora: bool, shop: Path) -> None:
    base = tiny_model("qwen2_vl")
    folder = change(theirs(base, shop.parent / "theirs", use_dora=dora), before_4_52)
    told = CliRunner().invoke(
        app, ["checkpoints", "import", str(folder), "--role=embedder", f"--set=model.embedder={base}"]
    )
    assert told.stderr.count("tensors of a DoRA, which runs slower; ") == dora and "renamed" in told.stderr
    store = Checkpoints(shop / ".afmrl/checkpoints")
    embedder = load_embedder(settings_for(base), EmbedSettings(), store)
    model = add_trainable(embedder, AgclSettings(), store.get("embedder-1"), store)
    learnt = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(learnt) == 2 * len(LANGUAGE) * (3 if dora else 2) and all("language_model" in name for name in learnt)
    before = embedder.encode(ITEMS, instruction="Find:")
    assert np.abs(before - vectors(base, embedder_checkpoint="embedder-1")).max() < 1e-6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5 if parameter.requires_grad else 1)
    after = embedder.encode(ITEMS, instruction="Find:")
    child = shop.parent / "child"
    save_adapter(model, embedder.loaded.base, child, "")
    stored = store.add(
        child, store.get("embedder-1").__class__("embedder", str(base), store.get("embedder-1").base_revision)
    )
    assert np.abs(vectors(base, embedder_checkpoint=stored.name) - after).max() < 1e-5
    assert np.abs(after - before).max() > 1e-3


def test_no_training_goes_on_from_a_changed_tower(tiny_model: TinyModel, shop: Path) -> None:
    base = tiny_model("qwen2_vl")
    take(base, theirs(base, shop.parent / "theirs", target_modules=["qkv"]))
    words = ["--set", f"model.embedder={base}", "--set", f"model.generator={base}"]
    words += ["--set", "model.embedder_checkpoint=embedder-1"]
    for command in (["train-agcl"], ["train-rar", "--from-base"]):
        done = CliRunner().invoke(app, [*command, "--dry-run", *words])
        assert done.exit_code == 4 and "changes the vision tower" in done.output, done.output


def refused(base: Path, folder: Path, *words: str, code: int = 4) -> str:
    error = take(base, folder, *words, code=code)["error"]
    assert "\n" not in error["message"] and len(error["message"]) < 700 and error["hint"]
    return f"{error['message']} | {error['hint']}"


LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "LOHA"}, "type 'LOHA'"),
    ({"bias": "all"}, "bias"),
    ({"modules_to_save": ["embed_tokens", "lm_head"]}, "modules_to_save: embed_tokens, lm_head"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ({"lora_bias": True}, "lora_bias"),
    ({"alpha_pattern": {"(a+)+$": 4}}, "alpha_pattern"),
    ({"r": 8}, "takes [8,"),
    ({"rank_pattern": {"k_proj": 2}}, "rank 2"),
    ({"use_dora": True}, "lora_magnitude_vector of model.language_model.layers.0.self_attn."),
    ({"target_modules": [*LANGUAGE, "up_proj"]}, "2 layers that adapter_config.json names have no tensors"),
    ({"base_model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct"}, "trained on Qwen/Qwen2-VL-7B-Instruct, here"),
    ({"base_model_name_or_path": "/nowhere/of/theirs"}, "trained on /nowhere/of/theirs, here the embedder is"),
    ({"base_model_name_or_path": "\x1b[31mevil\nline"}, "base_model_name_or_path: String"),
    ({"revision": "files-0123456789abcdef"}, "trained on"),
]


@pytest.fixture(scope="module")
def plain(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return theirs(tiny_model("qwen2_vl"), tmp_path_factory.mktemp("adapter") / "theirs")


@pytest.mark.parametrize(("config", "words"), CONFIGS, ids=str)
def test_a_configuration_that_is_not_understood_is_refused(
    tiny_model: TinyModel, plain: Path, config: dict[str, Any], words: str, shop: Path
) -> None:
    folder = Path(shutil.copytree(plain, shop.parent / "theirs"))
    assert words in refused(tiny_model("qwen2_vl"), change(folder, **config))


TENSORS: list[tuple[str, Tensors, str]] = [
    (
        "a layer more",
        {f"{LAYER.replace('0', '7')}.lora_A.weight": torch.ones(4, 64)},
        "1 of 17 tensors belong to no layer",
    ),
    (
        "embeddings",
        {"base_model.model.model.embed_tokens.weight": torch.ones(4, 64)},
        "embeddings and head are not taken",
    ),
    ("a head", {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 64)}, "lm_head.lora_A.weight"),
    ("others", {f"custom_text_proj.lora_{side}": torch.ones(4, 64) for side in "ABCD"}, "4 of 20 tensors"),
    ("twice", {f"{LAYER}.lora_A.weight": torch.ones(4, 64)}, "two tensors lora_A"),
    ("half", {f"{LAYER.replace('q_proj', 'x')}.lora_A": torch.ones(1)}, "x.lora_A"),
    ("whole numbers", {f"{LAYER}.lora_A.weight": torch.ones(4, 64, dtype=torch.int32)}, "holds I32"),
    ("no numbers", {f"{LAYER}.lora_A.weight": torch.full((4, 64), torch.nan)}, "no numbers"),
    ("a side that is missing", {f"{LAYER}.lora_A.weight": torch.ones(0)}, "lora_A of model.language_model.layers.0"),
]


@pytest.mark.parametrize(("more", "words"), [each[1:] for each in TENSORS], ids=[each[0] for each in TENSORS])
def test_a_tensor_that_fits_nowhere_is_refused(
    tiny_model: TinyModel, plain: Path, more: Tensors, words: str, shop: Path
) -> None:
    folder = Path(shutil.copytree(plain, shop.parent / "theirs"))
    if "two" not in words:
        change(folder, before_4_52)
    if "lora_A of" in words:
        change(folder, lambda name: "" if name in more else name)
        more = {}
    assert words in refused(tiny_model("qwen2_vl"), change(folder, more=more))


def test_an_adapter_of_another_size_or_architecture_is_refused(tiny_model: TinyModel, plain: Path, shop: Path) -> None:
    from tests.tiny import make_tiny

    folder = Path(shutil.copytree(plain, shop.parent / "theirs"))
    assert "trained on" in refused(tiny_model("qwen3_vl"), folder)
    wide = make_tiny("qwen2_vl", shop.parent / "wide", hidden=128)
    assert "trained on" in refused(wide, folder)
    other = make_tiny("qwen2_vl", shop.parent / "other", seed=5)  # of the same size: only its name and files tell
    assert "trained on" in refused(other, folder)
    change(folder, base_model_name_or_path=None)
    assert "has the shape [4, 64]; rank 4 on" in refused(wide, folder)
    assert take(other, folder)["checkpoint"] == "embedder-1"


def test_files_that_are_not_an_adapter(tiny_model: TinyModel, plain: Path, shop: Path) -> None:
    base, here = tiny_model("qwen2_vl"), shop.parent
    assert "no such folder" in refused(base, here / "none")
    (here / "empty").mkdir()
    assert "neither manifest.json nor adapter_config.json" in refused(base, here / "empty")
    pickled = Path(shutil.copytree(plain, here / "pickled"))
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    assert "pickled weights can run code" in refused(base, pickled)
    (pickled / "adapter_model.bin").unlink()
    assert "adapter_model.safetensors: is missing" in refused(base, pickled)
    cut = Path(shutil.copytree(plain, here / "cut"))
    (cut / WEIGHTS).write_bytes((plain / WEIGHTS).read_bytes()[:-4])
    assert "cut off or damaged" in refused(base, cut)
    linked = Path(shutil.copytree(plain, here / "linked"))
    (linked / WEIGHTS).unlink()
    (linked / WEIGHTS).symlink_to(plain / WEIGHTS)
    assert "a link, which is not followed" in refused(base, linked)
    for text in ("", "[]", "[" * 10_000, "{"):
        (cut / CONFIG).write_text(text)
        assert "not a configuration" in refused(base, cut)
    raw = (plain / WEIGHTS).read_bytes()  # a header that contradicts itself
    (cut / WEIGHTS).write_bytes(raw.replace(b"[0,1024]", b"[0,1023]"))
    assert raw.count(b"[0,1024]") == 1 and "damaged" in refused(base, change_config(cut, plain))
    assert "say --role" in refused(base, plain, "--role", "", code=2)
    assert "--role judge: unknown" in refused(base, plain, "--role", "judge", code=2)


def test_the_hubs_cache_is_a_folder_of_links(tiny_model: TinyModel, plain: Path, shop: Path) -> None:
    model = shop.parent / "models--them--adapter"
    snapshot = model / "snapshots" / ("0" * 40)
    (model / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, name in enumerate((WEIGHTS, CONFIG)):
        shutil.copyfile(plain / name, model / "blobs" / str(i))
        (snapshot / name).symlink_to(Path("../../blobs") / str(i))
    assert take(tiny_model("qwen2_vl"), snapshot)["checkpoint"] == "embedder-1"


def test_a_known_base_that_the_adapter_names_is_taken_where_the_settings_name_none(
    tiny_model: TinyModel, plain: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    named = "them/base"
    snapshot = shop.parent / "hub" / "models--them--base" / "snapshots" / ("1" * 40)
    shutil.copytree(tiny_model("qwen2_vl"), snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(shop.parent / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(shop.parent / "hub"), raising=False)
    folder = change(Path(shutil.copytree(plain, shop.parent / "theirs")), base_model_name_or_path="them/elsewhere")
    assert "trained on them/elsewhere, here the embedder is nano" in refused(Path(), folder)
    change(folder, base_model_name_or_path=named)
    take(Path(), folder)
    assert Checkpoints(shop / ".afmrl/checkpoints").get("embedder-1").base == named


def test_names_of_copies_are_those_of_the_model() -> None:
    qwen = "qwen2-vl-2b-instruct"
    for name in (
        "Qwen/Qwen2-VL-2B-Instruct",
        "unsloth/Qwen2-VL-2B-Instruct-unsloth-bnb-4bit",
        "unsloth/Qwen2-VL-2B-Instruct-bnb-4bit",
        "/root/models/Qwen2-VL-2B-Instruct/",
        r"C:\models\Qwen2-VL-2B-Instruct",
        "/root/.cache/huggingface/hub/models--Qwen--Qwen2-VL-2B-Instruct/snapshots/895c3a49bc3fa70a340399125c650a463535e71c",
    ):
        assert plain_name(name) == qwen
    assert plain_name("Qwen/Qwen2-VL-7B-Instruct") != qwen
