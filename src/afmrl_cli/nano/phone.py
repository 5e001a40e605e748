"""The same photo as a seller takes it with a phone: lamp light, shadow, noise, out of focus, crooked.

Half of the photos of the nano model's last lessons are such ones; they stay harder to read than the renderer's own.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageFilter

TABLE = (90, 85, 80)
"""Colour of what shows at the corners of a turned photo."""


def by_phone(photo: Image.Image, rng: Random) -> Image.Image:
    """Return `photo`, square and RGB, as a phone would show it; another `rng`, another lamp."""
    side = photo.width
    if rng.random() < 0.7:  # a warm lamp, else a cold one
        lamp = (1.0, 1 - 0.25 * rng.random(), 1 - 0.55 * rng.random())
    else:
        lamp = (1 - 0.4 * rng.random(), 1 - 0.15 * rng.random(), 1.0)
    light = (np.asarray(photo).astype(np.float32) / 255 * lamp) ** (1 + 0.5 * rng.random())
    light *= 1 - 0.45 * rng.random()
    down, across = np.mgrid[0:side, 0:side] / side - 0.5
    angle = rng.random() * 2 * math.pi
    light *= (1 + 0.7 * (math.cos(angle) * across + math.sin(angle) * down))[..., None]
    light += np.random.default_rng(rng.randrange(2**31)).normal(0, 0.05, light.shape)
    taken = Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))
    taken = taken.rotate(rng.uniform(-25, 25), resample=Image.Resampling.BICUBIC, fillcolor=TABLE)
    return taken.filter(ImageFilter.GaussianBlur(0.006 * side * rng.random()))
