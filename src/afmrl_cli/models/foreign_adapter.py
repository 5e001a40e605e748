"""Adapters that other programs trained with PEFT, written as the checkpoint store holds them.

A LoRA names the layers that it belongs to, and one layer has had several names:

    base_model.model.model.layers.0.mlp.up_proj.lora_A.weight                  transformers before 4.52
    base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight   today
    base_model.model.visual.blocks.0.attn.qkv...  ->  base_model.model.model.visual.blocks.0.attn.qkv...
    base_model.model.layers.0...                  trained on the model without its vocabulary head

What PEFT can't place it leaves out without a word, and the vectors are the bare base's. So every tensor must belong to
a linear layer of the base, in name and size, and adapter_config.json is written anew with the layers that the tensors
name: no pattern of a stranger is compiled, and nothing that is not understood gets through.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from ..errors import ModelError
from ..store.checkpoints import WEIGHTS, read_header
from ..store.files import hash_file, write_json
from ..store.strict import ForeignAdapterConfig, check_foreign_config, read_strictly
from ..store.transfer import FLOATS
from .base import quiet
from .presets import Base

CONFIG, CARD = "adapter_config.json", "README.md"
LARGEST_CARD = 1 << 20
WRAPPER = "base_model.model."
ADAPTED = ("model.language_model.", "model.visual.")
"""Where the layers lie that an adapter may change: not the vocabulary's, whose matrices are shared with the head."""
A, B, MAGNITUDE = "lora_A", "lora_B", "lora_magnitude_vector"
MATRIX = re.compile(rf"(?P<layer>.+)\.(?P<kind>{A}|{B})(\.[A-Za-z0-9_-]+)?\.weight")
VECTOR = re.compile(rf"(?P<layer>.+)\.(?P<kind>{MAGNITUDE})(\.[A-Za-z0-9_-]+)?(\.weight)?")
NAMED = 3
"""How many of several are named in a message."""


@dataclass(frozen=True)
class ForeignAdapter:
    """A folder as PEFT's save_pretrained writes it, read but for its tensors. `header`: dtype and shape by their
    names; `source`: SHA-256 (hex) of the file that they are in.
    """

    folder: Path
    config: ForeignAdapterConfig
    header: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class Fitted:
    """An adapter whose tensors have found their layers: the name in the file by (layer, kind), and by layer what the
    layer was called there.
    """

    adapter: ForeignAdapter
    tensors: dict[tuple[str, str], str]
    called: dict[str, str]

    @property
    def renamed(self) -> int:
        """Return how many tensors had other names."""
        return sum(name != _written(*key) for key, name in self.tensors.items())


def read_foreign_adapter(folder: Path) -> ForeignAdapter:
    """Read the adapter in `folder`. ModelError when it is none, pickled, damaged or more than a LoRA."""
    hint = "an adapter is the folder that PEFT's save_pretrained writes"
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder", hint)
    if not (folder / CONFIG).exists():
        raise ModelError(f"{folder}: neither manifest.json nor {CONFIG} in it", hint)
    if not (folder / WEIGHTS).exists() and (pickled := sorted(folder.glob("adapter_model.b*"))):
        raise ModelError(
            f"{pickled[0]}: pickled weights can run code and are never loaded",
            "where you trust it, load it with PEFT and save it again: save_pretrained(FOLDER, safe_serialization=True)",
        )
    config, weights = _own_file(folder, CONFIG), _own_file(folder, WEIGHTS)
    return ForeignAdapter(folder, _read_config(config), read_header(weights), hash_file(weights))


def _own_file(folder: Path, name: str) -> Path:
    """Return the file `name` of `folder`; ModelError when it is none, or a link to anywhere but the hub's cache, whose
    folders of a model are links to its files.
    """
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{path}: {'not a file' if path.exists() else 'is missing'}", "copy the adapter again")
    blobs = folder.absolute().parent.parent / "blobs"
    if path.is_symlink() and path.resolve().parent != blobs.resolve():
        raise ModelError(f"{path}: a link, which is not followed", "copy the file itself")
    return path


def _read_config(file: Path) -> ForeignAdapterConfig:
    try:
        content = read_strictly(file)
        if (kind := content.get("peft_type")) != "LORA":
            raise ModelError(f"{file}: an adapter of type {str(kind)[:40]!r} can't be used", "afmrl uses LoRA adapters")
        return check_foreign_config(content)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}", "copy the adapter again") from error
    except ValueError as error:
        hint = "taken in are LoRA and DoRA on linear layers, nothing beside them"
        raise ModelError(f"{file}: not a configuration that can be used: {error}", hint) from error


def linear_layers(base: Base) -> dict[str, tuple[int, int]]:
    """Return the linear layers of `base` by name, with their (inputs, outputs); its weights are not read."""
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    layers = ((name, each) for name, each in model.named_modules() if isinstance(each, torch.nn.Linear))
    return {name: (each.in_features, each.out_features) for name, each in layers if name.startswith(ADAPTED)}


def fit(adapter: ForeignAdapter, base: Base) -> Fitted:
    """Find the layer of `base` that each tensor belongs to. ModelError, naming the first, when one belongs to none or
    has another size, or when a layer lacks one.
    """
    layers, file = linear_layers(base), adapter.folder / WEIGHTS
    tensors: dict[tuple[str, str], str] = {}
    called: dict[str, str] = {}
    lost = []
    for name in adapter.header:
        found = MATRIX.fullmatch(name) or VECTOR.fullmatch(name)
        layer = layer_of(found["layer"], layers) if found else None
        if found is None or layer is None:
            lost.append(name)
        elif (layer, found["kind"]) in tensors:
            raise ModelError(f"{file}: {layer} has two tensors {found['kind']}", "save the adapter again")
        else:
            tensors[layer, found["kind"]] = name
            called[layer] = found["layer"].removeprefix(WRAPPER)
    if lost:
        raise ModelError(
            f"{file}: {len(lost)} of {len(adapter.header)} tensors belong to no layer of {base.name} that an adapter "
            f"may change: {_few(lost)}",
            _hint_for(lost),
        )
    if not tensors:
        raise ModelError(f"{file}: no tensors in it", "save the adapter again")
    fitted = Fitted(adapter, tensors, called)
    _check_sizes(fitted, base, layers)
    _check_complete(fitted, layers)
    return fitted


def layer_of(name: str, layers: Mapping[str, object]) -> str | None:
    """Return the layer that any of the layouts calls `name`; None when there is none."""
    bare = name.removeprefix(WRAPPER)
    for known in (bare, f"model.{bare}", f"model.language_model.{bare.removeprefix('model.')}"):
        if known in layers:
            return known
    return None


def _check_sizes(fitted: Fitted, base: Base, layers: Mapping[str, tuple[int, int]]) -> None:
    """Check every tensor: A [r, inputs], B [outputs, r], DoRA's magnitudes [outputs]."""
    file = fitted.adapter.folder / WEIGHTS
    for (layer, kind), name in fitted.tensors.items():
        entry, rank = fitted.adapter.header[name], rank_of(fitted, layer)
        inputs, outputs = layers[layer]
        expected = {A: [rank, inputs], B: [outputs, rank], MAGNITUDE: [outputs]}[kind]
        if entry.get("dtype") not in FLOATS:
            raise ModelError(f"{file}: {name} holds {str(entry.get('dtype'))[:20]}", f"known: {', '.join(FLOATS)}")
        if entry.get("shape") != expected:
            raise ModelError(
                f"{file}: {name} has the shape {str(entry.get('shape'))[:60]}; rank {rank} on {base.name} takes "
                f"{expected}",
                "choose the base it was trained on (model.preset, model.embedder, model.generator)",
            )


def _check_complete(fitted: Fitted, layers: Mapping[str, object]) -> None:
    """Check that each layer has all of its tensors, and, where the configuration lists layers, that none is absent."""
    config, file = fitted.adapter.config, fitted.adapter.folder / WEIGHTS
    kinds = (A, B, MAGNITUDE) if config.use_dora else (A, B)
    for layer in fitted.called:
        has = {kind for kind in (A, B, MAGNITUDE) if (layer, kind) in fitted.tensors}
        if odd := sorted(has ^ set(kinds)):
            what = "is missing" if odd[0] in kinds else "is there, without use_dora in the configuration"
            raise ModelError(f"{file}: {odd[0]} of {layer} {what}", "copy the adapter again")
    wanted = config.target_modules
    if isinstance(wanted, list) and config.exclude_modules is None and config.layers_to_transform is None:
        ends = tuple(f".{each}" for each in wanted)
        named = {layer_of(each, layers) for each in wanted} | {each for each in layers if each.endswith(ends)}
        if absent := sorted(each for each in named - set(fitted.called) if each):
            message = f"{file}: {len(absent)} layers that {CONFIG} names have no tensors: {_few(absent)}"
            raise ModelError(message, "copy the adapter again: it is not whole")


def rank_of(fitted: Fitted, layer: str) -> int:
    """Return the rank that the configuration gives to `layer`."""
    return int(_of_pattern(fitted.adapter.config.rank_pattern, fitted.called[layer], fitted.adapter.config.r))


def _of_pattern(pattern: Mapping[str, Any] | None, name: str, otherwise: float) -> float:
    """Return what PEFT takes for the layer `name`: the first key that is its name or the end of it."""
    own = (value for key, value in (pattern or {}).items() if name == key or name.endswith(f".{key}"))
    return float(next(own, otherwise))


def write_adapter(fitted: Fitted, base: Base, folder: Path) -> None:
    """Write the adapter into `folder` under the names of today: tensors, configuration, and its own model card. The
    same adapter gives the same bytes. ModelError when a tensor holds what is no number.
    """
    source = fitted.adapter.folder
    tensors = {}
    try:
        with safe_open(source / WEIGHTS, "pt") as file:
            for key, name in sorted(fitted.tensors.items()):
                tensors[_written(*key)] = tensor = file.get_tensor(name)
                if not torch.isfinite(tensor).all():
                    raise ModelError(f"{source / WEIGHTS}: {name} holds values that are no numbers", "train it again")
    except SafetensorError as error:
        raise ModelError(f"{source / WEIGHTS}: damaged: {str(error)[:200]}", "copy the adapter again") from error
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    write_json(folder / CONFIG, _config_of_today(fitted, base))
    card = source / CARD
    if card.is_file() and not card.is_symlink() and card.stat().st_size <= LARGEST_CARD:
        (folder / CARD).write_bytes(card.read_bytes())


def _config_of_today(fitted: Fitted, base: Base) -> dict[str, Any]:
    """Return PEFT's configuration, with every layer by its name."""
    config, layers = fitted.adapter.config, sorted(fitted.called)
    ranks = {layer: rank_of(fitted, layer) for layer in layers}
    alphas = {layer: _of_pattern(config.alpha_pattern, fitted.called[layer], config.lora_alpha) for layer in layers}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": layers,
        "rank_pattern": {layer: rank for layer, rank in ranks.items() if rank != config.r},
        "alpha_pattern": {
            layer: alpha for layer, alpha in alphas.items() if not math.isclose(alpha, config.lora_alpha)
        },
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "bias": "none",
        "inference_mode": True,
    }


def _written(layer: str, kind: str) -> str:
    """Return the name under which PEFT saves a tensor."""
    return f"{WRAPPER}{layer}.{kind}" + ("" if kind == MAGNITUDE else ".weight")


def _hint_for(lost: list[str]) -> str:
    """Return what to do about tensors that belong nowhere."""
    if any("embed_tokens" in name or "lm_head" in name or ".modules_to_save." in name for name in lost):
        return "embeddings and head are not taken in: save it with save_embedding_layers=False, train without them"
    return "choose the base it was trained on (model.preset, model.embedder, model.generator)"


def _few(names: list[str]) -> str:
    shown = ", ".join(json.dumps(name[:120])[1:-1] for name in sorted(names)[:NAMED])
    return shown + (", ..." if len(names) > NAMED else "")
