"""From a decoded picture of any kind to RGB as sRGB shows it: colour profiles converted, grey and CMYK too, more than 8
bits scaled down, transparency on white, turned as EXIF says.

Models and screens take pixels for sRGB. A photo in Adobe RGB or ProPhoto looks faded if its profile is left out:
(200, 30, 40) there is stored as (173, 30, 40). A profile that is damaged, or is meant for another kind of picture, is
left out; one that comes to sRGB within `ROUNDING` leaves the pixels as they are.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .decoder_errors import DECODER_ERRORS

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
LONGEST_PROFILE = 4 * 2**20
"""Bytes; profiles of presses have one or two million."""
KEPT_PROFILES = 64
ROUNDING = 3
"""Of 255: how far profiles that are all called sRGB lie apart."""
SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
STEPS = 9
"""Shades of each channel that a profile is tried on."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Return `image`, decoded, as RGB in sRGB, transparency on white."""
    from PIL import Image

    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return _converted(_plain(image), profile)
    clear = image.convert("RGBA")
    grey = image.mode in ("LA", "La", "L", "1")
    made = _converted(clear.getchannel("R") if grey else clear.convert("RGB"), profile)
    made.putalpha(clear.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), made).convert("RGB")


def changes_colours(image: Image.Image) -> bool:
    """Tell whether `image`, of which the header has been read, has a profile that changes its pixels."""
    high = image.mode in ("I", "F") or image.mode.startswith(("I;16", "LA", "La"))
    mode = "L" if high else image.mode if image.mode in SPACES else "RGB"
    return _transform(image.info.get("icc_profile"), mode) is not None


def upright(image: Image.Image, original: Image.Image) -> Image.Image:
    """Return `image` turned as the EXIF of `original` says."""
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
    turn = turns.get(orientation(original))
    return image.transpose(turn) if turn is not None else image


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 5 to 8 for a picture that lies on its side; 1 where there is none, or it can't be
    read.
    """
    try:
        found = image.getexif().get(ORIENTATION)
    except DECODER_ERRORS:
        return 1  # damaged metadata beside good pixels: the photo is kept as it lies
    return found if isinstance(found, int) else 1


def _plain(image: Image.Image) -> Image.Image:
    """Return `image` in one of the modes that profiles are for."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bit(image)
    return image if image.mode in SPACES else image.convert("RGB")


def _converted(image: Image.Image, profile: Any) -> Image.Image:
    from PIL import ImageCms

    transform = _transform(profile, image.mode)
    if transform is None and image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(lab, ImageCms.createProfile("sRGB"), "LAB", "RGB")
    if transform is not None:
        made: Image.Image = transform.apply(image)
        return made
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _transform(profile: Any, mode: str) -> Any:
    """Return what converts pixels of `mode` from `profile` to sRGB; None where there is nothing to convert, or
    no way.
    """
    if not isinstance(profile, bytes) or not 128 < len(profile) <= LONGEST_PROFILE:
        return None
    return _known_transform(profile, mode)


@lru_cache(KEPT_PROFILES)
def _known_transform(profile: bytes, mode: str) -> Any:
    import numpy as np
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip().upper() != SPACES[mode].upper():
            return None
        flags = ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION  # without a cache threads may share it
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
        shades = np.linspace(0, 255, STEPS).round().astype(np.uint8)
        if mode == "RGB":
            tried = np.stack(np.meshgrid(shades, shades, shades), axis=-1).reshape(1, -1, 3)
        elif mode == "L":
            tried = np.arange(256, dtype=np.uint8)[None]
        else:
            return transform
        shown = np.asarray(transform.apply(Image.fromarray(tried))).astype(int)
        apart = np.abs(shown - (tried if mode == "RGB" else tried[..., None])).max()
        return transform if apart > ROUNDING else None
    except (ImageCms.PyCMSError, *DECODER_ERRORS):  # damaged, or not for pictures: the photo is taken as it is
        return None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Turn grey of more than 8 bits into 8: convert("RGB") would clip it to white."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F" and values.max() <= 1:
        values = values * 255
    elif image.mode != "F" and (image.mode != "I" or values.max() > 255):
        values = values / 257
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
