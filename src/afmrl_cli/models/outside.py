"""Other people's models as encoders, as the embedder or to compare with: CLIP and SigLIP, and sentence-transformers.

    CLIP, SigLIP            v = unit(text features) or unit(mean of unit(photo features)); of both: unit(their sum)
    sentence-transformers   v = unit(pooled last hidden states), pooled as the model's 1_Pooling/config.json says:
                            mean over the tokens, the first token, or the last one

They read what the embedder reads, without our instruction: they were not trained with it. A text is cut at the model's
own limit (CLIP: 77 tokens, most of a description is lost). A sentence-transformers model with layers beyond pooling and
normalisation is refused: left out, it would be another model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.images import open_image
from ..catalog.pictures import Picture, opened
from ..catalog.product import enriched_text
from ..errors import DataError, ModelError
from ..listener import Listener
from ..settings import CatalogSettings, ModelSettings
from .base import quiet
from .device import device_of
from .download import download
from .embed_input import Item, fitted_text
from .licence import warn_of_licence
from .presets import PICTURE_MODELS
from .weights import find_snapshot, fingerprint_files, missing_weights

if TYPE_CHECKING:
    from PIL.Image import Image

NO_PHOTOS = "name an embedder that sees photos, such as model.preset = light or a CLIP"
KNOWN_LAYERS = ("Transformer", "Pooling", "Normalize")


def find_model(settings: ModelSettings, name: str, listener: Listener, revision: str = "") -> tuple[Path, str]:
    """Return folder and id of the model `name`, a folder or a hub name. ModelError when it can't be had."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
            raise ModelError(
                f"{name}: no such folder", "give a folder, or a hub name such as openai/clip-vit-base-patch32"
            )
        folder = find_snapshot(name, revision) or download(settings, name, revision, listener)
    if missing := missing_weights(folder):
        raise ModelError(f"{name}: {missing} is missing in {folder}", "only safetensors are loaded")
    warn_of_licence(name, folder, listener)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in {".json", ".safetensors", ".txt"}]
    readable = re.sub(r"[^a-z0-9.]+", "-", Path(name).name.lower()).strip("-.") or "model"
    return folder, f"{readable[:60]}-{fingerprint_files(files)[:10]}"


class PictureTextEncoder:
    """A CLIP or SigLIP. Raises ModelError when the folder holds another kind of model."""

    texts_cut = 0  # it reads what its own tokenizer leaves; the limit of the settings is none of its

    def __init__(self, folder: Path, id: str, settings: ModelSettings, batch_size: int) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        kind = _config(folder / "config.json").get("model_type")
        if kind not in PICTURE_MODELS:
            raise ModelError(f"{folder}: a model of type {kind!r}, not CLIP or SigLIP", f"known: {PICTURE_MODELS}")
        self.id = id
        self._device = device_of(settings)
        with quiet():
            model = AutoModel.from_pretrained(folder, use_safetensors=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self._model: Any = model.eval().to(self._device)
        self._batch = batch_size
        # SigLIP was trained on texts padded to their full length, and reads shorter ones differently.
        self._padding = "max_length" if kind.startswith("siglip") else True
        self._length = int(self._model.config.text_config.max_position_embeddings)

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] in the order of `items`; `instruction` is not used."""
        words = [_words(self._tokenizer, item, self._length) for item in items]
        with_text = [i for i, text in enumerate(words) if text.strip()]
        owners = [i for i, item in enumerate(items) for _ in item.images]
        photos = [_opened(image) for item in items for image in item.images]
        texts = self._features([words[i] for i in with_text], self._text_features)
        pictures = self._features(photos, self._photo_features)
        width = (texts if len(texts) else pictures).shape[1]
        total = np.zeros((len(items), width), np.float32)
        if photos:
            np.add.at(total, owners, pictures)
            total = _unit(total)
        if with_text:
            total[with_text] += texts
        return _unit(total)

    def _features(self, inputs: Sequence[Any], features: Any) -> NDArray[np.float32]:
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(inputs), self._batch):
                # transformers 5 gives the features in an output object, older ones as they are.
                made = features(list(inputs[start : start + self._batch]))
                tensor = made if isinstance(made, torch.Tensor) else made.pooler_output
                parts.append(_unit(tensor.float().cpu().numpy()))
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _text_features(self, texts: list[str]) -> Any:
        tokens = self._tokenizer(
            texts, padding=self._padding, truncation=True, max_length=self._length, return_tensors="pt"
        )
        return self._model.get_text_features(**tokens.to(self._device))

    def _photo_features(self, photos: list[Image]) -> Any:
        pixels = self._images(photos, return_tensors="pt")["pixel_values"]
        return self._model.get_image_features(pixel_values=pixels.to(self._device))


class SentenceEncoder:
    """A sentence-transformers model. Raises ModelError when its layers are not those that can be used."""

    texts_cut = 0  # as above

    def __init__(self, folder: Path, id: str, settings: ModelSettings, batch_size: int) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.id = id
        self._pooling = pooling_of(folder)
        self._device = device_of(settings)
        with quiet():
            model = AutoModel.from_pretrained(folder, use_safetensors=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = model.eval().to(self._device)
        own = _config(folder / "sentence_bert_config.json").get("max_seq_length")
        most = int(getattr(self._model.config, "max_position_embeddings", 512))
        self._length = min(int(own or most), most)
        self._batch = batch_size

    def encode(self, items: Sequence[Item], *, instruction: str) -> NDArray[np.float32]:
        """Return the unit vectors [n, d] of the texts, in the order of `items`; photos and `instruction` are
        not used.
        """
        import torch

        if any(not item.text.strip() and not item.attributes for item in items):
            raise DataError(f"{self.id} reads texts alone: a photo without a text says nothing to it", NO_PHOTOS)
        words = [_words(self._tokenizer, item, self._length) for item in items]
        order = sorted(range(len(items)), key=lambda i: len(words[i]))  # alike lengths: little padding
        parts = []
        with torch.inference_mode():
            for start in range(0, len(order), self._batch):
                texts = [words[i] for i in order[start : start + self._batch]]
                tokens = self._tokenizer(
                    texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
                ).to(self._device)
                hidden = self._model(**tokens).last_hidden_state
                parts.append(self._pool(hidden, tokens["attention_mask"]).float().cpu().numpy())
        vectors = np.concatenate(parts)
        back = np.empty_like(vectors)
        back[order] = vectors
        return _unit(back)

    def _pool(self, hidden: Any, mask: Any) -> Any:
        if self._pooling == "cls":
            return hidden[:, 0]
        if self._pooling == "lasttoken":
            last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
            return hidden[range(len(hidden)), last]
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _words(tokenizer: Any, item: Item, most: int) -> str:
    """Return the text of `item`; where there are attributes, product text is cut to what they leave of `most`
    tokens.
    """
    if not item.attributes:
        return item.text
    most -= int(tokenizer.num_special_tokens_to_add())
    return enriched_text(fitted_text(tokenizer, item.text, item.attributes, most), item.attributes)


def pooling_of(folder: Path) -> str:
    """Return mean, cls or lasttoken, as the model's files say; mean for a folder without `modules.json`."""
    if not (folder / "modules.json").is_file():
        return "mean"
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        layers = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'modules.json'}: not a list of layers: {error}") from error
    if strange := [layer for layer in layers if layer not in KNOWN_LAYERS]:
        raise ModelError(f"{folder}: layers that can't be used here: {', '.join(strange)}", f"known: {KNOWN_LAYERS}")
    place = next((module["path"] for module, layer in zip(modules, layers, strict=True) if layer == "Pooling"), None)
    if place is None:
        return "mean"
    pooling = _config(folder / place / "config.json")
    if mode := pooling.get("pooling_mode"):
        chosen = [str(mode)]
    else:
        known = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}
        on = [key.removeprefix("pooling_mode_") for key, value in pooling.items() if value is True]
        chosen = [known.get(key, key) for key in on if f"pooling_mode_{key}" in pooling]
    if len(chosen) != 1 or chosen[0] not in ("mean", "cls", "lasttoken"):
        raise ModelError(
            f"{folder}: pooling {' and '.join(chosen) or 'missing'} can't be used here", "mean, cls, lasttoken"
        )
    return chosen[0]


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not readable as JSON: {error}", "fetch or copy the model again") from error
    return content if isinstance(content, dict) else {}


def _opened(image: Path | Image | Picture) -> Image:
    return open_image(image, CatalogSettings()) if isinstance(image, Path) else opened(image)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True) if rows.size else np.ones((len(rows), 1))
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
