"""Photos: from a cell to a path that stays in the catalog's folder, and from a path to RGB pixels, safely.

A photo comes from anywhere, so its size is checked from the header before anything is decoded, only formats that
product photos come in are tried, and whatever a decoder throws becomes an ImageProblem with a reason.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..settings import CatalogSettings
from .links import full_link, place_of
from .named_photos import USUAL
from .problems import Kind

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LINK = re.compile(r"[a-z][a-z0-9+.-]+://|data:|//", re.IGNORECASE)
SEPARATORS = re.compile(r"[|;\r\n]")
LINKS_APART = re.compile(r"\s*[|;,\s]\s*(?=https?://)", re.IGNORECASE)
FILE_END = re.compile(r"\.\w{2,5}\s*$")
ADDRESSES = ("url", "src", "link", "href", "path", "file", "image")
"""Keys of an object that stands for a photo, in JSON."""
HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
ORIENTATION = 0x0112
LONGEST_SIDE = 65_535
"""As in JPEG. Pillow spends 16 bytes and more on each line: a picture one pixel wide would take gigabytes."""
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders throw at damaged files."""


class ImageProblem(DataError):
    """A photo that can't be used; `kind` as in problems.py, `reason` says why, without the path."""

    def __init__(self, path: Path | str, reason: str, kind: Kind = "unreadable image") -> None:
        super().__init__(f"{path}: {reason}")
        self.kind: Kind = kind
        self.reason = reason


def image_cells(cell: str, separator: str) -> list[str]:
    """The image paths in one cell: a JSON list (of texts, or of objects with a url), or parts between `separator`;
    blanks are left out.

    Without a separator the cell is split at |, ; and line breaks, and at commas when every part looks like a file.
    """
    if cell[:1] + cell[-1:] in ("[]", "{}"):
        try:
            parts = json.loads(cell)
        except (ValueError, RecursionError):
            parts = None
        parts = [_address(part) for part in (parts if isinstance(parts, list) else [parts])]
        if all(isinstance(part, str) for part in parts):
            return [part.strip() for part in parts if part.strip()]
    if separator:
        parts = cell.split(separator)
    elif LINK.match(cell):  # a link may hold any of the separators, so the next one starts with a scheme
        parts = LINKS_APART.split(cell)
    else:
        parts = SEPARATORS.split(cell)
        if len(parts) == 1 and all(FILE_END.search(part) for part in cell.split(",")):
            parts = cell.split(",")
    return [part.strip() for part in parts if part.strip()]


def _address(part: object) -> object:
    """A photo's link or path in an object such as {"url": "...", "alt": "..."}; anything else as it is."""
    return next((part[key] for key in ADDRESSES if part.get(key)), None) if isinstance(part, dict) else part


class ImagePaths:
    """From the cells of a catalog to absolute paths of files that are there."""

    def __init__(self, root: Path, settings: CatalogSettings) -> None:
        self._root = root.resolve()
        self._allow_outside = settings.allow_outside
        named = [settings.image_folder] if settings.image_folder else USUAL
        self._folders = [name for name in named if (self._root / name).is_dir()]
        # Thousands of photos lie in a few folders; resolving each folder once makes a photo cost one lstat.
        self._resolved = lru_cache(maxsize=1024)(self._folder)

    def find(self, cell: str) -> Path:
        """The photo that `cell` names, relative to the catalog's folder.

        A link is found where `afmrl fetch-images` put its photo. A path that leads nowhere is looked for in the folder
        of photos (`catalog.image_folder`, images, photos, ...), as it is and by the file's name alone. Raises
        ImageProblem: "image url" (not fetched yet), "image outside" (`../`, absolute, or a link that leaves the folder,
        unless the settings allow it) or "missing image". The file is not opened.
        """
        if LINK.match(cell):
            return self._fetched(cell)
        try:
            try:
                return self._find(cell)
            except ImageProblem:
                path = cell.replace("\\", "/")  # written on Windows
                names = [path] if path != cell else []
                for name in (path.lstrip("/"), path.rpartition("/")[2]):
                    names += [f"{folder}/{name}" for folder in self._folders if name]
                for name in names:
                    with suppress(ImageProblem):
                        return self._find(name)
                raise
        except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, links in a circle
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageProblem(cell[:80], reason, "missing image") from error

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
        """The folder that a cell names, and whether it lies in the catalog's."""
        folder = (self._root / place).resolve()
        return folder, folder == self._root or self._root in folder.parents

    def _refuse_outside(self, path: Path, cell: str) -> None:
        if not self._allow_outside and self._root not in path.parents:
            raise ImageProblem(cell, "leaves the catalog's folder", "image outside")


def open_image(path: Path, settings: CatalogSettings) -> Image.Image:
    """The photo at `path` as RGB: turned as its EXIF says, transparency on white, the first frame of an animation.

    Raises ImageProblem, with a reason, for anything that is not a readable photo of at most
    `settings.max_image_pixels` pixels; the pixels are counted from the header, before decoding.
    """
    with _header(path, settings) as image:
        image.load()
        return _upright(_rgb(image), image)


def open_small(path: Path, settings: CatalogSettings, side: int = 32) -> Image.Image:
    """As `open_image`, in less time: a JPEG is decoded at the smallest eighth of its size that has `side` pixels."""
    with _header(path, settings) as image:
        image.draft("RGB", (side, side))
        image.load()
        return _upright(_rgb(image), image)


def check_image(path: Path, settings: CatalogSettings) -> None:
    """Raise what `open_image` would raise, in less time: all of the file is read, a JPEG at an eighth of its size."""
    with _header(path, settings) as image:
        image.draft("L", (1, 1))
        image.load()


@contextmanager
def _header(path: Path, settings: CatalogSettings) -> Iterator[Image.Image]:
    """The photo at `path` with its header read and nothing decoded; what fails inside the block is an ImageProblem."""
    from PIL import Image, UnidentifiedImageError

    # Pillow warns on standard error of damaged metadata that it gets over.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Pillow's own limit warns on standard error and can't be set by us alone; ours below is checked as early.
    Image.MAX_IMAGE_PIXELS = None
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageProblem(path, "not a plain file")
        if not status.st_size:
            raise ImageProblem(path, "the file is empty")
        Image.init()
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
            if width * height > settings.max_image_pixels:
                limit = f"{settings.max_image_pixels:,} (catalog.max_image_pixels)"
                raise ImageProblem(path, f"{width:,} x {height:,} pixels, at most {limit}")
            if max(width, height) > LONGEST_SIDE:
                raise ImageProblem(path, f"{width:,} x {height:,} pixels: a side of more than {LONGEST_SIDE:,}")
            yield image
    except UnidentifiedImageError as error:
        raise ImageProblem(path, _not_an_image(path)) from error
    except FileNotFoundError as error:
        raise ImageProblem(path, "no such file", "missing image") from error
    except DECODER_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageProblem(path, f"damaged: {reason.splitlines()[0][:120]}") from error


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: convert("RGB") would clip it to white."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F" and values.max() <= 1:
        values = values * 255
    elif image.mode != "F" and (image.mode != "I" or values.max() > 255):
        values = values / 257
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")


def _upright(image: Image.Image, original: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        orientation = original.getexif().get(ORIENTATION)
    except DECODER_ERRORS:
        return image  # damaged metadata beside good pixels: the photo is kept as it lies
    return image.transpose(turns[orientation]) if orientation in turns else image


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
