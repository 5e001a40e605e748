"""Interactions in `.afmrl/recommend/interactions`: arrays without pickle, ids as JSON lines, and a manifest.

The manifest is written last and holds the checksums of the others and the fingerprint of what they were made from:
files without it, damaged ones, and those made from something else are made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..store.files import FILES, checksum, find_damage, parse_json, read_object, reading, sealed, write_json, writing
from ..store.folder import CatalogFolder
from .customers import recommend_folder
from .interactions import Interactions, Read

MANIFEST, ITEMS = "manifest.json", "items.jsonl"
ARRAYS = {"customer": np.int32, "item": np.int32, "seconds": np.int64, "quantity": np.float32, "customers": np.uint64}


def interactions_folder(folder: CatalogFolder) -> Path:
    """Return where the interactions are stored."""
    return recommend_folder(folder) / "interactions"


def stored_interactions(folder: CatalogFolder, fingerprint: str | None, now: int) -> Read | None:
    """Return the stored interactions; None where there are none, they are damaged, or made from something else than
    `fingerprint` says (None: anything), or where a time that was in the future is no longer.
    """
    place = interactions_folder(folder)
    if not (place / MANIFEST).is_file():
        return None
    try:
        with reading(place / MANIFEST):
            manifest = read_object(place / MANIFEST)
            if fingerprint is not None and manifest["fingerprint"] != fingerprint:
                return None
            if find_damage(manifest, place):
                return None
            future = manifest["counted"]["next_future"]
            return None if future and future <= now else Read(_read(place), manifest["counted"])
    except DataError:
        return None  # made again


def _read(place: Path) -> Interactions:
    """Read the arrays; ValueError where they don't fit together."""
    arrays: dict[str, Any] = {}
    for name, kind in ARRAYS.items():
        arrays[name] = np.load(place / f"{name}.npy", allow_pickle=False)
        if arrays[name].dtype != kind or arrays[name].ndim != 1:
            raise ValueError(f"{name} is no list of {np.dtype(kind)}")
    lines = (place / ITEMS).read_text("utf-8").splitlines()
    items = parse_json(f"[{','.join(lines)}]")
    count = len(arrays["customer"])
    if any(len(arrays[name]) != count for name in ("item", "seconds", "quantity")):
        raise ValueError("arrays of several lengths")
    for name, most in (("customer", len(arrays["customers"])), ("item", len(items))):
        if count and not 0 <= arrays[name].min() <= arrays[name].max() < most:
            raise ValueError(f"{name} leads beyond its list")
    if not all(isinstance(item, str) for item in items) or (np.diff(arrays["customer"]) < 0).any():
        raise ValueError("not what was written")
    return Interactions(**arrays, items=tuple(items))


def write_interactions(folder: CatalogFolder, read: Read, fingerprint: str) -> None:
    """Store interactions in place of those that are there. The caller holds the lock."""
    place = interactions_folder(folder)
    for name, kind in ARRAYS.items():
        with writing(place / f"{name}.npy") as temporary:
            np.save(temporary, getattr(read.interactions, name).astype(kind), allow_pickle=False)
    with writing(place / ITEMS) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in read.interactions.items)
    sums = {name: checksum(place / name) for name in (*(f"{each}.npy" for each in ARRAYS), ITEMS)}
    manifest: Mapping[str, Any] = {"fingerprint": fingerprint, "counted": read.counted, FILES: sums}
    write_json(place / MANIFEST, sealed(manifest, place))
