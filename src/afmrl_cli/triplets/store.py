"""Triplets in `.afmrl/triplets/<split>`: a line each, and a manifest that says what they were made from.

The manifest is written last and holds the lines' checksum: lines without their manifest, as a kill leaves them, are
made again, and the same ones come of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..store.files import FILES, checksum, find_damage, parse_json, read_object, reading, sealed, write_json, writing
from ..store.folder import CatalogFolder

LINES, MANIFEST = "triplets.jsonl", "triplets.json"
TripletSplit = Literal["train", "validation"]
"""Of test identities no triplets are made."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """A reference, a change and a target. `text` is the change as `search --change` reads it, `sentence` the same in
    words; `changed`: by key (value of the reference, value of the target). `confirmed`: a person has said it is right.
    """

    reference: str
    target: str
    window: str
    text: str
    sentence: str
    changed: Mapping[str, tuple[str, str]]
    confirmed: bool = False


def triplet_folder(folder: CatalogFolder, split: TripletSplit) -> Path:
    """Return where the triplets of a split are stored."""
    return folder.store / "triplets" / split


def stored_manifest(folder: CatalogFolder, split: TripletSplit) -> dict[str, Any] | None:
    """Return the manifest of the stored triplets; None where there are none, or not whole."""
    place = triplet_folder(folder, split)
    if not (place / MANIFEST).is_file():
        return None
    try:
        with reading(place / MANIFEST):
            manifest = read_object(place / MANIFEST)
            return None if find_damage(manifest, place) else manifest
    except DataError:
        return None  # made again


def read_triplets(folder: CatalogFolder, split: TripletSplit) -> Iterator[Triplet]:
    """Yield the stored triplets. Raises DataError where there are none, or not whole."""
    if stored_manifest(folder, split) is None:
        flag = "" if split == "train" else f" --split {split}"
        raise DataError(f"{folder.catalog}: no triplets of the {split} split", f"run `afmrl triplets{flag}`")
    path = triplet_folder(folder, split) / LINES
    with path.open(encoding="utf-8") as file, reading(path):
        for line in file:
            row = parse_json(line)
            changed = {key: (was, to) for key, (was, to) in row.pop("changed").items()}
            yield Triplet(**row, changed=changed)


def write_triplets(
    folder: CatalogFolder, split: TripletSplit, triplets: Iterable[Triplet], manifest: Mapping[str, Any]
) -> None:
    """Store the triplets of a split in place of those that are there."""
    place = triplet_folder(folder, split)
    with writing(place / LINES) as temporary, temporary.open("w", encoding="utf-8") as file:
        for each in triplets:
            row = {name: getattr(each, name) for name in Triplet.__slots__}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    sums = {LINES: checksum(place / LINES)}
    write_json(place / MANIFEST, sealed({**manifest, FILES: sums}, place))
