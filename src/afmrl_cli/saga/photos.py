"""Labelled photos: what the vision encoder learns from, and what it is validated on.

A class is what `vision.classes` says: the values of the catalog's own columns and keys (category among them), or the
product's identity. Every photo of a listing is one sample of the listing's class; a class with one photo has no pair
and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..training.pairs import Photo


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo, which listing shows it (its id and identity), the number of its class, and the attributes that are known
    of the listing ({} where none are).
    """

    photo: Photo
    listing: str
    identity: str
    label: int
    pairs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoSet:
    """The photos of one split and the names of their classes, by number."""

    photos: Sequence[LabelledPhoto]
    classes: Sequence[str]
