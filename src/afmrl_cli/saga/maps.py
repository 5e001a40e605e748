"""Where pooler and language model attend, on a few photos, once training has ended.

    beta     the pooler's attention over a photo's tokens
    alpha    the teacher's, as in `anchoring`, of one answer: from the values that it writes about the photo

The answer is the greedy one about the photo, as photo 1, and another: in turn one of its class, and the nearest of
another class among the photos at hand. Whether it is right does not matter here, as it does in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalog.pictures import Picture
from ..store.files import hash_json
from .batch_pairs import Pair
from .learn import attention_of
from .model import Saga
from .photos import LabelledPhoto, PhotoSet
from .plan import Plan
from .replay import Photos
from .rollouts import JudgedPair, sample_answers

PHOTOS = 10


@dataclass(frozen=True)
class Map:
    """Attention over a photo's tokens [rows x columns], row by row; it sums to 1."""

    rows: int
    columns: int
    shares: Sequence[float]


@dataclass(frozen=True)
class Answer:
    """An answer about a photo and `other`, which is `of` a class; `same` is the truth, `verdict` whether the answer is
    right, wrong, cut off or unreadable. `alpha`: None where it writes no value about the photo.
    """

    other: Picture
    of: str
    same: bool
    text: str
    verdict: str
    alpha: Map | None


@dataclass(frozen=True)
class Mapped:
    """A photo with its class and listing, the pooler's attention, and what was answered about it (None: nothing)."""

    picture: Picture
    of: str
    listing: str
    beta: Map
    answer: Answer | None


def mapped_photos(saga: Saga, plan: Plan) -> list[Mapped]:
    """Return PHOTOS photos of the validation split (of the training split where it has none), always the same ones."""
    photos = plan.photos.validation if plan.photos.validation.photos else plan.photos.train
    order = by_chance(photos, plan.settings.vision.seed)
    chosen = one_by_class(photos, order)[:PHOTOS]
    partners = [partner(photos, i, order) for i in chosen] if plan.asks else []
    numbers = list(dict.fromkeys([*chosen, *partners]))
    labelled = [photos.photos[i] for i in numbers]
    pictures = [saga.judge.load_image(each.photo.path, plan.settings.catalog) for each in labelled]
    with torch.no_grad():
        rows = _features(saga, pictures)
        pooled = saga.pooler(saga.last_level(rows))
    grids = torch.tensor([(1, *picture.grid) for picture in pictures], device=saga.device)
    found: list[Answer | None] = [None] * len(chosen)
    if plan.asks:
        own = [numbers.index(i) for i in partners]
        pairs = _pairs([each.label for each in labelled], own, pooled.vectors.cpu().numpy())
        still = Photos(rows, grids)
        asked = sample_answers(saga, still, pairs, None)
        found = [answer_about(saga, still, each, pictures, labelled, photos.classes) for each in asked]
    return [
        Mapped(
            pictures[i], photos.classes[labelled[i].label], labelled[i].listing, _map(saga, pictures[i], beta), answer
        )
        for i, (beta, answer) in enumerate(zip(pooled.beta, found, strict=False))
    ]


def by_chance(photos: PhotoSet, seed: int) -> list[int]:
    """Return the numbers of all photos in an order that follows from the seed."""
    keys = [hash_json([seed, photo.photo.content]) for photo in photos.photos]
    return sorted(range(len(keys)), key=keys.__getitem__)


def one_by_class(photos: PhotoSet, order: Sequence[int]) -> list[int]:
    """Return `order` rearranged: a photo of each class, then another of each, and so on; no product a second time
    before all others were there.
    """
    met, classes, turns = Counter[str](), Counter[tuple[int, int]](), list[tuple[int, int, int, int]]()
    for place, i in enumerate(order):
        photo = photos.photos[i]
        again = met[photo.identity]
        turns.append((again, classes[photo.label, again], place, i))
        met[photo.identity] += 1
        classes[photo.label, again] += 1
    return [i for *_, i in sorted(turns)]


def partner(photos: PhotoSet, number: int, order: Sequence[int]) -> int:
    """Return the first other photo of the same class, of another listing where there is one."""
    photo = photos.photos[number]
    own = [i for i in order if i != number and photos.photos[i].label == photo.label]
    return next((i for i in own if photos.photos[i].listing != photo.listing), own[0])


def answer_about(
    saga: Saga,
    photos: Photos,
    asked: JudgedPair,
    pictures: Sequence[Picture],
    labelled: Sequence[LabelledPhoto],
    classes: Sequence[str],
) -> Answer:
    """Return the first answer about a pair of `photos` with its attention to the first one."""
    first, second, same = asked.pair
    read = asked.read[0].same
    right = "right" if asked.rewards[0] > 0 else "cut off" if read == same else "wrong"
    alphas = [each.attention for each in attention_of(saga, photos, asked) if each.photo == first]
    return Answer(
        pictures[second],
        classes[labelled[second].label],
        same,
        asked.texts[0],
        "unreadable" if read is None else right,
        _map(saga, pictures[first], alphas[0]) if alphas and bool(alphas[0].any()) else None,
    )


def _features(saga: Saga, pictures: Sequence[Picture]) -> list[Tensor]:
    size = saga.settings.chunk_photos
    parts = [pictures[i : i + size] for i in range(0, len(pictures), size)]
    return [row for part in parts for row in saga.features(saga.judge.vision.show(part))]


def _pairs(labels: Sequence[int], partners: Sequence[int], vectors: NDArray[np.float32]) -> list[Pair]:
    """Return a pair with each of the first photos: with its partner, or with the nearest of another class, in turn."""
    kinds, pairs = np.asarray(labels), list[Pair]()
    for i, other in enumerate(partners):
        wrong = kinds != kinds[i]
        if i % 2 and wrong.any():
            pairs.append((i, int(np.where(wrong, vectors @ vectors[i], -np.inf).argmax()), False))
        else:
            pairs.append((i, other, True))
    return pairs


def _map(saga: Saga, picture: Picture, attention: Tensor) -> Map:
    return Map(*saga.judge.processor.token_grid(picture.grid), attention.tolist())
