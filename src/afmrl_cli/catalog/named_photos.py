"""Photos that no column names: files in a folder that are called after the listing's id.

    images/A-1.jpg   images/A-1_2.jpg   images/A-1 (3).png   images/A-1/front.jpg

The folder is `catalog.image_folder`, or, for a catalog without a column of photos, `images` or `photos` when it is
there, or the catalog's own when photos lie beside it.
A file that is called after two ids (`A-1.jpg` for `A-1`, and as the first photo of `A`) belongs to the longer one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import DataError
from ..settings import CatalogSettings
from ..store.folder import STORE_NAME, CatalogFolder

USUAL = ("images", "photos", "bilder", "fotos", "img", "pictures")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
NUMBERED = re.compile(r"(.+?)(?:[ _.-]+\(?(?:\d{1,3}|[a-z]{1,10})\)?)")
DEEPEST = 3


class NamedPhotos:
    """Which photos a listing has by their names."""

    def __init__(self, photos: dict[str, list[Path]]) -> None:
        self._photos = photos

    @classmethod
    def find(
        cls, folder: CatalogFolder, settings: CatalogSettings, ids: Callable[[], Iterable[str]]
    ) -> NamedPhotos | None:
        """Return the photos of the folder, None when there is no such folder. `ids` gives the ids of the catalog, if
        needed.

        Raises DataError when `catalog.image_folder` is no folder inside of the catalog's.
        """
        root = folder.root.resolve()
        names = [settings.image_folder] if settings.image_folder else USUAL
        place = next((root / name for name in names if (root / name).is_dir()), None)
        deepest = DEEPEST
        if place is None and not settings.image_folder and _holds_photos(root):
            place, deepest = root, 1
        if place is None:
            if settings.image_folder:
                raise DataError(f"{root / settings.image_folder}: no such folder", "catalog.image_folder names it")
            return None
        if not settings.allow_outside and root not in (place.resolve(), *place.resolve().parents):
            raise DataError(f"{place}: leaves the catalog's folder", "set catalog.allow_outside to allow it")
        exact: dict[str, list[Path]] = {}
        numbered: dict[str, list[tuple[str, Path]]] = {}
        for path in _files(place.resolve(), 1 + DEEPEST - deepest):
            stem = path.stem.casefold()
            exact.setdefault(stem, []).append(path)
            if path.parent != place.resolve():
                numbered.setdefault(path.parent.name.casefold(), []).append((stem, path))
            if found := NUMBERED.fullmatch(stem):
                numbered.setdefault(found[1], []).append((stem, path))
        taken = {stem for listing in ids() if (stem := listing.casefold()) in exact} if numbered else set()
        for listing, files in numbered.items():
            exact.setdefault(listing, []).extend(path for stem, path in files if stem not in taken)
        return cls(exact)

    def of(self, listing: str) -> list[Path]:
        """Return the photos of a listing, by name, the one that is called just like it first."""
        return list(dict.fromkeys(self._photos.get(listing.casefold(), ())))


def _holds_photos(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries)


def _files(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False) and depth < DEEPEST and entry.name != STORE_NAME:
            yield from _files(Path(entry.path), depth + 1)
        elif entry.is_file(follow_symlinks=False) and Path(entry.name).suffix.lower() in SUFFIXES:
            yield Path(entry.path)
