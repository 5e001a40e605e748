"""One space for texts and photos whose encoders never met, joined by a catalog's own pairs; and one vector of it all.

    joint    P = Cxx^(-1/2) U_k,   Q = Cyy^(-1/2) V_k,   U S V' = SVD of Cxx^(-1/2) Cxy Cyy^(-1/2)
             C..  covariances over the training pairs, e added to the diagonals of Cxx and Cyy
             regularised canonical correlation analysis (Hotelling 1936, Vinod 1976); k = 128, e = 0.01
             x = unit (features, words) of the title, y = unit (features, colours in 512 cells) of the photos, both
             less their mean

    words    h(text)[bucket(t)] += sign(t) sqrt(idf(t)) f (1 + k1) / (f + k1),  scaled to length 1
             bucket and sign from a hash of the token t, f how often it stands there: two such vectors' inner product
             is about the cosine of two texts weighted as by BM25, with an error of about 1 / sqrt(buckets)

    vector   v = unit(sqrt(w_b) block_b for each block b that the item has),   block_b of length 1
             blocks: words, text, photo, colours, joint;  the weights w_b sum to 1

So one inner product is the weighted sum of similarities of what both sides have, and index, filters, search by a
listing and duplicates need not know that there are blocks. A listing with text and photos has its photos in `joint`, as
its text stands beside it; a query of words alone has zeros where photos would be.

Departures: `f` is not measured against the length of the text, since vectors have length 1 anyway.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..retrieval.bm25 import K1, tokenize

Floats = NDArray[np.float32]
BLOCKS = ("words", "text", "photo", "colors", "joint")
BUCKETS, JOINT, RIDGE = 2048, 128, 0.01
LABELS = ("title: ", "brand: ", "category: ", "description: ", "attributes: ")


def unit(rows: NDArray[Any]) -> Floats:
    """Return `rows` [n, d] scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@dataclass(frozen=True)
class Projections:
    """What brings unit text features [n, x] and unit photo features with colours [n, y] into the joint space."""

    text_mean: Floats
    text: Floats
    """[x, k]"""
    photo_mean: Floats
    photo: Floats
    """[y, k]"""

    def of_text(self, rows: NDArray[Any]) -> Floats:
        """Return [n, k] of length 1."""
        return unit((rows - self.text_mean) @ self.text)

    def of_photo(self, rows: NDArray[Any]) -> Floats:
        """Return [n, k] of length 1."""
        return unit((rows - self.photo_mean) @ self.photo)


def canonical(texts: NDArray[Any], photos: NDArray[Any], ridge: float = RIDGE, k: int = JOINT) -> Projections:
    """Fit the projections on paired rows [n, x] and [n, y], n >= 2."""
    means = texts.mean(0), photos.mean(0)
    x, y = (texts - means[0]).astype(np.float64), (photos - means[1]).astype(np.float64)
    whiten_x, whiten_y = _inverse_root(x.T @ x / len(x), ridge), _inverse_root(y.T @ y / len(y), ridge)
    left, _, right = np.linalg.svd(whiten_x @ (x.T @ y / len(x)) @ whiten_y, full_matrices=False)
    made = means[0], whiten_x @ left[:, :k], means[1], whiten_y @ right[:k].T
    return Projections(*(np.ascontiguousarray(each, dtype=np.float32) for each in made))


def _inverse_root(covariance: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    made: NDArray[np.float64] = (vectors / np.sqrt(np.maximum(values, 0) + ridge)) @ vectors.T
    return made


def words_of(text: str) -> Counter[str]:
    """Count the tokens of a product text or a query; the names of its fields, which all listings share, are none."""
    lines = text.split("\n")
    return Counter(token for line in lines for token in tokenize(_without_label(line)))


def _without_label(line: str) -> str:
    start = line[:16].casefold()
    return next((line[len(label) :] for label in LABELS if start.startswith(label)), line)


def plain_text(text: str) -> str:
    """Return product text without the names of its fields: what an encoder of sentences was trained to read."""
    return "\n".join(_without_label(line) for line in text.split("\n"))


def title_of(text: str) -> str:
    """Return the title of a product text; all of a text that has none, such as a query."""
    first = text.split("\n", 1)[0]
    return first if first[: len(LABELS[0])].casefold() == LABELS[0] else text


def bucket_idf(texts: Iterable[Counter[str]]) -> Floats:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)) of each bucket [BUCKETS], where n of the N texts have a token in it."""
    held, count = np.zeros(BUCKETS), 0
    for words in texts:
        held[list({_place(word)[0] for word in words})] += 1
        count += 1
    return np.log(1 + (count - held + 0.5) / (held + 0.5)).astype(np.float32)


def word_vectors(texts: Sequence[Counter[str]], idf: Floats) -> Floats:
    """Return [n, BUCKETS] of length 1, zeros where there is no word."""
    made = np.zeros((len(texts), BUCKETS), np.float32)
    for row, words in enumerate(texts):
        for word, times in words.items():
            bucket, sign = _place(word)
            made[row, bucket] += sign * np.sqrt(idf[bucket]) * times * (1 + K1) / (times + K1)
    return unit(made)


@lru_cache(200_000)
def _place(word: str) -> tuple[int, int]:
    digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
    return digest % BUCKETS, 1 if digest >> 31 else -1


def combined(blocks: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Return the vectors [n, d] of `blocks`, each [n, d_b] with rows of length 1 or 0."""
    return unit(np.concatenate([np.sqrt(weights[name]) * blocks[name] for name in BLOCKS if name in blocks], axis=1))


def similarities(queries: Mapping[str, Floats], products: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Return the inner products [q, p] of `combined` vectors, from the blocks' own."""
    made: Floats = combined(queries, weights) @ combined(products, weights).T
    return made
