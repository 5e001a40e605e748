"""Export and import of checkpoints: a folder for another catalog or machine.

What is imported is not trusted: manifest and configuration must be what `strict` allows, every file's hash must be the
manifest's, only the kinds of files that the store holds get in, the adapter must be a LoRA in safetensors whose tensors
are what its configuration says, and its base must be the one that this catalog uses, bit for bit.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, ModelError
from .checkpoints import (
    MANIFEST,
    QUERY_WEIGHTS,
    REQUIRED,
    WEIGHTS,
    Checkpoints,
    Manifest,
    Role,
    adapter_hashes,
    base_role,
    check_pooler,
    check_query_adapter,
    read_adapter_config,
    read_header,
    read_manifest,
)
from .files import hash_file, writing_folder

HINT = "export it again with `afmrl checkpoints export NAME FOLDER --to afmrl`"
FLOATS = ("F32", "F16", "BF16")


def export_checkpoint(manifest: Manifest, checkpoints: Checkpoints, out: Path) -> None:
    """Copy the checkpoint with its manifest to the new folder `out`; DataError when that exists."""
    if out.exists():
        raise DataError(f"{out}: is there already", "name a folder that does not exist yet")
    with writing_folder(out) as folder:
        for file in checkpoints.path(manifest.name).iterdir():
            shutil.copyfile(file, folder / file.name)


def read_foreign(folder: Path) -> Manifest:
    """Read the manifest of the checkpoint in `folder`, its files and its format checked. Raises ModelError."""
    file = folder / MANIFEST
    try:
        manifest = read_manifest(file)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}", HINT) from error
    except ValueError as error:
        raise ModelError(f"{file}: not a manifest of this afmrl: {error}", HINT) from error
    if not set(REQUIRED) <= set(manifest.files):
        raise ModelError(f"{file}: it does not describe an adapter", HINT)
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST:
            continue
        if path.name not in manifest.files:
            raise ModelError(f"{path}: the manifest does not know this file", "remove it, or export the folder again")
        if path.is_symlink() or not path.is_file() or hash_file(path) != manifest.files[path.name]:
            raise ModelError(f"{path}: its content is not what the manifest says", HINT)
    if missing := [name for name in manifest.files if not (folder / name).is_file()]:
        raise ModelError(f"{folder}: {missing[0]} is missing", HINT)
    _check_format(folder / WEIGHTS)
    if manifest.two_sided:
        _check_format(folder / QUERY_WEIGHTS)
        check_query_adapter(folder, manifest.role)
    check_pooler(folder, manifest.role)
    return manifest


def _check_format(weights: Path) -> None:
    """Check that this is a LoRA: pairs of matrices A [r, in] and B [out, r], and of a DoRA magnitudes [out] too."""
    config = read_adapter_config(weights.parent)
    tensors: dict[str, Any] = read_header(weights)
    ranks = {config.r, *config.rank_pattern.values()}
    for name, entry in tensors.items():
        if config.use_dora and name.endswith(".lora_magnitude_vector") and len(entry.get("shape", [])) == 1:
            continue
        side = 0 if ".lora_A." in name else 1 if ".lora_B." in name else None
        shape = entry.get("shape", [])
        if side is None or entry.get("dtype") not in FLOATS or len(shape) != 2 or shape[side] not in ranks:
            raise ModelError(f"{weights}: {name} is no matrix of a LoRA of rank {config.r}", HINT)
    if not tensors:
        raise ModelError(f"{weights}: no tensors in it", HINT)


def find_equal(
    known: Sequence[Manifest], role: Role, revision: str, files: Mapping[str, str], template: str
) -> Manifest | None:
    """Return the checkpoint with the same weights, on both sides, and the same configuration (their hashes by file) on
    the same base, which reads the same embed template.
    """
    for each in known:
        same = (each.role, each.base_revision, each.embed_template) == (role, revision, template)
        if same and adapter_hashes(each.files) == adapter_hashes(files):
            return each
    return None


def import_checkpoint(
    folder: Path, manifest: Manifest, checkpoints: Checkpoints, base: str, revision: str, name: str
) -> Manifest:
    """Put the checkpoint in `folder`, described by `manifest` (`read_foreign`), into the store, under its own name
    where that is free. Returns the one with the same weights, where that is here already.

    `base` and `revision` are what this catalog uses for the role: ModelError when the adapter was trained on other
    weights. Its parent is kept where the store holds it, known by its weights. Call it under the store's lock.
    """
    if manifest.base_revision != revision:
        raise ModelError(
            f"{folder}: trained on {manifest.base} ({manifest.base_revision[:16]}), here the {manifest.role} is {base} "
            f"({revision[:16]})",
            f"choose the base it was trained on (model.preset, model.{base_role(manifest.role)})",
        )
    known = checkpoints.list()
    if (equal := find_equal(known, manifest.role, revision, manifest.files, manifest.embed_template)) is not None:
        return equal
    parent = next((each.name for each in known if each.files[WEIGHTS] == manifest.parent_weights), None)
    taken = checkpoints.path(manifest.name).exists()
    stored = dataclasses.replace(
        manifest,
        name=name or ("" if taken else manifest.name),
        base=base,
        parent=parent,
        run="",
        inputs={},
        settings={**manifest.settings, "imported": {"name": manifest.name, "parent": manifest.parent}},
        files={},
    )
    return checkpoints.add(folder, stored)
