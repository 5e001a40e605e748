"""The checkpoint store: one folder per adapter, with a manifest that says where it comes from and what it must hash to.

checkpoints/generator-1/manifest.json
                        adapter_config.json
                        adapter_model.safetensors
                        query_adapter.safetensors   of an embedder that is two-sided
                        pooler.safetensors          of a vision encoder
checkpoints/best.json   which one of each role is the best: `afmrl cycle` writes it, or a person

A two-sided embedder reads composed queries (a photo and a change) with its query adapter, and everything else with the
first one, its gallery adapter. `adapter_config.json` holds for both.

Wherever a checkpoint is named, `latest` and `best` may stand for one of the role that is meant.
"""

from __future__ import annotations

import builtins
import dataclasses
import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelError
from .files import TEMPORARY_PREFIX, hash_file, parse_json, write_json, writing_folder
from .strict import AdapterConfig, check_adapter_config, check_manifest, read_strictly
from .training_products import TrainingProducts, read_training_products

Role = Literal["generator", "embedder", "reranker", "recommender", "vision"]

MANIFEST = "manifest.json"
WEIGHTS, QUERY_WEIGHTS = "adapter_model.safetensors", "query_adapter.safetensors"
POOLER_WEIGHTS = "pooler.safetensors"
DECIDING = (WEIGHTS, QUERY_WEIGHTS, POOLER_WEIGHTS)
"""Files with weights: what a checkpoint learnt."""
CONFIG = "adapter_config.json"
REQUIRED = (WEIGHTS, CONFIG)
ALLOWED_SUFFIXES = (".safetensors", ".json", ".md", ".txt")
"""Pickles (.bin, .pt, .pkl) run code when they are loaded, so that they never get in."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ROLES: tuple[Role, ...] = ("generator", "embedder", "reranker", "recommender", "vision")
EMBED_TEMPLATE = "embed_template"
LATEST, BEST = "latest", "best"
BEST_FILE = "best.json"
TICK = 1e-3
"""Seconds between two checkpoints at least: a clock that went backwards must not make the newest one an old one."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "trl")


def base_role(role: Role) -> Role:
    """Return which of `model.generator` and `model.embedder` names the base of `role`: all but the embedder's is
    the generator's.
    """
    return "embedder" if role == "embedder" else "generator"


def versions() -> dict[str, str]:
    """Return versions of afmrl, Python and the packages that a checkpoint depends on; read from metadata, nothing is
    imported."""
    found = {"python": platform.python_version()}
    for package in ("afmrl-cli", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional one, or afmrl run from its source folder
    return found


@dataclass(frozen=True)
class Manifest:
    """What is known of a checkpoint. `data` is the fingerprint of the products it was trained on, `created` seconds
    since 1970, `files` the SHA-256 (hex) of each file, `parent_weights` that of the parent's weights; `Checkpoints.add`
    fills these in, and `name`. `run` is the folder of the training in `.afmrl/runs`. `inputs` are the ids of the models
    that it learnt from: `attributes` (whose texts), `embedder` (that rewarded), `targets` (whose answers). `products`
    are hashes of the products that it has seen (`training_products`), {} where they are unknown."""

    role: Role
    base: str
    base_revision: str = ""
    name: str = ""
    parent: str | None = None
    parent_weights: str = ""
    run: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    products: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    created: float = field(default_factory=time.time)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def embed_template(self) -> str:
        """Return the name of the template (`models.templates`) that an embedder was trained under; versions that knew
        one only did not write it down.
        """
        return str(self.settings.get(EMBED_TEMPLATE, "plain"))

    @property
    def two_sided(self) -> bool:
        """Tell whether it has a query adapter beside the first one, which then is the gallery adapter."""
        return QUERY_WEIGHTS in self.files

    @property
    def judges(self) -> bool:
        """Tell whether it answers the reranker's question: a reranker does, and a generator that was taught pairs."""
        plan = self.settings.get("plan")
        return self.role in ("reranker", "generator") and isinstance(plan, dict) and "words" in plan

    def training_products(self) -> TrainingProducts | None:
        """Return the products that it has seen; None where they are unknown. ValueError when the manifest is
        damaged.
        """
        return read_training_products(self.products)

    def describe(self) -> dict[str, Any]:
        """Describe it for people and JSON: all of it and whether it is two-sided, but of the products only their
        numbers.
        """
        seen = self.training_products()
        products = None
        if seen is not None:
            train, validation = seen.listings
            products = {"train_listings": train, "validation_listings": validation, "complete": seen.complete}
        return {**dataclasses.asdict(self), "products": products, "two_sided": self.two_sided}


class Checkpoints:
    """The checkpoints in a folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the folder of the checkpoint `name`."""
        return self.folder / name

    def list(self) -> list[Manifest]:
        """Return all checkpoints whose manifest can be read, the oldest first; weights are not read."""
        return self.survey()[0]

    def survey(self) -> tuple[builtins.list[Manifest], dict[str, ModelError]]:
        """Return all checkpoints, the oldest first, and by folder what is wrong with those whose manifest is
        damaged.
        """
        found, damaged = [], {}
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        for name in sorted(p.name for p in paths if p.is_dir() and not p.name.startswith(TEMPORARY_PREFIX)):
            try:
                found.append(self._manifest(name))
            except ModelError as error:
                damaged[name] = error
        return sorted(found, key=lambda m: (m.created, m.name)), damaged

    def get(self, name: str) -> Manifest:
        """Return the checkpoint `name`, its files checked against their hashes.

        Raises ModelError when there is none, or a file is missing or differs.
        """
        if not NAME.fullmatch(name) or not self.path(name).is_dir():
            known = ", ".join(manifest.name for manifest in self.list()) or "none yet"
            raise ModelError(f"no checkpoint {name!r} in {self.folder}", f"there are: {known}")
        manifest = self._manifest(name)
        for file, expected in manifest.files.items():
            path = self.path(name) / file
            try:
                actual = hash_file(path)
            except OSError as error:
                raise _damaged(path, error.strerror or str(error)) from error
            if actual != expected:
                raise _damaged(path, "its content is not what was stored")
        return manifest

    def find(self, name: str, role: Role | None = None) -> Manifest:
        """Return the checkpoint that `name` means: `latest` and `best` of `role`, `embedder:best`, or a name.

        Raises ModelError as `get` does, or when there is none of that label.
        """
        before, _, label = name.rpartition(":")
        wanted = next((each for each in ROLES if each == before), role)
        if label not in (LATEST, BEST):
            return self.get(name)
        if wanted is None:
            raise ModelError(f"{label}: of which role?", f"write {' or '.join(f'{each}:{label}' for each in ROLES)}")
        found = self.labels().get(f"{wanted}:{label}")
        if found is None:
            how = "a finished `afmrl cycle` or `afmrl checkpoints best NAME` sets it" if label == BEST else "train one"
            raise ModelError(f"there is no {label} {wanted} in {self.folder}", how)
        return self.get(found)

    def labels(self) -> dict[str, str]:
        """Name by label: "embedder:latest", "generator:best", ...; a label of which nothing is there is left out."""
        found = self.list()
        labels = {f"{manifest.role}:{LATEST}": manifest.name for manifest in found}
        roles = {manifest.name: manifest.role for manifest in found}
        for role, name in self._best().items():
            if roles.get(name) == role:
                labels[f"{role}:{BEST}"] = name
        return labels

    def _best(self) -> dict[str, str]:
        file = self.folder / BEST_FILE
        if not file.is_file():
            return {}
        try:
            content = parse_json(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: damaged: {error}", "remove it, and say again which are the best") from error
        return {str(role): str(name) for role, name in content.items()} if isinstance(content, dict) else {}

    def set_best(self, name: str) -> Manifest:
        """Make `name` the best of its role. Call it under the store's lock."""
        manifest = self.get(name)
        write_json(self.folder / BEST_FILE, {**self._best(), manifest.role: manifest.name})
        return manifest

    def size(self, name: str) -> int:
        """Return the bytes of the checkpoint's files."""
        return sum(path.stat().st_size for path in self.path(name).iterdir())

    def add(self, adapter: Path, manifest: Manifest) -> Manifest:
        """Copy the adapter in the folder `adapter` into the store; returns the manifest with name and hashes.

        An empty name becomes `generator-1`, `embedder-2`, ... by counting. A run that was killed between storing its
        checkpoint and noting it down stores it again: with the same weights it is the one that is there. Call it under
        the store's lock. Raises ModelError for a name that is taken or a folder that is no adapter in safetensors.
        """
        files = _adapter_files(adapter, manifest.role)
        known = self.list()
        weights = {file.name: hash_file(file) for file in files if file.name in DECIDING}
        if (before := self._stored_before(manifest, known, weights)) is not None:
            return before
        name = manifest.name or self._next_name(manifest.role)
        if not NAME.fullmatch(name) or self.path(name).exists() or name in (LATEST, BEST, BEST_FILE):
            reason = "exists already" if self.path(name).exists() else "is no name for a checkpoint"
            raise ModelError(f"checkpoint {name!r} {reason}", "choose another name: letters a-z, digits, . _ -")
        parent = next((each for each in known if each.name == manifest.parent), None)
        with writing_folder(self.path(name)) as temporary:
            for file in files:
                shutil.copyfile(file, temporary / file.name)
            stored = dataclasses.replace(
                manifest,
                name=name,
                files={file.name: hash_file(temporary / file.name) for file in files},
                parent_weights=parent.files[WEIGHTS] if parent else manifest.parent_weights,
                created=max([manifest.created, *(each.created + TICK for each in known)]),
            )
            write_json(temporary / MANIFEST, dataclasses.asdict(stored))
        return stored

    def _stored_before(
        self, manifest: Manifest, known: Sequence[Manifest], weights: Mapping[str, str]
    ) -> Manifest | None:
        """Return the checkpoint that the same run has stored with the same `weights`, by file (and name, where one
        was requested).
        """
        for each in known:
            own = {name: digest for name, digest in each.files.items() if name in DECIDING}
            same = bool(manifest.run) and each.run == manifest.run and own == weights
            if same and manifest.name in ("", each.name):
                return each
        return None

    def remove(self, name: str) -> None:
        """Remove the checkpoint; a kill leaves it whole or gone. Call it under the store's lock."""
        doomed = self.path(name).with_name(f"{TEMPORARY_PREFIX}removed-{name}")
        shutil.rmtree(doomed, ignore_errors=True)
        self.path(name).rename(doomed)
        shutil.rmtree(doomed)

    def _next_name(self, role: Role) -> str:
        numbers = [0]
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if found := re.fullmatch(rf"{role}-(\d+)", path.name):
                    numbers.append(int(found[1]))
        return f"{role}-{max(numbers) + 1}"

    def _manifest(self, name: str) -> Manifest:
        path = self.path(name) / MANIFEST
        try:
            manifest = read_manifest(path)
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error
        except ValueError as error:
            raise _damaged(path, f"not a manifest of this afmrl: {error}") from error
        whole = WEIGHTS in manifest.files and (POOLER_WEIGHTS in manifest.files) == (manifest.role == "vision")
        if manifest.name != name or not whole:
            raise _damaged(path, "it does not describe this folder")
        return manifest


def adapter_hashes(files: Mapping[str, str]) -> list[str]:
    """Return, of the hashes by file, those that decide what an adapter does: checkpoints on one base whose hashes are
    the same give the same results.
    """
    return [files[name] for name in (*REQUIRED, QUERY_WEIGHTS, POOLER_WEIGHTS) if name in files]


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in the file `path`. ValueError when a field is not what it should be, OSError as `open`."""
    content = read_strictly(path)
    check_manifest(content)
    manifest = Manifest(**content)
    manifest.training_products()
    return manifest


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Return PEFT's configuration of the adapter in `folder`, before PEFT obeys it. ModelError when it asks for
    anything but a LoRA on named modules.
    """
    file = folder / CONFIG
    hint = "train the adapter again, or export it again"
    try:
        content = read_strictly(file)
        if (kind := content.get("peft_type")) != "LORA":
            raise ModelError(f"{file}: an adapter of type {str(kind)[:40]!r} can't be used", "afmrl uses LoRA adapters")
        return check_adapter_config(content)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}", hint) from error
    except ValueError as error:
        raise ModelError(f"{file}: not a configuration that can be used: {error}", hint) from error


def changes_tower(folder: Path) -> bool:
    """Tell whether the adapter in `folder` changes the vision tower: of those that are trained here vision encoders
    alone do.
    """
    files = [folder / name for name in (WEIGHTS, QUERY_WEIGHTS) if (folder / name).is_file()]
    return any(".visual." in name for file in files for name in read_header(file))


def check_query_adapter(folder: Path, role: Role) -> None:
    """Raise ModelError when the query adapter in `folder` is not of an embedder, or has not the very tensors, by name
    and shape, of the gallery adapter beside it.
    """
    file = folder / QUERY_WEIGHTS
    if role != "embedder":
        raise ModelError(f"{file}: a query adapter belongs to an embedder, this is a {role}", "remove the file")
    shapes, expected = (
        {name: entry.get("shape") for name, entry in read_header(folder / each).items()}
        for each in (QUERY_WEIGHTS, WEIGHTS)
    )
    odd = sorted(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))
    if odd:
        raise ModelError(
            f"{file}: {len(odd)} tensors are not as in {WEIGHTS}, such as {odd[0][:200]}",
            "query and gallery adapter are of one training: train or copy both again",
        )


def check_pooler(folder: Path, role: Role) -> None:
    """Raise ModelError unless the checkpoint in `folder` has a pooler where it is a vision encoder, and only there:
    fp32 matrices that fit each other, beside an adapter that changes the vision tower and nothing else.
    """
    file = folder / POOLER_WEIGHTS
    if role != "vision":
        if file.exists():
            raise ModelError(f"{file}: a pooler belongs to a vision encoder, this is of the {role}", "remove the file")
        return
    if not file.is_file():
        raise ModelError(f"{file}: is missing, and a vision encoder makes no vectors without it", "copy it again")
    header = read_header(file)
    shapes = {name: entry.get("shape") for name, entry in header.items()}
    known: list[dict[str, Any]] = []
    match shapes.get("out.weight"):
        case [int(dimension), int(width)] if dimension > 0 and width > 0:
            mean = {"out.weight": [dimension, width]}
            known = [mean, {**mean, "query": [width], "key.weight": [width, width]}]
    if shapes not in known or any(entry.get("dtype") != "F32" for entry in header.values()):
        raise ModelError(f"{file}: not a pooler of this afmrl", "train or copy the vision encoder again")
    if odd := [name for name in read_header(folder / WEIGHTS) if ".visual." not in name]:
        raise ModelError(
            f"{folder / WEIGHTS}: a vision encoder's adapter changes the vision tower alone, this one {odd[0][:200]}",
            "train or copy the vision encoder again",
        )


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path}: damaged: {reason}", "remove this checkpoint's folder, and train or copy it again")


def _adapter_files(adapter: Path, role: Role) -> list[Path]:
    """Return the files to store; ModelError when something is missing, or is there that must not get in."""
    if not adapter.is_dir():
        raise ModelError(f"{adapter}: no such folder", "give the folder that holds adapter_model.safetensors")
    files = sorted(path for path in adapter.iterdir() if path.name != MANIFEST)
    for path in files:
        if path.is_symlink() or not path.is_file() or path.suffix not in ALLOWED_SUFFIXES:
            kinds = ", ".join(ALLOWED_SUFFIXES)
            raise ModelError(f"{path}: not allowed in a checkpoint", f"plain files only: {kinds}; no pickles")
    for name in REQUIRED:
        if not (adapter / name).is_file():
            raise ModelError(f"{adapter}: {name} is missing", "an adapter is what PEFT's save_pretrained writes")
    read_header(adapter / WEIGHTS)
    if (adapter / QUERY_WEIGHTS).exists():
        check_query_adapter(adapter, role)
    check_pooler(adapter, role)
    return files


def read_header(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors: name -> dtype, shape, data_offsets. Nothing of them is read.

    Raises ModelError when it is no such file, or not whole. (8 bytes of header length, a JSON header, the tensors.)
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = {key: entry for key, entry in parse_json(header).items() if key != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}: not a safetensors file", "save the adapter again") from error
    if 8 + length + end != size:
        raise ModelError(f"{path}: cut off or damaged", "save the adapter again")
    return tensors
