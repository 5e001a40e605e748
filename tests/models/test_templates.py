"""Embed templates: which one holds, and that its tokens are those of the folder's own chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.batching import Batches
from afmrl_cli.models.embed_input import Item, embedder_text
from afmrl_cli.models.embedder import Embedder, load_embedder
from afmrl_cli.models.export import export_sentence_transformers
from afmrl_cli.models.families import FAMILIES, IMAGE_SLOT
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.presets import embed_template, model_id, resolve_base
from afmrl_cli.models.templates import GME, PLAIN, QWEN3, template_of
from afmrl_cli.rar.frozen import frozen
from afmrl_cli.rar.prefix import encode_groups, split_group
from afmrl_cli.settings import AttributeSettings, EmbedSettings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import hash_json
from tests.tiny import photo, without_head

from .adapters import add_random
from .conftest import NO_CHECKPOINTS, settings_for

TinyModel = Callable[[str], Path]

# As the public chat templates of Qwen3-VL and Qwen2-VL write turns.
QWEN3_CHAT = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' }}"
    "{%- if messages[0].content is string %}{{- messages[0].content }}{%- else %}"
    "{%- for content in messages[0].content %}{%- if 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}"
    "{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- for content in message.content %}{%- if content.type == 'image' %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}{%- elif 'text' in content %}{{- content.text }}{%- endif %}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN2_CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]


def laid_out(model: Path, place: Path, chat: str, *, ends: bool = False, modules: bool = True, says: str = "") -> Path:
    """A copy of `model` with another chat template; `ends`: its tokenizer adds <|endoftext|> by itself."""
    folder = Path(shutil.copytree(model, place))
    (folder / "chat_template.jinja").write_text(chat, "utf-8")
    if modules:
        (folder / "modules.json").write_text(json.dumps(MODULES), "utf-8")
        prompts = {"prompts": {"document": says, "query": ""}, "similarity_fn_name": "cosine"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), "utf-8")
    if ends:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text("utf-8"))
        number = next(each["id"] for each in content["added_tokens"] if each["content"] == "<|endoftext|>")
        sequence = {"Sequence": {"id": "A", "type_id": 0}}
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [sequence, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
            "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [number], "tokens": ["<|endoftext|>"]}},
        }
        file.write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture(scope="module")
def places(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders that are laid out as Qwen3-VL-Embedding's and GME's are, under names that say nothing."""
    root = tmp_path_factory.mktemp("laid out")
    return {
        "qwen3-vl-embedding": laid_out(tiny_model("qwen3_vl"), root / "first", QWEN3_CHAT, ends=True),
        "gme": laid_out(tiny_model("qwen2_vl"), root / "second", QWEN2_CHAT),
    }


def opened(folder: Path, **changes: object) -> Embedder:
    return load_embedder(settings_for(folder, **changes), EmbedSettings(batch_size=8), NO_CHECKPOINTS)


def by_chat_template(embedder: Embedder, instruction: str, text: str, pictures: int) -> list[int]:
    """The tokens as the makers' own code has them: chat template, tokenizer, and <|endoftext|> once at the end."""
    user: list[dict[str, Any]] = [{"type": "image"}] * pictures + ([{"type": "text", "text": text}] if text else [])
    turns = [{"role": "system", "content": [{"type": "text", "text": instruction}]}, {"role": "user", "content": user}]
    tokenizer = embedder.processor.tokenizer
    written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids: list[int] = [each for each in tokenizer(written)["input_ids"] if each != end]
    return [*ids, end]


@pytest.mark.parametrize("name", ["qwen3-vl-embedding", "gme"])
def test_tokens_are_those_of_the_folders_own_chat_template(places: dict[str, Path], name: str) -> None:
    embedder = opened(places[name])
    assert embedder.template.name == name, "by the folder's files"
    template = embedder.template
    for text, pictures in (
        ("red shirt", 0),
        ("blue jacket\nAttributes: colour: blue ", 2),
        ("", 1),
        (" 黑色 连衣裙 ", 0),
    ):
        for instruction in (template.query_instruction, template.target_instruction, "What is on the photo?"):
            item = Item(text, tuple(photo(1) for _ in range(pictures)))
            ids = embedder.processor.tokenizer(embedder.texts([item], instruction))["input_ids"][0]
            assert ids == by_chat_template(embedder, instruction, text, pictures)


def test_qwen3_vl_embedding_has_its_makers_conventions() -> None:
    family = FAMILIES["qwen3_vl"]
    before, after = (
        "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    )
    for given, read in (
        ("Find the same garment", "Find the same garment."),
        (" Which one? ", "Which one?"),
        ("找到相同的产品。", "找到相同的产品。"),
        ("", "Represent the user's input."),
    ):
        assert embedder_text(Item("shirt"), given, family, QWEN3) == before.format(read) + "shirt" + after
    assert QWEN3.query_instruction == "Retrieve images or text relevant to the user's query."
    assert embedder_text(Item(" "), "Find.", family, QWEN3) == before.format("Find.") + "NULL" + after
    shown = embedder_text(Item("", (Path("a"), Path("b"))), "Find.", family, QWEN3)
    assert shown == before.format("Find.") + IMAGE_SLOT * 2 + after
    assert embedder_text(Item("{a}"), "", family, GME) == before.format("You are a helpful assistant.") + "{a}" + after
    assert embedder_text(Item("red ", (Path("a"),)), "Find:", family, PLAIN) == f"{IMAGE_SLOT}Find: red\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-VL-Embedding-2B", "qwen3-vl-embedding"),
        ("/models/Qwen3-VL-Embedding-8B/", "qwen3-vl-embedding"),
        ("someone/UEmbed-2B", "qwen3-vl-embedding"),
        ("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "gme"),
        ("Qwen/Qwen3-VL-2B-Instruct", "plain"),
        ("nano", "plain"),
    ],
)
def test_known_names_have_their_template(name: str, expected: str, tmp_path: Path) -> None:
    assert template_of("auto", name, tmp_path, None).name == expected
    assert template_of("gme", name, tmp_path, None) is GME, "the setting wins"


def test_a_folders_files_say_which_template_it_has(tiny_model: TinyModel, tmp_path: Path) -> None:
    def found(place: str, chat: str, **how: Any) -> str:
        return template_of("auto", place, laid_out(tiny_model("qwen2_vl"), tmp_path / place, chat, **how), None).name

    assert found("a", QWEN3_CHAT, modules=False) == "plain", "a generator's folder has a chat template, too"
    assert found("b", QWEN3_CHAT) == "qwen3-vl-embedding"
    assert found("c", QWEN2_CHAT, says="Represent the user's input.") == "qwen3-vl-embedding"
    assert found("d", QWEN2_CHAT) == "gme"
    assert found("e", "{{ messages }}", says="Represent this product: ") == "plain", "prompts without turns"
    turns = "<|im_start|>system\nFind twins.<|im_end|>\n<|im_start|>user\n"
    assert found("f", "", says=turns) == "qwen3-vl-embedding", "as `checkpoints export` writes them"
    assert found("g", "", says=turns.replace("Find twins", "You are a helpful assistant")) == "gme"
    (tmp_path / "d" / "config_sentence_transformers.json").write_text("[", "utf-8")
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json: not readable"):
        template_of("auto", "d", tmp_path / "d", None)


@pytest.mark.parametrize("chat", ["", "{{ messages }}"])
def test_an_embedder_that_says_nothing_of_its_input_is_asked_about(
    tiny_model: TinyModel, tmp_path: Path, chat: str
) -> None:
    folder = laid_out(tiny_model("qwen3_vl"), tmp_path / "lost", chat, ends=True)
    with pytest.raises(ModelError, match="without a chat template of turns or prompts") as raised:
        opened(folder)
    assert "model.embed_template=plain|qwen3-vl-embedding|gme" in raised.value.hint
    assert opened(folder, embed_template="plain").template is PLAIN


def test_a_template_is_part_of_the_id_and_plain_keeps_the_ids_of_before(places: dict[str, Path]) -> None:
    def named(**changes: object) -> str:
        return model_id(settings_for(places["gme"], **changes), "embedder", NO_CHECKPOINTS)

    ids = {name: named(embed_template=name) for name in ("auto", "plain", "gme", "qwen3-vl-embedding")}
    assert ids["auto"] == ids["gme"] and len(set(ids.values())) == 3
    base = resolve_base(settings_for(places["gme"]), "embedder")
    before: dict[str, object] = {
        "revision": base.revision,
        "pixels": [base.min_pixels, base.max_pixels],
        "precision": "fp32",
    }
    before |= {"images": 0, "text": 256, "input": 2}
    assert ids["plain"] == f"second-{hash_json(before)[:10]}"


def test_the_vector_is_the_end_tokens_last_hidden_state(places: dict[str, Path]) -> None:
    embedder = opened(places["qwen3-vl-embedding"])
    items = [Item("red shirt", (photo(1),)), Item("a blue denim jacket, regular fit"), Item("", (photo(2, 90, 60),))]
    together = embedder.encode(items, instruction="Find it")
    for item, vector in zip(items, together, strict=True):
        text = embedder.texts([item], "Find it")
        inputs = embedder.vision.inputs(
            embedder.vision.tensors(text, [[embedder.opened(image) for image in item.images]]), embedder.loaded.device
        )
        assert int(inputs["input_ids"][0, -1]) == embedder.processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        with torch.no_grad():
            hidden = embedder.loaded.trunk(**inputs).last_hidden_state[0, -1].numpy()
        assert np.abs(hidden / np.linalg.norm(hidden) - vector).max() < 1e-5
    plain = opened(places["qwen3-vl-embedding"], embed_template="plain").encode(items, instruction="Find it")
    assert np.abs(plain - together).max() > 1e-2


def test_a_template_that_does_not_fit_is_told(tiny_model: TinyModel, tmp_path: Path) -> None:
    other = laid_out(tiny_model("qwen2_vl"), tmp_path / "other", "{{ '[INST]' + messages[1].content[1].text }}")
    with pytest.raises(ModelError, match=r"template gme does not fit: the folder's own chat template writes '\[INST\]"):
        opened(other, embed_template="gme")
    strict = laid_out(tiny_model("qwen2_vl"), tmp_path / "strict", "{{ raise_exception('no system turn') }}")
    with pytest.raises(ModelError, match="no system turn with a picture: no system turn"):
        opened(strict, embed_template="gme")
    opened(other, embed_template="plain")
    thinks = laid_out(
        tiny_model("qwen3_vl"), tmp_path / "thinks", QWEN3_CHAT.replace("assistant\\n", "assistant\\n<think>\\n")
    )
    with pytest.raises(ModelError, match=r"chat template writes '<think>\\n' after '.*<\|im_start\|>assistant\\n'"):
        opened(thinks)
    mute = laid_out(tiny_model("qwen3_vl"), tmp_path / "mute", QWEN3_CHAT.partition("{%- if add_generation_prompt")[0])
    with pytest.raises(ModelError, match=r"chat template ends after '.*shirt<\|im_end\|>\\n'"):
        opened(mute)
    whole = QWEN3_CHAT.replace("assistant\\n'", "assistant\\n<|endoftext|>'")
    opened(laid_out(tiny_model("qwen3_vl"), tmp_path / "whole", whole))


def test_what_a_tokenizer_adds_by_itself_is_not_written_twice(places: dict[str, Path], tmp_path: Path) -> None:
    expected = opened(places["gme"]).encode([Item("red shirt", (photo(1),))], instruction="")
    for place, added, adds in (
        ("turn", ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n", "<|endoftext|>"], True),
        ("first", ["<|im_start|>"], False),
        ("other", ["<|im_end|>"], True),
    ):
        folder = Path(shutil.copytree(places["gme"], tmp_path / place))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [number for part in added for number in tokenizer.encode(part, add_special_tokens=False).ids]
        ending = {"id": "OWN", "ids": ids, "tokens": [tokenizer.id_to_token(number) for number in ids]}
        order = "$A OWN" if adds else "OWN $A"
        tokenizer.post_processor = TemplateProcessing(single=order, special_tokens=[ending])
        tokenizer.save(str(folder / "tokenizer.json"))
        if place == "turn":
            vectors = opened(folder).encode([Item("red shirt", (photo(1),))], instruction="")
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
        else:
            with pytest.raises(ModelError, match=r"gme does not fit: the tokenizer makes '.*<\|im_.*' of the text 'x'"):
                opened(folder)


def without_token(model: Path, place: Path, token: str) -> Path:
    """A copy of `model` whose tokenizer reads `token` as letters."""
    folder = laid_out(model, place, QWEN3_CHAT)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text("utf-8")
        (folder / name).write_text(text.replace(token, "<|pad|>"), "utf-8")
    return folder


def test_the_end_token_must_be_there(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = without_token(tiny_model("qwen3_vl"), tmp_path / "endless", "<|endoftext|>")
    with pytest.raises(
        ModelError, match=r"qwen3-vl-embedding does not fit: the tokenizer has no token <\|endoftext\|>"
    ):
        opened(folder)


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_an_embedder_needs_no_vocabulary_head_and_a_generator_does(
    places: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    folder = without_head(places["qwen3-vl-embedding"], tmp_path / "headless")
    items = [Item("red shirt", (photo(1),))]
    vectors = opened(folder, precision=precision).encode(items, instruction="Find it")
    whole = opened(places["qwen3-vl-embedding"], precision=precision).encode(items, instruction="Find it")
    np.testing.assert_array_equal(vectors, whole)
    with pytest.raises(ModelError, match=r"lack the vocabulary head \(lm_head.weight\)"):
        load_generator(settings_for(folder, precision=precision), AttributeSettings(), NO_CHECKPOINTS)


def test_nothing_is_stored_under_a_template_that_does_not_fit(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = laid_out(tiny_model("qwen2_vl"), tmp_path / "other", "{{ '[INST]' }}")
    (tmp_path / "catalog.csv").write_text("id,title\na,red shirt\nb,blue shirt\n", "utf-8")
    given = ["embed", str(tmp_path), "--set", f"model.embedder={folder}", "--set", "model.embed_template=gme"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 4 and "the embed template gme does not fit" in done.stderr
    assert not [file for file in (tmp_path / ".afmrl").rglob("*") if file.name.startswith(("vectors", "v1"))]


def test_a_checkpoint_of_before_reads_plain(places: dict[str, Path], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "store")
    settings = settings_for(places["gme"])
    add_random(checkpoints, resolve_base(settings, "embedder"), "old", 0)
    with_it = settings.model_copy(update={"embedder_checkpoint": "old"})
    assert embed_template(settings, checkpoints) is GME and embed_template(with_it, checkpoints) is PLAIN


@pytest.mark.parametrize("name", ["qwen3-vl-embedding", "gme"])
def test_sentence_transformers_gives_the_same_vectors(places: dict[str, Path], name: str, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    checkpoints, settings = Checkpoints(tmp_path / "store"), settings_for(places[name], embed_template=name)
    base = resolve_base(settings, "embedder")
    manifest = add_random(checkpoints, base, "own", 0)
    ours = load_embedder(settings.model_copy(update={"embedder_checkpoint": "own"}), EmbedSettings(), checkpoints)
    out = tmp_path / "out"
    export_sentence_transformers(manifest, base, ours.template, EmbedSettings(), checkpoints, out)
    theirs = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    texts = [
        "red v-neck shirt",
        "Title: Blue Shirt (2).\nBrand: Ünité",
        " 黑色 连衣裙",
        "blanks and dots...  ",
        "a " * 60,
    ]
    sides = {"query": ours.template.query_instruction, "document": ours.template.target_instruction}
    for prompt, instruction in sides.items():
        expected = ours.encode([Item(text) for text in texts], instruction=instruction)
        np.testing.assert_allclose(theirs.encode(texts, prompt_name=prompt), expected, atol=1e-5)
    if ours.template.empty:
        np.testing.assert_allclose(theirs.encode(""), theirs.encode(ours.template.empty), atol=1e-6)
    pooling = json.loads((out / "1_Pooling" / "config.json").read_text("utf-8"))
    assert pooling["pooling_mode"] == "lasttoken"


@pytest.mark.parametrize("name", ["qwen3-vl-embedding", "gme"])
def test_texts_that_begin_alike_share_their_turns_beginning(places: dict[str, Path], name: str) -> None:
    embedder = opened(places[name])
    items = [Item("red shirt", (photo(1),), f"colour: {colour}") for colour in ("red", "blue", "navy blue")]
    group = split_group(embedder, items, "Find it")
    assert group.prefix and all(len(rest) > 1 for rest in group.rests)
    with frozen(embedder):
        (shared,) = encode_groups(embedder, [items], instruction="Find it", batches=Batches(8, Silent(), "reward"))
    assert np.abs(shared - embedder.encode(items, instruction="Find it")).max() < 1e-5


def test_an_imported_adapter_keeps_its_template(tiny_model: TinyModel, tmp_path: Path) -> None:
    base = resolve_base(settings_for(tiny_model("qwen2_vl")), "embedder")
    there = Checkpoints(tmp_path / "elsewhere")
    folder = there.path(add_random(there, base, "theirs", 0).name)
    (folder / "manifest.json").unlink()
    (tmp_path / "catalog.csv").write_text("id,title\na,red shirt\n", "utf-8")

    def take(*words: str, code: int = 0) -> Any:
        chosen = ["-c", str(tmp_path), "--set", f"model.embedder={base.folder}"]
        done = CliRunner().invoke(app, ["checkpoints", "import", str(folder), *words, *chosen, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    assert "known: plain" in str(take("--role", "embedder", "--template", "other", code=2))
    assert "of embedders" in str(take("--role", "generator", "--template", "gme", code=2))
    first = take("--role", "embedder", "--template", "gme")
    assert first["template"] == "gme" and take("--role", "embedder", "--template", "gme")["was_here"]
    second = take("--role", "embedder")
    assert second["template"] == "plain" and not second["was_here"], "the same weights read otherwise"
    store = Checkpoints(tmp_path / ".afmrl" / "checkpoints")
    for taken, template in ((first, GME), (second, PLAIN)):
        settings = settings_for(base.folder, embedder_checkpoint=taken["checkpoint"])
        assert embed_template(settings, store) is template
