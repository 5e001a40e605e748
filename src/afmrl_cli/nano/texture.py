"""The cloth: a garment's colours and pattern as a picture, before it is cut to shape."""

from __future__ import annotations

from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .garment import COLOURS, RGB, Garment

Grid = NDArray[np.float32]


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Grid, Grid]:
    """Return x and y of every pixel, the picture being 1 wide, (0, 0) at its middle."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return np.ascontiguousarray(np.broadcast_to(line, (size, size))), np.ascontiguousarray(
        np.broadcast_to(line[:, None], (size, size))
    )


def shade(colour: RGB, factor: float) -> RGB:
    """Return a colour made darker (factor < 1) or mixed with white (factor > 1)."""
    if factor <= 1:
        return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))
    mix = factor - 1
    return (
        int(colour[0] + (255 - colour[0]) * mix),
        int(colour[1] + (255 - colour[1]) * mix),
        int(colour[2] + (255 - colour[2]) * mix),
    )


def main_colour(garment: Garment) -> RGB:
    """Return the garment's own shade of its colour: a little off the named one, the same in all its photos."""
    rng = Random(f"shade {garment.seed} {garment.colour}")
    red, green, blue = (min(255, max(0, value + rng.randint(-9, 9))) for value in COLOURS[garment.colour])
    return red, green, blue


def cloth(garment: Garment, size: int, split: float = 0.5) -> Image.Image:
    """Return the garment's cloth as a square picture of `size` pixels; colour blocks meet at the height `split`.

    Every motif is at least five pixels wide in a picture of 112, else a model of that resolution could not see it;
    and the accent always covers less than the main colour, so that which is which can be seen.
    """
    rng = Random(f"cloth {garment.seed}")
    colour = main_colour(garment)
    if garment.pattern == "solid":
        return Image.new("RGB", (size, size), colour)
    x, y = _grid(size)
    wide = rng.uniform(0.9, 1.25)
    shift = rng.random()
    if garment.pattern == "striped":
        period = 0.125 * wide
        marks = ((y / period + shift) % 1.0) < 0.37
    elif garment.pattern == "checked":
        period = 0.15 * wide
        marks = (((y / period + shift) % 1.0) < 0.26) | (((x / period + 0.35) % 1.0) < 0.26)
    elif garment.pattern == "colour-block":
        marks = y > split - 0.5 + 0.03 * (shift - 0.5)
    else:
        marks, centre = _motifs(garment.pattern, x, y, wide, shift)
        palette = np.array([colour, COLOURS[garment.accent], shade(colour, 0.45)], dtype=np.uint8)
        kinds = marks.astype(np.uint8)
        kinds[centre] = 2
        return Image.fromarray(palette[kinds])
    palette = np.array([colour, COLOURS[garment.accent]], dtype=np.uint8)
    return Image.fromarray(palette[marks.astype(np.uint8)])


def _motifs(pattern: str, x: Grid, y: Grid, wide: float, shift: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return dots or flowers in staggered rows: where the accent is, and where a flower's dark middle is."""
    period = (0.125 if pattern == "dotted" else 0.19) * wide
    v = y / period + shift
    row = np.floor(v)
    u = x / period + 0.5 * (row % 2)
    du, dv = u - np.floor(u) - 0.5, v - row - 0.5
    squared = du * du + dv * dv
    if pattern == "dotted":
        return squared < 0.085, np.zeros(x.shape, dtype=bool)
    # Four petals: |cos 2a| by way of the double-angle formula, which saves the arctangent.
    petal = np.abs(du * du - dv * dv) / (squared + 1e-6)
    return squared < 0.05 + 0.17 * petal, squared < 0.018
