"""Pairs of labelled photos: half of one class, half of two, the wrong photo among the nearest.

    first      any photo
    same       another photo of its class, of another listing where there is one
    different  of CANDIDATES random photos of other classes the one that shares most known attribute values with it

Where nothing is known of the attributes, the wrong photo is any. Random wrong pairs would be judged at a glance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..attributes.schema import folded
from .photos import LabelledPhoto, PhotoSet

CANDIDATES = 16
FIXED = 0
"""Seed of the pairs that are the same for every training and its validations."""


@dataclass(frozen=True)
class PhotoPair:
    """Two photos, and whether they are of one class."""

    first: LabelledPhoto
    second: LabelledPhoto
    same: bool

    @property
    def swapped(self) -> PhotoPair:
        """Return the pair in the other order."""
        return PhotoPair(self.second, self.first, self.same)


class Pairs:
    """Draws pairs from the photos of a set, of which each class has two at least."""

    def __init__(self, photos: PhotoSet) -> None:
        """Keep the photos. Wrong pairs need two classes."""
        self.photos, self.num_classes = photos.photos, len(photos.classes)
        self._of_class: dict[int, list[int]] = {}
        for i, photo in enumerate(photos.photos):
            self._of_class.setdefault(photo.label, []).append(i)
        self._values = [values_of(photo) for photo in photos.photos]

    def draw(self, at: int, same: bool, rng: np.random.Generator) -> PhotoPair:
        """Draw a pair of the photo `at`, in random order."""
        other = self._same(at, rng) if same else self._different(at, rng)
        pair = PhotoPair(self.photos[at], self.photos[other], same)
        return pair.swapped if rng.random() < 0.5 else pair

    def _same(self, at: int, rng: np.random.Generator) -> int:
        own = self.photos[at]
        others = [i for i in self._of_class[own.label] if i != at]
        elsewhere = [i for i in others if self.photos[i].listing != own.listing]
        return _any(elsewhere or others, rng)

    def _different(self, at: int, rng: np.random.Generator) -> int:
        own = self.photos[at]
        found: dict[int, None] = {}
        while len(found) < min(CANDIDATES, len(self.photos) - len(self._of_class[own.label])):
            other = int(rng.integers(len(self.photos)))
            if self.photos[other].label != own.label:
                found[other] = None
        # Of equals the first, which is any of them.
        return max(found, key=lambda other: len(self._values[at] & self._values[other]))


def values_of(photo: LabelledPhoto) -> frozenset[tuple[str, str]]:
    """Return the known attributes of a photo as they are compared."""
    return frozenset((key, folded(value)) for key, value in photo.pairs.items())


def fixed_pairs(photos: PhotoSet, number: int) -> list[PhotoPair]:
    """Return at most `number` pairs, the same each time, one in two of one class; [] where there are fewer than two
    classes. A photo is the first of several pairs only when all have been.
    """
    if len(photos.classes) < 2:
        return []
    rng, pairs, most = np.random.default_rng(FIXED), Pairs(photos), 2 * len(photos.photos)
    order = np.concatenate([rng.permutation(len(photos.photos)) for _ in range(2)])
    drawn = [pairs.draw(int(at), i % 2 == 0, rng) for i, at in enumerate(order[: min(number, most)])]
    return drawn


def _any(numbers: Sequence[int], rng: np.random.Generator) -> int:
    return numbers[int(rng.integers(len(numbers)))]
