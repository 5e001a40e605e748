"""Photos: from a cell to a path that stays in the catalog's folder, and from a path to RGB pixels, safely.

A photo comes from anywhere, so its size is checked from the header before anything is decoded, only formats that
product photos come in are tried, and whatever a decoder throws becomes an ImageProblem with a reason.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import DataError
from ..settings import CatalogSettings
from .decoder_errors import DECODER_ERRORS
from .links import full_link, place_of
from .mended import LARGEST, NO_END, mended
from .named_photos import USUAL
from .near_names import NearNames
from .photo_cells import LINK
from .pixels import changes_colours, orientation, to_srgb, upright
from .problems import Kind

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SHOPS_FOLDERS = ("media/catalog/product", "pub/media/catalog/product")
"""Where Magento keeps what its exports name as /m/h/x.jpg."""
QUERY = re.compile(r"[?#].*$")
HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
JPEG, END = b"\xff\xd8", b"\xff\xd9"
TAIL = 64
"""Bytes at a JPEG's end in which its end marker is searched."""
REMEMBERED = 200_000
"""Photos whose size is remembered in a process, at about 300 bytes each."""
LONGEST_SIDE = 65_535
"""As in JPEG. Pillow spends 16 bytes and more on each line: a picture one pixel wide would take gigabytes."""
T = TypeVar("T")


class ImageProblem(DataError):
    """A photo that can't be used; `kind` as in problems.py, `reason` says why, without the path."""

    def __init__(self, path: Path | str, reason: str, kind: Kind = "unreadable image") -> None:
        super().__init__(f"{path}: {reason}")
        self.kind: Kind = kind
        self.reason = reason
        self._made_of = path, reason, kind

    def __reduce__(self) -> tuple[type[ImageProblem], tuple[Path | str, str, Kind]]:
        """Return what it is made of: between processes an exception goes by its one message otherwise."""
        return type(self), self._made_of


_SIZES: dict[tuple[str, int, int, int], tuple[int, int] | ImageProblem] = {}


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A photo that can be read: its (width, height), upright, and what had to be mended, "" for nothing."""

    size: tuple[int, int]
    note: str


class ImagePaths:
    """From the cells of a catalog to absolute paths of files that are there."""

    def __init__(self, root: Path, settings: CatalogSettings) -> None:
        self._root = root.resolve()
        self._allow_outside = settings.allow_outside
        named = [settings.image_folder] if settings.image_folder else []
        self._folders = [name for name in (*named, *SHOPS_FOLDERS, *USUAL) if (self._root / name).is_dir()]
        # Thousands of photos lie in a few folders; resolving each folder once makes a photo cost one lstat.
        self._near_names = NearNames(self._root)
        self._resolved = lru_cache(maxsize=1024)(self._folder)

    def find(self, cell: str) -> Path:
        """Return the photo that `cell` names, relative to the catalog's folder.

        A link is found where `afmrl fetch-images` put its photo. A path that leads nowhere, or begins with a slash, is
        searched below the catalog's folder, in the folders of photos (`catalog.image_folder`, Magento's
        media/catalog/product, images, photos, ...), and there by the file's name alone. Raises ImageProblem:
        "image url" (not fetched yet), "image outside" (`../`, an absolute path or a link that leaves the folder, unless
        the settings allow it) or "missing image". The file is not opened.
        """
        if LINK.match(cell):
            return self._fetched(cell)
        try:
            try:
                return self._find(cell)
            except ImageProblem as problem:
                names = list(dict.fromkeys(self._elsewhere(cell)))
                for name in names:
                    with suppress(ImageProblem):
                        return self._find(name)
                if problem.kind == "image outside" and cell.startswith("/") and not os.path.lexists(cell):
                    places = ", ".join([".", *self._folders])
                    problem = ImageProblem(cell, f"no such file in {places}", "missing image")
                return self._near(cell, problem, [cell, *names])
        except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, links in a circle
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageProblem(cell[:80], reason, "missing image") from error

    def _near(self, cell: str, problem: ImageProblem, names: Sequence[str]) -> Path:
        """Return the photo that one of `names` must mean; raises `problem`, with the nearest name, when there
        is none.
        """
        for name in names:
            if (near := self._near_names.find(name)) is not None:
                with suppress(ImageProblem):
                    return self._find(near)
        said = next(filter(None, map(self._near_names.nearest, names)), "") if problem.kind == "missing image" else ""
        raise ImageProblem(cell, f"{problem.reason}; {said}" if said else problem.reason, problem.kind) from problem

    def _elsewhere(self, cell: str) -> Iterator[str]:
        """Yield where else the photo that `cell` names may be, relative to the catalog's folder."""
        for path in dict.fromkeys((cell, QUERY.sub("", cell))):
            path = path.replace("\\", "/")  # written on Windows
            inside = path.lstrip("/")
            if inside != cell:
                yield inside
            for name in (inside, path.rpartition("/")[2]):
                yield from (f"{folder}/{name}" for folder in self._folders if name)

    def _fetched(self, cell: str) -> Path:
        if not (link := full_link(cell)):
            raise ImageProblem(cell[:80], "a link, and not of http or https", "image url")
        path = place_of(self._root, link)
        try:
            if stat.S_ISREG(path.lstat().st_mode):
                return path
        except FileNotFoundError:
            pass
        raise ImageProblem(cell[:80], "a link that has not been fetched", "image url")

    def _find(self, cell: str) -> Path:
        place, name = os.path.split(cell)
        if name in ("", ".", ".."):
            path = (self._root / cell).resolve()
            self._refuse_outside(path, cell)
        else:
            folder, inside = self._resolved(place)
            path = folder / name
            if not inside:
                self._refuse_outside(path, cell)
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                path = path.resolve()
                self._refuse_outside(path, cell)
                mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise ImageProblem(cell, "no such file", "missing image") from None
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise ImageProblem(cell, what, "missing image")
        return path

    def _folder(self, place: str) -> tuple[Path, bool]:
        """Return the folder that a cell names, and whether it lies in the catalog's."""
        folder = (self._root / place).resolve()
        return folder, folder == self._root or self._root in folder.parents

    def _refuse_outside(self, path: Path, cell: str) -> None:
        if not self._allow_outside and self._root not in path.parents:
            raise ImageProblem(cell, "leaves the catalog's folder", "image outside")


def open_image(path: Path, settings: CatalogSettings) -> Image.Image:
    """Return the photo at `path` as RGB in sRGB: turned as its EXIF says, transparency on white, an animation's first
    frame.

    Raises ImageProblem, with a reason, for anything that is not a readable photo of at most
    `settings.max_image_pixels` pixels; the pixels are counted from the header, before decoding. Damaged metadata, or an
    end that is missing, costs no photo (mended.py).
    """
    return _decoded(path, settings, _shown)[0]


def open_small(path: Path, settings: CatalogSettings, side: int = 32) -> Image.Image:
    """Open as `open_image`, in less time: a JPEG is decoded at the smallest eighth of its size that has `side`
    pixels.
    """
    return open_reduced(path, settings, side)[0]


def open_reduced(path: Path, settings: CatalogSettings, side: int) -> tuple[Image.Image, int]:
    """Open as `open_small`, and return with the photo how many pixels the file has."""

    def reduced(image: Image.Image) -> tuple[Image.Image, int]:
        pixels = image.width * image.height
        image.draft("RGB", (side, side))
        return _shown(image), pixels

    return _decoded(path, settings, reduced)[0]


def check_image(path: Path, settings: CatalogSettings) -> CheckedImage:
    """Raise what `open_image` would raise, in less time: all of the file is read, a JPEG at an eighth of its size."""

    def check(image: Image.Image) -> tuple[int, int]:
        size = image.size if orientation(image) < 5 else (image.height, image.width)
        image.draft("L", (1, 1))
        image.load()
        return size

    size, note = _decoded(path, settings, check)
    return CheckedImage(size, note or (NO_END if _endless(path) else ""))


def checked_size(path: Path, settings: CatalogSettings) -> tuple[int, int]:
    """Return the (width, height) of `open_image`'s picture, checked as by `check_image`; a file is decoded once a
    process.

    Raises ImageProblem, for a file that is known to be damaged without opening it again.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ImageProblem(path, error.strerror or str(error), "missing image") from error
    key = (str(path), status.st_size, status.st_mtime_ns, settings.max_image_pixels)
    if key not in _SIZES:
        if len(_SIZES) >= REMEMBERED:
            _SIZES.clear()
        try:
            _SIZES[key] = check_image(path, settings).size
        except ImageProblem as problem:
            _SIZES[key] = problem
    found = _SIZES[key]
    if isinstance(found, ImageProblem):
        raise ImageProblem(path, found.reason, found.kind)
    return found


def shown_otherwise(path: Path) -> str:
    """Say why the pixels of the photo at `path` are others than its bytes alone say: a colour profile, a mended file.

    "" for nearly all photos. Before afmrl converted colours and mended files, these were seen otherwise or not at all:
    what was made of them differs by this (catalog/fingerprints.py). Only the header and the end are read.
    """
    from PIL import UnidentifiedImageError

    try:
        with _quiet_open(path) as image:
            if changes_colours(image):
                return "srgb"
    except (*DECODER_ERRORS, UnidentifiedImageError):
        return "mended"
    return "mended" if _endless(path) else ""


def _endless(path: Path) -> bool:
    """Tell whether the file is a JPEG that lacks its end marker and nothing else."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != JPEG or size > LARGEST:
            return False
        file.seek(max(0, size - TAIL))
        if END in file.read():
            return False
    found = mended(path.read_bytes())  # phones hang films behind a photo
    return found is not None and found[1] == NO_END


def _shown(image: Image.Image) -> Image.Image:
    image.load()
    return upright(to_srgb(image), image)


def _decoded(path: Path, settings: CatalogSettings, use: Callable[[Image.Image], T]) -> tuple[T, str]:
    """Return what `use` makes of the photo, of which only the header has been read; and what had to be mended before,
    or "".

    What fails inside of `use` is an ImageProblem, too.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageProblem(path, "not a plain file")
        if not status.st_size:
            raise ImageProblem(path, "the file is empty")
    except FileNotFoundError as error:
        raise ImageProblem(path, "no such file", "missing image") from error
    try:
        return _used(path, path, settings, use), ""
    except _Damaged as problem:
        if status.st_size <= LARGEST and (found := mended(path.read_bytes())):
            with suppress(_Damaged):
                return _used(path, io.BytesIO(found[0]), settings, use), found[1]
        raise ImageProblem(path, problem.reason) from problem.__cause__


class _Damaged(ImageProblem):
    """One that may be mended."""


def _used(path: Path, source: Path | io.BytesIO, settings: CatalogSettings, use: Callable[[Image.Image], T]) -> T:
    from PIL import UnidentifiedImageError

    try:
        with _quiet_open(source) as image:
            width, height = image.size
            if width * height > settings.max_image_pixels:
                limit = f"{settings.max_image_pixels:,} (catalog.max_image_pixels)"
                raise ImageProblem(path, f"{width:,} x {height:,} pixels, at most {limit}")
            if max(width, height) > LONGEST_SIDE:
                raise ImageProblem(path, f"{width:,} x {height:,} pixels: a side of more than {LONGEST_SIDE:,}")
            return use(image)
    except UnidentifiedImageError as error:
        raise _Damaged(path, _not_an_image(path)) from error
    except DECODER_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _Damaged(path, f"damaged: {reason.splitlines()[0][:120]}") from error


def _quiet_open(source: Path | io.BytesIO) -> Image.Image:
    """Return the picture with its header read and nothing decoded, without Pillow's warnings and its own limit."""
    from PIL import Image

    # Pillow warns on standard error of damaged metadata that it gets over.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Pillow's own limit warns on standard error and can't be set by us alone; ours is checked as early.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


def _not_an_image(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    known = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF"
    if head[4:8] == b"ftyp" and head[8:12] in HEIC:
        return "HEIC, as phones make it, is not read: export the photo as JPEG"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")):
        return "damaged: its header can't be read"
    if head.lstrip()[:1] == b"<":
        return f"no photo but HTML, SVG or XML text (read are {known})"
    if head.isascii() and not any(byte < 9 for byte in head):
        return f"no photo but text (read are {known})"
    return f"not one of {known}"
