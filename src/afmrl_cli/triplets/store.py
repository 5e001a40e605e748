"""Triplets in `.afmrl/triplets/<split>`: a line each, and a manifest that says what they were made from.

The manifest is written last and holds the lines' checksum: lines without their manifest, as a kill leaves them, are
made again, and the same ones come of it. A store may come from a stranger, who can compute checksums, too: every field
has a type.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ..errors import DataError
from ..store.files import FILES, checksum, find_damage, read_object, reading, sealed, write_json, writing
from ..store.folder import CatalogFolder
from ..store.strict import validated
from .windows import WINDOWS

LINES, MANIFEST = "triplets.jsonl", "triplets.json"
TripletSplit = Literal["train", "validation"]
"""Of test identities no triplets are made."""
STRICT = ConfigDict(strict=True)


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


class _Attributes(BaseModel):
    """What the triplets were made from, of a manifest."""

    model_config = STRICT

    source: Literal["given", "generated"]
    made_by: list[str]
    min_confidence: float
    unused_keys: dict[str, str]


class _Settings(BaseModel):
    """The settings of `afmrl triplets`, as far as they are shown."""

    model_config = STRICT

    seed: int


class _Manifest(BaseModel):
    """triplets.json, as `run.make_triplets` writes it."""

    model_config = STRICT

    key: str
    split: TripletSplit
    attributes: _Attributes
    settings: _Settings
    listings: int
    left_out: dict[str, int]
    triplets: int
    windows: dict[str, int]
    keys: dict[str, int]
    references: int
    targets: int
    confirmed: int
    dropped: dict[str, int]


_LINE = TypeAdapter(Triplet)


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
            validated(_Manifest, manifest)
            return None if find_damage(manifest, place) else manifest
    except DataError:
        return None  # made again


def read_triplets(folder: CatalogFolder, split: TripletSplit, ids: Container[str] | None = None) -> Iterator[Triplet]:
    """Yield the stored triplets; `ids` are the listings that they can be about (None: any).

    Raises DataError where there are none, or not whole, and for a line that is no triplet of these listings.
    """
    if stored_manifest(folder, split) is None:
        flag = "" if split == "train" else f" --split {split}"
        raise DataError(f"{folder.catalog}: no triplets of the {split} split", f"run `afmrl triplets{flag}`")
    path = triplet_folder(folder, split) / LINES
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                triplet = _LINE.validate_json(line, strict=True)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                field = "".join(f"{part}: " for part in first["loc"][:1])
                raise _no_triplet(path, number, field + first["msg"]) from None
            if triplet.window not in WINDOWS:
                raise _no_triplet(path, number, f"window {triplet.window[:40]!r} is not known")
            for id in (triplet.reference, triplet.target):
                if ids is not None and id not in ids:
                    raise _no_triplet(path, number, f"{id[:80]!r} is no listing of the {split} split with attributes")
            yield triplet


def _no_triplet(path: Path, number: int, why: str) -> DataError:
    return DataError(f"{path}: line {number}: no triplet: {why[:200]}", "remove this file: it is made again")


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
