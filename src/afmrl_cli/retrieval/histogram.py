"""The colour baseline: how much of which colour a photo holds, compared by cosine.

    h(photo) = sqrt(share of the 48 x 48 pixels in each of 8 x 8 x 8 cells of RGB)          unit length by construction
    h(product) = mean of its photos' h, scaled to length 1;   score(q, d) = h(q) . h(d)

The square root makes the cosine the Bhattacharyya coefficient of two distributions, so a large plain background does
not drown the garment. It knows nothing of shape, and says how far colour alone goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

SIDE = 48
LEVELS = 8
DIMENSION = LEVELS**3
FINE_SIDE, FINE = 96, 1024
LIGHTNESS, CHROMA, NEUTRAL = 12, 64, 130
"""Levels of L, and of a and b, in finer colours; what is added to a and b, which Pillow gives as bytes with a sign, so
that a cell has the greys in its middle.
"""
LEAST_FOREGROUND = 200
"""Pixels of FINE_SIDE x FINE_SIDE: with fewer all count as foreground."""
_CELLS = np.arange(LIGHTNESS * CHROMA**2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_BUCKET = ((_CELLS >> np.uint64(40)) % np.uint64(FINE)).astype(np.int64)
_SIGN = np.where(_CELLS >> np.uint64(63), 1.0, -1.0)


def color_histogram(image: Image) -> NDArray[np.float32]:
    """Return the colours of an RGB photo, [512], length 1."""
    from PIL.Image import Resampling

    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX), dtype=np.int64) * LEVELS // 256
    cells = (pixels[..., 0] * LEVELS + pixels[..., 1]) * LEVELS + pixels[..., 2]
    shares = np.bincount(cells.ravel(), minlength=DIMENSION) / SIDE**2
    return np.sqrt(shares).astype(np.float32)


def mean_histogram(images: Sequence[Image]) -> NDArray[np.float32]:
    """Return the colours of all photos of a product, [512], length 1; `images` is not empty."""
    mean = np.mean([color_histogram(image) for image in images], axis=0)
    unit: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def fine_histogram(image: Image) -> NDArray[np.float32]:
    """Return finer colours of an RGB photo, [1024], length 1: shades that one cell of `color_histogram` holds apart.

        h = unit(r(all pixels) + r(foreground)),    r the square roots of the shares of 12 x 64 x 64 cells of CIE Lab

    The background are the pixels in that cell of `color_histogram` which holds most of the photo's edge. Cells are
    added up with signs in 1,024 buckets by their hash: inner products stay what they were, with an error of about
    1 / sqrt(1024).
    """
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((FINE_SIDE, FINE_SIDE), Resampling.BOX)
    lab = np.asarray(_to_lab().apply(small), dtype=np.int32)
    chroma = (lab[..., 1:] + NEUTRAL) % 256 * CHROMA // 256
    cells = (lab[..., 0] * LIGHTNESS // 256 * CHROMA + chroma[..., 0]) * CHROMA + chroma[..., 1]
    foreground = cells[_foreground(small)]
    whole = np.bincount(cells.ravel())
    there = np.flatnonzero(whole)  # a hundredth of all cells
    front = np.bincount(foreground, minlength=len(whole))[there]
    roots = np.sqrt(whole[there] / cells.size) + np.sqrt(front / foreground.size)
    made = np.bincount(_BUCKET[there], weights=_SIGN[there] * roots, minlength=FINE)
    unit: NDArray[np.float32] = (made / np.linalg.norm(made)).astype(np.float32)
    return unit


@cache
def _to_lab() -> ImageCmsTransform:
    """Return what `convert("LAB")` goes by, which makes it anew for each photo: three quarters of all the time."""
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def _foreground(image: Image) -> NDArray[np.bool_]:
    """Tell which pixels [h, w] of an RGB photo are not of its background's colour."""
    pixels = np.asarray(image, dtype=np.int32) * LEVELS // 256
    cells = (pixels[..., 0] * LEVELS + pixels[..., 1]) * LEVELS + pixels[..., 2]
    edge = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    found: NDArray[np.bool_] = cells != np.bincount(edge).argmax()
    return found if found.sum() >= LEAST_FOREGROUND else np.ones_like(found)
