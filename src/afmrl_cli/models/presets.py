"""From settings to a base: which model, which files on this disk, how many pixels, and the id that all of it gives.

Nothing heavy is imported here: commands ask for ids to see whether there is anything to do at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from ..listener import Listener, Silent
from ..settings import BUILT_IN, ModelSettings
from ..store.checkpoints import Checkpoints, Manifest, Role, adapter_hashes, base_role
from ..store.files import hash_json, parse_json
from .download import download
from .families import FAMILIES, Family, titles
from .licence import warn_of_licence
from .precision import Choice, choose_precision
from .templates import PLAIN, Template, template_of
from .weights import count_numbers, find_snapshot, fingerprint_files, missing_weights

NANO, LIGHT = BUILT_IN, "light"
PRESETS: dict[str, dict[Role, str]] = {
    "nano": {"generator": NANO, "embedder": NANO},
    "light": {"generator": LIGHT, "embedder": LIGHT},  # the latter alone: see resolve_base and models/light.py
    "qwen3": {"generator": "Qwen/Qwen3-VL-2B-Instruct", "embedder": "Qwen/Qwen3-VL-Embedding-2B"},
    "qwen3.5": {"generator": "Qwen/Qwen3.5-2B", "embedder": "Qwen/Qwen3-VL-Embedding-2B"},
    "paper": {"generator": "Qwen/Qwen2.5-VL-3B-Instruct", "embedder": "Qwen/Qwen2-VL-2B-Instruct"},
}
"""What `auto` comes to one of (auto.py)."""
PICTURE_MODELS = ("clip", "siglip", "siglip2")
"""Models of texts and photos that embed and do nothing else."""
MIN_TOKENS, MAX_TOKENS = 4, 512
"""Tokens of one picture: the least where the model says nothing, and the most, whatever the model would allow."""


EMBEDDER_INPUT, RERANKER_INPUT, RECOMMENDER_INPUT, VISION_INPUT = 2, 1, 1, 1
"""Count the ways in which `embed_input`, `reranker`, `recommender.prompt` and `vision_encoder` have put together what
these models read: another way, other results."""


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
    family: Family


def nano_folder() -> Path:
    """Return the folder of the nano model's weights, which is part of the package."""
    return Path(__file__).resolve().parents[1] / "nano" / "weights"


def base_name(settings: ModelSettings, role: Role) -> str:
    """Return what the settings name for `role`: "nano", a hub name or a folder. A reranker's is the generator's."""
    of = base_role(role)
    named: str = getattr(settings, of)
    if not named and settings.preset not in PRESETS:
        raise UsageError(f"model.preset = {settings.preset} stands for no model yet", "resolve it: auto.choose_preset")
    return named or PRESETS[settings.preset][of]


def local_folder(settings: ModelSettings, role: Role) -> Path | None:
    """Return where the base of `role` lies on this disk, nothing fetched and nothing checked; None where it
    does not.
    """
    name = base_name(settings, role)
    folder = nano_folder() if name == NANO else Path(name).expanduser()
    if name == LIGHT:
        return None
    if name == NANO or folder.is_dir():
        return folder
    revision: str = getattr(settings, f"{base_role(role)}_revision")
    return find_snapshot(name, revision) if name.count("/") == 1 else None


def resolve_base(settings: ModelSettings, role: Role, listener: Listener | None = None) -> Base:
    """Return the base that the settings mean, with its files on this disk.

    A hub model that is not in the local cache is fetched as `download` says. Raises ModelError with a hint
    when it can't be had, is no Qwen-VL or has no safetensors; UsageError when the pixel limits contradict each other.
    """
    name = base_name(settings, role)
    if name == LIGHT:
        raise _light_is_no_base(role)
    revision: str = getattr(settings, f"{base_role(role)}_revision")
    folder = nano_folder() if name == NANO else Path(name).expanduser()
    if name == NANO or folder.is_dir():
        family = family_of(folder, name)
        _check_weights(folder, name)
        base = Base(name, "files-" + fingerprint_files(_model_files(folder))[:16], folder, 0, 0, family)
    elif not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        hint = "give a folder with config.json and *.safetensors, or a hub name such as Qwen/Qwen2-VL-2B-Instruct"
        raise ModelError(f"{name}: no such folder", hint)
    else:
        snapshot = find_snapshot(name, revision)
        if snapshot is None:
            snapshot = download(settings, name, revision, listener or Silent())
        family = family_of(snapshot, name)
        _check_weights(snapshot, name)
        base = Base(name, snapshot.name, snapshot, 0, 0, family)
    warn_of_licence(name, base.folder, listener)
    low, high = pixel_limits(base.folder, settings, role)
    return replace(base, min_pixels=low, max_pixels=high)


def _light_is_no_base(role: Role) -> ModelError:
    if role == "generator":
        return ModelError(
            "the preset light has no generator: nothing here writes attributes",
            "a server writes them (attributes --endpoint), and the catalog's columns are some; one to write or to "
            "train: --set model.preset=qwen3 (`afmrl doctor` says what fits this machine)",
        )
    if role in ("reranker", "recommender", "vision"):
        what = "vision encoder" if role == "vision" else role
        return ModelError(
            f"the preset light has no generator, on which a {what} would be trained",
            'name one: --set model.generator=nano, or model.preset = "qwen3" (see `afmrl doctor`)',
        )
    return ModelError(
        "the embedder light can't be trained: it is fitted to the catalog by `afmrl embed`",
        'name another one to train: model.preset = "qwen3" (`afmrl doctor` says what fits this machine)',
    )


def model_id(settings: ModelSettings, role: Role, checkpoints: Checkpoints, listener: Listener | None = None) -> str:
    """Name all that can change the model's output but the prompt and the way of sampling, such as "nano-1a2b3c4d5e".

    Base and its revision, adapter, precision, pixel limits, number of photos, how text is written and how long it may
    be. Fit for a folder's name. Raises as `resolve_base` and `resolve_adapter` do.
    """
    base = resolve_base(settings, role, listener)
    return name_of(settings, role, base, resolve_adapter(settings, role, base, checkpoints))


def embed_template(settings: ModelSettings, checkpoints: Checkpoints, listener: Listener | None = None) -> Template:
    """Return the template of the embedder that the settings mean. Raises as `model_id` does."""
    base = resolve_base(settings, "embedder", listener)
    adapter = resolve_adapter(settings, "embedder", base, checkpoints)
    return template_of(settings.embed_template, base.name, base.folder, adapter)


def name_of(settings: ModelSettings, role: Role, base: Base, adapter: Manifest | None) -> str:
    """Return `model_id` of what has been resolved."""
    parts: dict[str, Any] = {
        "revision": base.revision,
        "pixels": [base.min_pixels, base.max_pixels],
        "precision": base_precision(settings, base).precision,
        "images": settings.embedder_images if role in ("embedder", "vision") else generator_photos(settings),
        "text": settings.max_text_tokens,
    }
    if role == "embedder":
        parts["input"] = EMBEDDER_INPUT
        template = template_of(settings.embed_template, base.name, base.folder, adapter)
        if template != PLAIN:  # whose ids are those of versions that knew no other
            parts["template"] = template.name
    elif role == "reranker":
        parts["input"] = RERANKER_INPUT
    elif role == "recommender":
        parts["input"] = RECOMMENDER_INPUT
    elif role == "vision":
        parts["input"] = VISION_INPUT
        del parts["text"]  # it reads none
    name = Path(base.name).name
    if adapter is not None:
        parts["adapter"] = [adapter.name, *adapter_hashes(adapter.files)]
        name += f"-{adapter.name}"
    readable = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
    return f"{readable[:60]}-{hash_json(parts)[:10]}"


def base_precision(settings: ModelSettings, base: Base, *, training: bool = False) -> Choice:
    """Return the precision that the settings mean for `base`, to read with it or to train on it."""
    return choose_precision(settings, base.family.trained_in, lambda: count_numbers(base.folder), training=training)


def generator_photos(settings: ModelSettings) -> int:
    """Return the number of photos in a generator's id. What a text was written from is in its own key, so that only the
    ids of earlier stores matter, where the default was 3.
    """
    return settings.generator_images or 3


def resolve_adapter(settings: ModelSettings, role: Role, base: Base, checkpoints: Checkpoints) -> Manifest | None:
    """Return the adapter that the settings name for `role`, its files checked; None for the bare base.

    Raises ModelError when it is missing, damaged, of the other role or trained on other weights than `base`.
    """
    name: str = getattr(settings, f"{role}_checkpoint")
    if not name:
        return None
    adapter = checkpoints.find(name, role)
    if adapter.role != role and not (role == "reranker" and adapter.judges):
        raise ModelError(
            f"checkpoint {adapter.name} belongs to the {adapter.role}, not to the {role}",
            f"mend model.{role}_checkpoint",
        )
    of = base_role(role)
    if adapter.base_revision != base.revision:
        raise ModelError(
            f"checkpoint {adapter.name} was trained on {adapter.base} ({adapter.base_revision[:16]}), "
            f"the base is {base.name} ({base.revision[:16]})",
            f"choose the base it was trained on (model.preset, model.{of}, model.{of}_revision)",
        )
    return adapter


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the folder's config.json; ModelError when it is missing, not readable or of no known family."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{name}: no config.json in {folder}", "a model's folder holds config.json and *.safetensors")
    config = read_json(file)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        hint = f"that takes a {titles()}; other models only embed (embed, search, dedupe, eval)"
        raise ModelError(f"{name}: a model of type {kind!r} can't write or be trained", hint)
    return config


def family_of(folder: Path, name: str) -> Family:
    """Return the family of the model `name` in `folder`. Raises as `read_config`."""
    return FAMILIES[read_config(folder, name)["model_type"]]


def set_pixels(settings: ModelSettings, role: Role) -> tuple[str, int]:
    """Return the setting that says the most pixels of one picture for a role, and what it says (0: nothing)."""
    own = f"{base_role(role)}_pixels"
    return (own, getattr(settings, own)) if getattr(settings, own) else ("max_pixels", settings.max_pixels)


def pixel_limits(folder: Path, settings: ModelSettings, role: Role) -> tuple[int, int]:
    """Return (least, most) pixels of one picture: the settings', else the model's own with at most 512 tokens a
    picture.
    """
    name, most = set_pixels(settings, role)
    if settings.min_pixels and most and settings.min_pixels > most:
        raise UsageError(f"model.min_pixels = {settings.min_pixels} is above model.{name} = {most}")
    unit = family_of(folder, str(folder)).token_side ** 2
    own = _image_config(folder)
    size = own.get("size") or {}
    low = int(own.get("min_pixels") or size.get("shortest_edge") or MIN_TOKENS * unit)
    high = int(own.get("max_pixels") or size.get("longest_edge") or MAX_TOKENS * unit)
    high = most or max(min(high, MAX_TOKENS * unit), settings.min_pixels)
    return min(settings.min_pixels or low, high), high


def _image_config(folder: Path) -> dict[str, Any]:
    """Return the image processor's settings, in the place of transformers 5 or in the older one."""
    new, old = folder / "processor_config.json", folder / "preprocessor_config.json"
    if new.is_file() and isinstance(inner := read_json(new).get("image_processor"), dict):
        return inner
    return read_json(old) if old.is_file() else {}


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`. Raises ModelError."""
    try:
        content = parse_json(file.read_text("utf-8"))
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
