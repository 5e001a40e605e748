"""The garments of the rendered shops: attributes of a category, their values, and one at random."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "black": (32, 31, 34),
    "white": (246, 246, 243),
    "grey": (141, 143, 147),
    "navy": (30, 42, 100),
    "light blue": (134, 190, 234),
    "teal": (12, 132, 132),
    "green": (48, 142, 66),
    "red": (214, 34, 40),
    "burgundy": (112, 18, 50),
    "pink": (246, 150, 188),
    "purple": (120, 62, 172),
    "yellow": (250, 212, 44),
    "orange": (244, 130, 28),
    "brown": (112, 70, 38),
    "beige": (220, 198, 160),
}
"""A garment's main colours, far enough apart to survive a dim or tinted photo."""

ACCENTS: tuple[str, ...] = ("black", "white", "yellow", "red", "light blue", "green")
"""Second colours, those of the pattern."""

PATTERNS: tuple[str, ...] = ("solid", "striped", "checked", "dotted", "floral", "colour-block")

KEYS: tuple[str, ...] = (
    "category",
    "colour",
    "pattern",
    "accent",
    "neckline",
    "sleeve",
    "shape",
    "length",
    "closure",
    "pocket",
    "belt",
)
"""Every attribute, in the order in which an answer names them."""

CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "dress": {
        "neckline": ("round", "v-neck", "square", "collar", "high"),
        "sleeve": ("sleeveless", "short", "long"),
        "length": ("mini", "knee", "maxi"),
        "belt": ("none", "buckle", "tie"),
    },
    "blouse": {
        "neckline": ("round", "v-neck", "square", "collar", "high"),
        "sleeve": ("short", "long"),
        "closure": ("none", "buttons", "zip"),
        "pocket": ("none", "patch"),
    },
    "t-shirt": {
        "neckline": ("round", "v-neck", "square"),
        "sleeve": ("sleeveless", "short", "long"),
        "length": ("cropped", "regular", "long"),
        "pocket": ("none", "patch"),
    },
    "hoodie": {
        "length": ("cropped", "regular", "long"),
        "closure": ("none", "zip", "buttons"),
        "pocket": ("none", "kangaroo"),
    },
    "coat": {
        "neckline": ("round", "v-neck", "collar", "high"),
        "length": ("short", "knee", "maxi"),
        "closure": ("none", "buttons", "zip"),
        "belt": ("none", "buckle", "tie"),
    },
    "trousers": {
        "shape": ("wide", "straight", "tapered"),
        "length": ("cropped", "long"),
        "pocket": ("none", "cargo"),
        "belt": ("none", "buckle", "tie"),
    },
    "shorts": {
        "length": ("short", "knee"),
        "pocket": ("none", "cargo"),
        "belt": ("none", "buckle", "tie"),
    },
    "skirt": {
        "shape": ("pencil", "flared", "pleated"),
        "length": ("mini", "knee", "maxi"),
        "closure": ("none", "buttons", "zip"),
        "belt": ("none", "buckle", "tie"),
    },
}
"""What can be seen of each category beside colour, pattern and accent; with those, at most eight attributes."""

_MIN_CONTRAST = 150.0


@dataclass(frozen=True, slots=True)
class Garment:
    """One garment: its attributes ("" = not an attribute of this category) and `seed` for its own fine details.

    The fine details (how wide the stripes are, the exact shade, a badge) are part of the identity: every photo of the
    garment shows the same ones, and no attribute names them.
    """

    category: str
    colour: str
    pattern: str
    accent: str = ""
    neckline: str = ""
    sleeve: str = ""
    shape: str = ""
    length: str = ""
    closure: str = ""
    pocket: str = ""
    belt: str = ""
    seed: int = 0

    def attributes(self) -> dict[str, str]:
        """Return the attributes that apply, in the order of `KEYS`."""
        return {key: value for key in KEYS if (value := getattr(self, key))}


def values_of(category: str) -> dict[str, tuple[str, ...]]:
    """Return every value each attribute of the category may have; `accent` only holds for patterns other than solid."""
    return {"colour": tuple(COLOURS), "pattern": PATTERNS, "accent": ACCENTS, **CATEGORIES[category]}


def contrasts(colour: str, accent: str) -> bool:
    """Tell whether an accent stands out from a colour."""
    a, b = COLOURS[colour], COLOURS[accent]
    return math.dist(a, b) >= _MIN_CONTRAST


def random_garment(rng: Random) -> Garment:
    """Return a garment with every attribute drawn evenly."""
    category = rng.choice(tuple(CATEGORIES))
    colour = rng.choice(tuple(COLOURS))
    pattern = rng.choice(PATTERNS)
    accent = rng.choice([name for name in ACCENTS if contrasts(colour, name)]) if pattern != "solid" else ""
    chosen = {key: rng.choice(values) for key, values in CATEGORIES[category].items()}
    return Garment(category, colour, pattern, accent, seed=rng.randrange(2**31), **chosen)


def colour_variant(garment: Garment, rng: Random, taken: tuple[str, ...] = ()) -> Garment:
    """Return the same garment in another colour, everything else equal; `taken` are colours not to use."""
    fits = [
        name
        for name in COLOURS
        if name not in (garment.colour, *taken) and (not garment.accent or contrasts(name, garment.accent))
    ]
    return replace(garment, colour=rng.choice(fits))


def detail_variant(garment: Garment, rng: Random) -> Garment:
    """Return the same garment with another value of one key of its cut or fittings, everything else equal."""
    details = {key: values for key, values in CATEGORIES[garment.category].items() if len(values) > 1}
    key = rng.choice(sorted(details))
    changed: dict[str, Any] = {key: rng.choice([each for each in details[key] if each != getattr(garment, key)])}
    return replace(garment, **changed)


def colour_variants(rng: Random) -> tuple[Garment, Garment]:
    """Return a garment sampled at random and its variant in another colour."""
    first = random_garment(rng)
    return first, colour_variant(first, rng)
