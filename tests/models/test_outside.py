"""CLIP, SigLIP and sentence-transformers of our own making, against what transformers gives for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afmrl_cli.errors import DataError, ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.outside import PictureTextEncoder, SentenceEncoder, find_model, pooling_of
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.search import Query, open_search
from afmrl_cli.settings import ModelSettings
from afmrl_cli.workspace import Workspace
from tests.retrieval.shop import settings_of, shop_rows, write_shop
from tests.tiny import tiny_tokenizer

SETTINGS = ModelSettings(device="cpu")
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
RED, BLUE = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (30, 40), "blue")


def save_clip(folder: Path, kind: str) -> Any:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
    )

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = {
        **SIZES,
        "vocab_size": 512,
        "max_position_embeddings": 16,
        "eos_token_id": end,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    if kind == "clip":
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        size = {"shortest_edge": 32}
        images: Any = CLIPImageProcessorPil(size=size, crop_size={"height": 32, "width": 32})
    else:
        model = SiglipModel(SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision))
        images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    for part in (model, tokenizer, images):
        part.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_picture_models_equal_transformers(tmp_path: Path, kind: str) -> None:
    model = save_clip(tmp_path, kind)
    folder, id = find_model(SETTINGS, str(tmp_path), Silent())
    encoder = PictureTextEncoder(folder, id, SETTINGS, 2)
    items = [
        Item("red shirt"),
        Item("", (RED,)),
        Item("red shirt", (RED, BLUE)),
        Item("a much longer text " * 20),
        Item("", (BLUE,)),
    ]
    made = encoder.encode(items, instruction="ignored")
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        padding = "max_length" if kind == "siglip" else True
        tokens = tiny_tokenizer()(["red shirt"], return_tensors="pt", padding=padding, max_length=16, truncation=True)
        text = features(model.get_text_features(**tokens))
        from transformers import AutoImageProcessor

        pixels = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")([RED, BLUE], return_tensors="pt")
        red, blue = features(model.get_image_features(pixel_values=pixels["pixel_values"]))
    assert made[0] == pytest.approx(text[0], abs=1e-4)
    assert made[1] == pytest.approx(red, abs=1e-4)
    photo = (red + blue) / np.linalg.norm(red + blue)
    both = photo + text[0]
    assert made[2] == pytest.approx(both / np.linalg.norm(both), abs=1e-4)
    assert made[4] == pytest.approx(blue, abs=1e-4)
    for one, alone in zip(made[:2], items[:2], strict=True):  # a query is one of a kind
        assert encoder.encode([alone], instruction="")[0] == pytest.approx(one, abs=1e-5)


def features(made: Any) -> np.ndarray:
    rows = (made if isinstance(made, torch.Tensor) else made.pooler_output).numpy()
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def save_bert(
    folder: Path, pooling: dict[str, Any] | None = None, layers: tuple[str, ...] = ("Transformer", "Pooling")
) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=512, max_position_embeddings=32, pad_token_id=0, **SIZES))
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(folder)
    if pooling is not None:
        modules = [
            {"idx": i, "type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}" if i else ""}
            for i, name in enumerate(layers)
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return model.eval()


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_sentence_models_pool_as_they_say(tmp_path: Path, mode: str) -> None:
    key = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}[mode]
    model = save_bert(tmp_path, {"word_embedding_dimension": 32, f"pooling_mode_{key}": True, "include_prompt": True})
    folder, id = find_model(SETTINGS, str(tmp_path), Silent())
    encoder = SentenceEncoder(folder, id, SETTINGS, 2)
    texts = ["red shirt", "blue denim jacket, regular fit", "x"]
    made = encoder.encode([Item(text, (RED,)) for text in texts], instruction="ignored")
    for text, row in zip(texts, made, strict=True):
        with torch.inference_mode():
            hidden = model(**tiny_tokenizer()([text], return_tensors="pt")).last_hidden_state[0].numpy()
        alone = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[mode]
        assert row == pytest.approx(alone / np.linalg.norm(alone), abs=1e-4)  # padding has no say


def test_a_sentence_model_leaves_products_of_photos_alone_out_of_the_vectors(tmp_path: Path) -> None:
    save_bert(tmp_path / "model", {"pooling_mode_mean_tokens": True})
    rows = shop_rows(4)
    rows[3] |= {"title": "", "description": "", "category": "", "brand": ""}
    folder = write_shop(tmp_path / "shop", rows)
    work = Workspace(folder, settings_of(tmp_path / "model"), Silent())
    summary = embed_catalog(work)
    assert (summary.products, summary.left_out, summary.problems["photos alone"]) == (3, 1, 1)
    with pytest.raises(DataError, match="reads texts alone"):
        open_search(work).search(Query(photos=(RED,)))


def test_models_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        find_model(SETTINGS, str(tmp_path / "none"), Silent())
    with pytest.raises(ModelError, match="safetensors is missing"):
        find_model(SETTINGS, str(tmp_path), Silent())
    save_bert(tmp_path, {"pooling_mode_max_tokens": True}, ("Transformer", "Pooling"))
    with pytest.raises(ModelError, match="pooling max_tokens can't be used"):
        pooling_of(tmp_path)
    with pytest.raises(ModelError, match="type 'bert', not CLIP"):
        PictureTextEncoder(tmp_path, "x", SETTINGS, 2)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]')
    with pytest.raises(ModelError, match="layers that can't be used here: Dense"):
        pooling_of(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ModelError, match="not a list of layers"):
        pooling_of(tmp_path)
    (tmp_path / "modules.json").unlink()
    assert pooling_of(tmp_path) == "mean"
