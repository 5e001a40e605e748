"""FashionIQ's and CIRR's annotations as they are published: composed queries for whoever has the pictures.

    captions/cap.dress.val.json        [{"candidate": "B1", "target": "B2", "captions": ["is red", "has no sleeves"]}]
    captions/cap.rc2.val.json          [{"pairid": 0, "reference": "a", "target_hard": "b", "caption": "...",
                                         "img_set": {"members": ["a", "b", ...]}}]
    image_splits/split.dress.val.json  ["B1", "B2", ...], CIRR's {"a": "./dev/a.png", ...}: what can be found

The catalog's ids are the pictures' names, and each listing shows its picture. A query is the reference's picture and
the caption, FashionIQ's two joined by "and"; what it is searched in is the split of its file without the reference, and
CIRR's members are its subset. A folder means all `captions/cap.*.val.json` in it, each a category.

Everything that is lacking is an error, since a smaller gallery or fewer queries would give figures that are not the
standard ones: a picture that no listing has, a query without a target (a test split's are not published).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from ..catalog.problems import clipped
from ..errors import DataError
from ..store.files import parse_json
from .metrics import Qrels
from .task import Document, Query

CAPTIONS, SPLITS = "captions", "image_splits"
MARKS = ".?, "
"""What captions end with, or not; taken off both ends."""
HINT = "as published: captions/cap.*.json with image_splits/split.*.json beside its folder"


def is_published(path: Path | None) -> TypeGuard[Path]:
    """Tell whether `--queries` names such annotations: a folder, or a file called cap.*.json."""
    return path is not None and (path.is_dir() or path.match("cap.*.json"))


def caption_files(path: Path) -> list[Path]:
    """Return the annotations in a folder, or the file that `path` is."""
    return sorted(path.glob(f"{CAPTIONS}/cap.*.val.json")) if path.is_dir() else [path]


def split_file(captions: Path) -> Path:
    """Return the file with the pictures that can be found: captions/cap.X.json goes with image_splits/split.X.json."""
    return captions.absolute().parent.with_name(SPLITS) / captions.name.replace("cap.", "split.", 1)


def read_published(path: Path, documents: Sequence[Document]) -> tuple[list[Query], Qrels]:
    """Read the composed queries of `path` over the catalog's `documents`. DataError with file and entry for whatever is
    not as published, or not in the catalog.
    """
    files = caption_files(path)
    if not files:
        raise DataError(f"{path}: no captions/cap.*.val.json in it", HINT)
    by_id = {document.id: document for document in documents}
    queries: list[Query] = []
    qrels: dict[str, dict[str, int]] = {}
    for file in files:
        entries = _entries(file)
        within = _gallery(split_file(file), by_id)
        parts = file.name.split(".")
        name = parts[1] if len(parts) > 2 else file.stem
        for number, entry in enumerate(entries, 1):
            query, target = _query(entry, f"{'_'.join(name.split())}-{number}", f"{file}: entry {number}", by_id)
            if target not in within:
                raise DataError(f"{file}: entry {number}: its target {clipped(target, 80)} is not in the split", HINT)
            category = name if "candidate" in entry else ""
            queries.append(replace(query, within=within, category=category, group=by_id[target].identity))
            qrels[query.id] = {target: 1}
    return queries, qrels


def _query(entry: Any, id: str, where: str, by_id: Mapping[str, Document]) -> tuple[Query, str]:
    """Return the query of an entry, and its target."""
    if not isinstance(entry, dict) or not {"candidate", "reference"} & entry.keys():
        raise DataError(f"{where}: neither FashionIQ's (candidate) nor CIRR's (reference)", HINT)
    fashioniq = "candidate" in entry
    reference = _id(entry, "candidate" if fashioniq else "reference", where, by_id)
    target = _id(entry, "target" if fashioniq else "target_hard", where, by_id)
    captions = entry.get("captions") if fashioniq else [entry.get("caption")]
    if not isinstance(captions, list) or not all(isinstance(each, str) for each in captions):
        raise DataError(f"{where}: {'captions are no list of texts' if fashioniq else 'caption is no text'}", HINT)
    text = " and ".join(filter(None, (caption.strip(MARKS) for caption in captions)))
    if not text:
        raise DataError(f"{where}: no caption says anything", HINT)
    images = by_id[reference].product.images[:1]
    if not images:
        raise DataError(f"{where}: the listing {clipped(reference, 80)} has no photo", "see `afmrl check`")
    subset = frozenset() if fashioniq else _members(entry, where, by_id) - {reference}
    return Query(id, text, images, frozenset([reference]), kind="composed", subset=subset), target


def _id(entry: Mapping[str, Any], key: str, where: str, by_id: Mapping[str, Document]) -> str:
    value = entry.get(key)
    if value is None and key.startswith("target"):
        raise DataError(f"{where}: no {key}", "a test split is published without; take the validation split")
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is no text", HINT)
    return _known(value, where, by_id)


def _known(id: str, where: str, by_id: Mapping[str, Document]) -> str:
    if id not in by_id:
        raise DataError(
            f"{where}: no listing has the id {clipped(id, 80)}",
            "the catalog needs every picture of the split, with the picture's name as its id",
        )
    return id


def _members(entry: Mapping[str, Any], where: str, by_id: Mapping[str, Document]) -> frozenset[str]:
    group = entry.get("img_set")
    members = group.get("members") if isinstance(group, dict) else None
    if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
        raise DataError(f"{where}: img_set.members is no list of texts", HINT)
    return frozenset(_known(each, where, by_id) for each in members)


def _gallery(file: Path, by_id: Mapping[str, Document]) -> frozenset[str]:
    content = _parsed(file)
    ids = list(content) if isinstance(content, (list, dict)) else []
    if not ids or not all(isinstance(each, str) for each in ids):
        raise DataError(f"{file}: neither a list of pictures' names nor an object with such keys", HINT)
    return frozenset(_known(id, f"{file}: entry {number}", by_id) for number, id in enumerate(ids, 1))


def _entries(file: Path) -> list[Any]:
    content = _parsed(file)
    if not isinstance(content, list) or not content:
        raise DataError(f"{file}: not a list of queries", HINT)
    return content


def _parsed(file: Path) -> Any:
    try:
        return parse_json(file.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror}", HINT) from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}", HINT) from None
