"""What speaks for and against a pair of listings being one product, as numbers in 0..1; 0 where there is nothing to
say.

vector          cosine of the stored vectors, those below 0 as 0
vector_gap      by how much that is below the best of either listing's candidates
text            cosine of the BM25-weighted words of title, brand and description
text_gap        as vector_gap
title           share of the titles' words that both have, each by its idf; title_cosine: its cosine
title_within    share of the shorter title's words that the other has, each by its idf
title_length    the shorter title's number of words, of the longer one's
letters         cosine of the titles' groups of three letters: other spellings
rare            idf of the rarest word that both titles have; rare_other: of the rarest that only one has, and that of
                the other, the lower of the two; rare_either: the higher
same_title      both titles are the same
crowd           same_title, and how many more listings have it (0 for two, 1 for 32): variants under one title
code            a code in common, by its rarity;  model_other: the rarest code that only one title has, and that of the
                other, the lower of the two: another model number
column_code     a column with MPN or EAN agrees;  column_code_other: it does not
numbers         share of the titles' numbers that both have; numbers_other: how many each has that the other has not
colour_other    both name colours, and none in common; size_other: in how many kinds of size they conflict (variants.py)
attribute       share of the attributes filled on both sides that agree, by rarity; attribute_other: how many do not
price           ratio of the prices, 0 when one is half of the other;  price_other: the opposite
photo_same      the same picture (also in another size or compression)
photo_shape, photo_colour  of the two most alike photos;  photo_other: both have photos, and none are alike
reranker        how probable the trained reranker finds it (reread.py);  reranker_other: that it is not
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..retrieval.narrow import Matrix
from .listings import ListingColumns
from .photos import Photos
from .variants import Facts
from .words import Words, scaled, unit_rows

_NAMES = (
    "vector vector_gap text text_gap title title_cosine title_within title_length letters rare rare_other rare_either "
    "same_title crowd code model_other column_code column_code_other numbers numbers_other colour_other size_other "
    "attribute attribute_other price price_other photo_same photo_shape photo_colour photo_other"
)
NAMES = tuple(_NAMES.split())
RERANKER_NAMES = ("reranker", "reranker_other")
"""Two columns more, where the reranker was asked."""
ROWS = 100_000
NUMBERS = 16_000_000
"""Numbers of vectors that are taken at a time for either side: 64 MB."""
CROWDED = 32
SAME_PICTURE = 0.97
Column = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Sources:
    """All that features are computed from. `photos` None: no photo was opened."""

    listings: ListingColumns
    words: Words
    vectors: Matrix | None
    """The stored matrix [m, d], memory-mapped, never copied as a whole; None: no vectors."""
    vector_row: Rows
    """[n]: each listing's row in `vectors`, -1 for none."""
    photos: Photos | None

    def cosines(self, a: Rows, b: Rows) -> Column:
        """Compute the cosine of the vectors of each pair, those below 0 as 0; 0 where a listing has none."""
        made = np.zeros(len(a), dtype=np.float32)
        if self.vectors is None:
            return made
        both = np.flatnonzero((self.vector_row[a] >= 0) & (self.vector_row[b] >= 0))
        step = max(1, NUMBERS // self.vectors.shape[1])
        for start in range(0, len(both), step):
            part = both[start : start + step]
            left, right = (self.vectors[self.vector_row[rows[part]]] for rows in (a, b))
            made[part] = np.maximum(np.einsum("ij,ij->i", left, right), 0)
        return made


def pair_features(
    sources: Sources, pairs: Rows, candidates: Rows | None = None, of_candidates: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Compute float32 [p, len(NAMES)]. Gaps are taken to the best of the catalog's `candidates` with their features;
    without, to the best of `pairs` themselves.
    """
    comparer = _Comparer(sources)
    parts = [comparer.features(pairs[start : start + ROWS]) for start in range(0, len(pairs), ROWS)]
    made = np.concatenate(parts) if parts else np.zeros((0, len(NAMES)), dtype=np.float32)
    if candidates is None or of_candidates is None:
        candidates, of_candidates = pairs, made
    for name, gap in (("vector", "vector_gap"), ("text", "text_gap")):
        at = NAMES.index(name)
        best = np.zeros(len(sources.listings), dtype=np.float32)
        for side in (0, 1):
            np.maximum.at(best, candidates[:, side], of_candidates[:, at])
        top = np.maximum(best[pairs[:, 0]], best[pairs[:, 1]])
        made[:, NAMES.index(gap)] = np.maximum(0, top - made[:, at])
    return made


class _Comparer:
    def __init__(self, sources: Sources) -> None:
        self.sources, words = sources, sources.words
        self._text = unit_rows(words.bm25)
        self._title = scaled(words.title, np.sqrt(words.idf))
        self._title_unit = unit_rows(scaled(words.title, words.idf))
        self._rare = scaled(words.title, words.idf / np.float32(np.log(len(sources.listings) + 2)))
        self._length = np.diff(words.title.indptr)
        self._weight = np.asarray(self._title.multiply(self._title).sum(axis=1)).ravel()
        self._codes = scaled(words.codes, np.sqrt(words.code_idf / np.log(len(sources.listings) + 2)))
        self._title_codes = scaled(words.title_codes, words.code_idf / np.float32(np.log(len(sources.listings) + 2)))
        self._numbers = np.diff(words.numbers.indptr).astype(np.float32)
        self._column_codes = _ColumnCodes(sources.listings)
        self._facts = Facts(sources.listings.facts)
        self._attributes = [_Attribute(values) for values in sources.listings.attributes.values()]
        names: dict[str, int] = {}
        titles = [" ".join(product.title.casefold().split()) for product in sources.listings.products]
        self._title_id = np.array([names.setdefault(t, len(names)) if t else -1 for t in titles], dtype=np.int64)
        self._holders = np.bincount(self._title_id[self._title_id >= 0], minlength=len(names) or 1)

    def features(self, pairs: Rows) -> NDArray[np.float32]:
        """Return the features [pairs, NAMES] of `pairs` [pairs, 2] of rows; 0 where a listing lacks what is
        compared.
        """
        a, b = pairs[:, 0], pairs[:, 1]
        columns: dict[str, Any] = {"vector": self.sources.cosines(a, b)}
        columns |= self._of_text(a, b) | self._of_codes(a, b) | self._of_attributes(a, b) | self._of_photos(a, b)
        columns |= _of_prices(self.sources.listings.prices[a], self.sources.listings.prices[b])
        made = np.zeros((len(pairs), len(NAMES)), dtype=np.float32)
        for name, values in columns.items():
            made[:, NAMES.index(name)] = values
        return made

    def _of_text(self, a: Rows, b: Rows) -> dict[str, Column]:
        shared = _dot(self._title, a, b)
        left, right = self._weight[a], self._weight[b]
        same = (self._title_id[a] == self._title_id[b]) & (self._title_id[a] >= 0)
        more = np.log2(np.maximum(self._holders[np.maximum(self._title_id[a], 0)], 2) / 2) / np.log2(CROWDED / 2)
        return {
            "text": _dot(self._text, a, b),
            "title": _ratio(shared, left + right - shared),
            "title_cosine": _dot(self._title_unit, a, b),
            "title_within": _ratio(shared, np.minimum(left, right)),
            "title_length": _ratio(
                np.minimum(self._length[a], self._length[b]), np.maximum(self._length[a], self._length[b])
            ),
            "letters": _dot(self.sources.words.letters, a, b),
            "same_title": same.astype(np.float32),
            "crowd": np.where(same, np.minimum(more, 1), 0).astype(np.float32),
            **self._of_rare_words(a, b),
        }

    def _of_rare_words(self, a: Rows, b: Rows) -> dict[str, Column]:
        title = self.sources.words.title
        left, right = self._rare[a], self._rare[b]
        shared = left.multiply(title[b]).tocsr()
        own = [_highest((left - shared).tocsr()), _highest((right - right.multiply(title[a])).tocsr())]
        return {"rare": _highest(shared), "rare_other": np.minimum(*own), "rare_either": np.maximum(*own)}

    def _of_codes(self, a: Rows, b: Rows) -> dict[str, Column]:
        words = self.sources.words
        code = _dot(self._codes, a, b)
        numbers = _dot(words.numbers, a, b)
        left_codes, right_codes = self._title_codes[a], self._title_codes[b]
        shared_codes = left_codes.multiply(words.title_codes[b]).tocsr()
        left, right = self._numbers[a], self._numbers[b]
        own = np.minimum(left - numbers, right - numbers)
        columns, columns_other = self._column_codes.compare(a, b)
        colour, size = self._facts.conflicts(a, b)
        return {
            "code": np.minimum(code, 1),
            "model_other": np.minimum(_highest(left_codes - shared_codes), _highest(right_codes - shared_codes)),
            "column_code": columns,
            "column_code_other": columns_other,
            "numbers": _ratio(numbers, left + right - numbers),
            "numbers_other": (1 - 0.5**own).astype(np.float32),
            "colour_other": colour,
            "size_other": size,
        }

    def _of_attributes(self, a: Rows, b: Rows) -> dict[str, Column]:
        same, filled, other = (np.zeros(len(a), dtype=np.float32) for _ in range(3))
        for attribute in self._attributes:
            agree, differ = attribute.compare(a, b)
            same += np.where(agree, attribute.rarity[attribute.values[a]], 0)
            filled += np.where(agree | differ, attribute.rarity[attribute.values[a]], 0)
            other += differ
        return {"attribute": _ratio(same, filled), "attribute_other": (1 - 0.5**other).astype(np.float32)}

    def _of_photos(self, a: Rows, b: Rows) -> dict[str, Column]:
        photos = self.sources.photos
        if photos is None:
            return {}
        shape, colour = photos.alike(a, b)
        both = (photos.count[a] > 0) & (photos.count[b] > 0)
        alike = np.minimum(shape, colour)
        return {
            "photo_same": (alike >= SAME_PICTURE).astype(np.float32),
            "photo_shape": shape,
            "photo_colour": colour,
            "photo_other": np.where(both, 1 - alike, 0).astype(np.float32),
        }


class _ColumnCodes:
    """Codes by column, as numbers: two listings agree in a column or not."""

    def __init__(self, listings: ListingColumns) -> None:
        keys = sorted({code.split("=", 1)[0] for codes in listings.codes for code in codes})
        self._columns = []
        for key in keys:
            numbers: dict[str, int] = {}
            own = [next((c for c in codes if c.startswith(f"{key}=")), "") for codes in listings.codes]
            self._columns.append(np.array([numbers.setdefault(c, len(numbers)) if c else -1 for c in own]))

    def compare(self, a: Rows, b: Rows) -> tuple[Column, Column]:
        same, other = np.zeros(len(a), dtype=bool), np.zeros(len(a), dtype=bool)
        for column in self._columns:
            both = (column[a] >= 0) & (column[b] >= 0)
            same |= both & (column[a] == column[b])
            other |= both & (column[a] != column[b])
        return same.astype(np.float32), (other & ~same).astype(np.float32)


class _Attribute:
    """One key: values as numbers (0: none). Cells that list several values agree when they are the same, differ when
    they have nothing in common, and say nothing between."""

    def __init__(self, cells: list[str]) -> None:
        numbers = {"": 0}
        self.values = np.array([numbers.setdefault(cell, len(numbers)) for cell in cells], dtype=np.int64)
        held = np.bincount(self.values, minlength=len(numbers)).astype(np.float32)
        self.rarity = np.log(1 + held[1:].sum() / np.maximum(held, 1)).astype(np.float32)
        self._parts = [set(_split(cell)) for cell in numbers]
        self._lists = np.array([len(parts) > 1 for parts in self._parts])

    def compare(self, a: Rows, b: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        left, right = self.values[a], self.values[b]
        both = (left > 0) & (right > 0)
        agree = both & (left == right)
        differ = both & (left != right)
        for i in np.flatnonzero(differ & (self._lists[left] | self._lists[right])):
            differ[i] = not self._parts[left[i]] & self._parts[right[i]]
        return agree, differ


def _split(cell: str) -> list[str]:
    for separator in ("|", ";", ","):
        if separator in cell:
            return [part.strip() for part in cell.split(separator) if part.strip()]
    return [cell]


def _of_prices(left: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Column]:
    both = ~np.isnan(left) & ~np.isnan(right)
    ratio = np.ones(len(left))
    ratio[both] = np.minimum(left[both], right[both]) / np.maximum(left[both], right[both])
    near = np.clip(2 * ratio - 1, 0, 1)
    return {
        "price": np.where(both, near, 0).astype(np.float32),
        "price_other": np.where(both, 1 - near, 0).astype(np.float32),
    }


def _dot(matrix: Any, a: Rows, b: Rows) -> Column:
    return np.asarray(matrix[a].multiply(matrix[b]).sum(axis=1), dtype=np.float32).ravel()


def _highest(matrix: Any) -> Column:
    return np.asarray(matrix.max(axis=1).todense(), dtype=np.float32).ravel()


def _ratio(part: Any, whole: Any) -> Column:
    return np.asarray(
        np.divide(part, whole, out=np.zeros(len(part), dtype=np.float32), where=whole > 0), dtype=np.float32
    )
