"""From settings to a base: which model, which files on this disk, how many pixels, and the id that all of it gives.

Nothing heavy is imported here: commands ask for ids to see whether there is anything to do at all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import ModelError, UsageError
from ..listener import Listener, Silent
from ..settings import ModelSettings
from ..store.files import hash_json
from .device import precision_of
from .weights import download, find_snapshot, fingerprint_files, missing_weights

Role = Literal["generator", "embedder"]
ARCHITECTURES = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}
"""The model types that can be used, and the side in pixels of the square that becomes one token."""

NANO = "nano"
PRESETS: dict[str, dict[Role, str]] = {
    "nano": {"generator": NANO, "embedder": NANO},
    "paper": {"generator": "Qwen/Qwen2.5-VL-3B-Instruct", "embedder": "Qwen/Qwen2-VL-2B-Instruct"},
    "qwen3": {"generator": "Qwen/Qwen3-VL-2B-Instruct", "embedder": "Qwen/Qwen3-VL-2B-Instruct"},
}
MIN_TOKENS, MAX_TOKENS = 4, 512
"""Tokens of one picture: the least where the model says nothing, and the most, whatever the model would allow."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Base:
    """A base model on this disk. Two bases that are equal but for their pixels are the same weights."""

    name: str
    """"nano", a hub name, or the folder as it was given."""
    revision: str
    """The hub's commit, or a fingerprint of a folder's files: other bytes, another revision."""
    folder: Path
    min_pixels: int
    max_pixels: int


class Checkpoint(Protocol):
    """What is asked of an adapter's manifest; `store.checkpoints.Manifest` has it."""

    @property
    def name(self) -> str:
        """Unique in its store."""

    @property
    def base(self) -> str:
        """`Base.name` that it was trained on."""

    @property
    def revision(self) -> str:
        """`Base.revision` that it was trained on."""

    @property
    def folder(self) -> Path:
        """Where `ADAPTER_FILES` lie."""


class CheckpointStore(Protocol):
    """Where adapters are looked up; `store.checkpoints.Checkpoints` is one."""

    def get(self, name: str) -> Checkpoint:
        """The adapter of that name; ModelError when there is none."""


def nano_folder() -> Path:
    """The built-in model's folder."""
    return Path(__file__).resolve().parents[1] / "nano" / "weights"


def base_name(settings: ModelSettings, role: Role) -> str:
    """What the settings name for `role`: "nano", a hub name or a folder."""
    own = settings.generator if role == "generator" else settings.embedder
    return own or PRESETS[settings.preset][role]


def resolve_base(settings: ModelSettings, role: Role, listener: Listener | None = None) -> Base:
    """The base that the settings mean, with its files on this disk.

    A hub model that is not in the local cache is fetched, unless HF_HUB_OFFLINE is set. Raises ModelError with a hint
    when it can't be had, is no Qwen-VL or has no safetensors; UsageError when the pixel limits contradict each other.
    """
    name = base_name(settings, role)
    revision = settings.generator_revision if role == "generator" else settings.embedder_revision
    folder = nano_folder() if name == NANO else Path(name).expanduser()
    if name == NANO or folder.is_dir():
        read_config(folder, name)
        _check_weights(folder, name)
        base = Base(name, "files-" + fingerprint_files(_model_files(folder))[:16], folder, 0, 0)
    elif not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        hint = "give a folder with config.json and *.safetensors, or a hub name such as Qwen/Qwen2-VL-2B-Instruct"
        raise ModelError(f"{name}: no such folder", hint)
    else:
        snapshot = find_snapshot(name, revision) or download(name, revision, listener or Silent())
        read_config(snapshot, name)
        _check_weights(snapshot, name)
        base = Base(name, snapshot.name, snapshot, 0, 0)
    low, high = pixel_limits(base.folder, settings)
    return replace(base, min_pixels=low, max_pixels=high)


def model_id(
    settings: ModelSettings, role: Role, checkpoints: CheckpointStore, listener: Listener | None = None
) -> str:
    """Names all that can change the model's output but the prompt and the way of sampling, such as "nano-1a2b3c4d5e".

    Base and its revision, adapter, precision, pixel limits, number of photos, length of text. Fit for a folder's name.
    """
    adapter = settings.generator_checkpoint if role == "generator" else settings.embedder_checkpoint
    base = resolve_base(settings, role, listener)
    parts: dict[str, Any] = {
        "revision": base.revision,
        "pixels": [base.min_pixels, base.max_pixels],
        "precision": precision_of(settings),
        "images": settings.max_images,
        "text": settings.max_text_tokens,
    }
    if adapter:
        checkpoint = checkpoints.get(adapter)
        check_fits(checkpoint, base)
        parts["adapter"] = [adapter, fingerprint_files([checkpoint.folder / file for file in ADAPTER_FILES])]
    readable = re.sub(r"[^a-z0-9.]+", "-", Path(base.name).name.lower()).strip("-.") or "model"
    return "-".join(filter(None, [readable[:40], adapter[:40], hash_json(parts)[:10]]))


def check_fits(checkpoint: Checkpoint, base: Base) -> None:
    """Raise ModelError when the adapter's files are not there or it was trained on other weights than `base`."""
    for file in ADAPTER_FILES:
        if not (checkpoint.folder / file).is_file():
            hint = "train or import it again; only safetensors adapters are loaded"
            raise ModelError(f"checkpoint {checkpoint.name}: {file} is missing in {checkpoint.folder}", hint)
    if checkpoint.revision != base.revision:
        raise ModelError(
            f"checkpoint {checkpoint.name} was trained on {checkpoint.base} ({checkpoint.revision[:16]}), "
            f"the base is {base.name} ({base.revision[:16]})",
            "choose the base it was trained on (model.preset, model.embedder, model.generator, *_revision)",
        )


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The folder's config.json; ModelError when it is missing, not readable or not one of `ARCHITECTURES`."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{name}: no config.json in {folder}", "a model's folder holds config.json and *.safetensors")
    config = _read_json(file)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        hint = "the generator and the embedder must be a Qwen2-VL, Qwen2.5-VL or Qwen3-VL"
        raise ModelError(f"{name}: a model of type {kind!r} can't be used", hint)
    return config


def pixel_limits(folder: Path, settings: ModelSettings) -> tuple[int, int]:
    """(least, most) pixels of one picture: the settings', else the model's own with at most 512 tokens a picture."""
    if settings.min_pixels and settings.max_pixels and settings.min_pixels > settings.max_pixels:
        raise UsageError(f"model.min_pixels = {settings.min_pixels} is above model.max_pixels = {settings.max_pixels}")
    unit = ARCHITECTURES[_read_json(folder / "config.json")["model_type"]] ** 2
    own = _image_config(folder)
    size = own.get("size") or {}
    low = int(own.get("min_pixels") or size.get("shortest_edge") or MIN_TOKENS * unit)
    high = int(own.get("max_pixels") or size.get("longest_edge") or MAX_TOKENS * unit)
    high = settings.max_pixels or max(min(high, MAX_TOKENS * unit), settings.min_pixels)
    return min(settings.min_pixels or low, high), high


def _image_config(folder: Path) -> dict[str, Any]:
    """The image processor's settings, in the place of transformers 5 or in the older one."""
    new, old = folder / "processor_config.json", folder / "preprocessor_config.json"
    if new.is_file() and isinstance(inner := _read_json(new).get("image_processor"), dict):
        return inner
    return _read_json(old) if old.is_file() else {}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not readable as JSON: {error}", "fetch or copy the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: not a JSON object", "fetch or copy the model again")
    return content


def _model_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.suffix in {".json", ".safetensors", ".jinja", ".txt"}]


def _check_weights(folder: Path, name: str) -> None:
    if missing := missing_weights(folder):
        if list(folder.glob("*.bin")) or list(folder.glob("*.pt")) or list(folder.glob("*.pth")):
            hint = "pickled weights can run code and are never loaded: convert them to safetensors"
            raise ModelError(f"{name}: only pickled weights in {folder}", hint)
        raise ModelError(f"{name}: {missing} is missing in {folder}", "fetch or copy the model again")
