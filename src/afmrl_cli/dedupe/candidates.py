"""Which pairs are compared: not all n (n - 1) / 2, but those that something brings together.

vectors   the nearest listings by the stored vectors (FAISS)
text      the nearest by BM25, each listing queried by its rarest words until `BUDGET` have been met: left
          out are the words that nearly everybody has, and the work grows with n and not with its square
same      one photo (by its bytes), one text, one code (a column with MPN or EAN, or a rare code in the title)

A pair that none of these names is not found. How many of the known duplicates they name is part of every measurement.
What many different products share (a placeholder photo, an empty text) brings no listings together, and of more than
CROWD listings that share one thing each is paired with its next few only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.photo_check import SHARED_BY
from ..catalog.product import Product
from ..retrieval.narrow import Matrix
from .listings import ListingColumns
from .neighbours import nearest_rows
from .words import Words

BUDGET = 3000
CROWD = 12
RARE_CODE = 6
"""ListingColumns that may hold a code of the title for it to bring them together."""
ROWS = 2048
Rows = NDArray[np.int64]


def find_candidates(
    listings: ListingColumns, words: Words, vectors: Matrix | None, vector_row: Rows, k: int
) -> NDArray[np.int64]:
    """Find pairs [p, 2] of rows, the lower first, each once, in order. `vectors` [m, d] may be None; `vector_row` [n]
    says which of them is a listing's, -1 for none.
    """
    found = [text_neighbours(words, k), *same_things(listings, words)]
    if vectors is not None:
        found.append(vector_neighbours(vectors, vector_row, k))
    return unique_pairs(np.concatenate(found), len(listings))


def unique_pairs(pairs: Rows, count: int) -> Rows:
    """Return `pairs` with the lower row first, each once, without a row that is paired with itself."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    keys = np.unique(low * count + high)
    made = np.stack([keys // max(count, 1), keys % max(count, 1)], axis=1)
    return np.asarray(made[made[:, 0] != made[:, 1]])


def vector_neighbours(vectors: Matrix, vector_row: Rows, k: int) -> Rows:
    """Return each listing with the k nearest others."""
    listing = np.full(len(vectors) + 1, -1, dtype=np.int64)  # of a vector; the last: FAISS's -1 for "no more"
    rows = np.flatnonzero(vector_row >= 0)
    listing[vector_row[rows]] = rows
    if len(rows) < 2:
        return np.empty((0, 2), dtype=np.int64)
    found = []
    for start, nearest in nearest_rows(vectors, k + 1):
        # One of them is the listing itself, if no vector equals its own.
        own = np.repeat(listing[start : start + len(nearest)], nearest.shape[1])
        other = listing[nearest.ravel()]
        found.append(np.stack([own, other], axis=1)[(own >= 0) & (other >= 0)])
    return np.concatenate(found)


def text_neighbours(words: Words, k: int) -> Rows:
    """Return each listing with the k others that answer best by BM25."""
    queries = _rare_words(words)
    documents = words.bm25.T.tocsr()
    found = []
    for start in range(0, queries.shape[0], ROWS):
        scores = queries[start : start + ROWS] @ documents
        found.append(_best(scores, start, k))
    return np.concatenate(found)


def _rare_words(words: Words) -> Any:
    """Return each listing's words as a query: its rarest ones until their holders add up to BUDGET, none held by it
    alone."""
    made = words.counts.copy()
    holders = np.bincount(made.indices, minlength=made.shape[1])
    row = np.repeat(np.arange(made.shape[0]), np.diff(made.indptr))
    order = np.lexsort((holders[made.indices], row))
    met = np.cumsum(holders[made.indices][order])
    before = np.concatenate([[0], met])[made.indptr[:-1]]  # what the rows before have met
    within = np.empty(len(met), dtype=np.int64)
    within[order] = met - before[row[order]]
    made.data = ((within <= BUDGET) & (holders[made.indices] > 1)).astype(np.float32)
    made.eliminate_zeros()
    return made


def _best(scores: Any, start: int, k: int) -> Rows:
    """Return the k best columns of each row of a sparse matrix, the row itself left out."""
    scores = scores.tocsr()
    found = []
    for row in range(scores.shape[0]):
        ends = slice(scores.indptr[row], scores.indptr[row + 1])
        others, score = scores.indices[ends], scores.data[ends]
        score = np.where(others == row + start, 0, score)
        if len(others) > k:
            others = others[np.argpartition(-score, k)[:k]]
        found.append(np.stack([np.full(len(others), row + start), others], axis=1))
    return np.concatenate(found).astype(np.int64)


def same_things(listings: ListingColumns, words: Words) -> list[Rows]:
    """Return pairs with one photo, one text or one code."""
    titles = [text_key(product) for product in listings.products]
    photos = distinct_photos(listings)
    codes = words.title_codes
    rare = np.bincount(codes.indices, minlength=codes.shape[1]) <= RARE_CODE
    return [
        _sharing([key] if key else [] for key in titles),
        _sharing(photos),
        _sharing(listings.codes),
        _sharing(
            codes.indices[a:b][rare[codes.indices[a:b]]] for a, b in zip(codes.indptr, codes.indptr[1:], strict=False)
        ),
    ]


def text_key(product: Product) -> str:
    """Return the listing's text, so that equal texts have equal keys; "" for none."""
    return "\n".join(" ".join(text.casefold().split()) for text in (product.title, product.description)).strip()


def distinct_photos(listings: ListingColumns) -> list[tuple[str, ...]]:
    """Return each listing's photos, but for those that many different products have: placeholders, charts of sizes."""
    products: dict[str, set[Hashable]] = {}
    for product, photos in zip(listings.products, listings.photos, strict=True):
        for photo in photos:
            products.setdefault(photo, set()).add(product.group_id or product.title.casefold() or product.identity)
    return [tuple(photo for photo in photos if len(products[photo]) < SHARED_BY) for photos in listings.photos]


def _sharing(keys: Iterable[Iterable[Hashable]]) -> Rows:
    holders: dict[Hashable, list[int]] = {}
    for row, own in enumerate(keys):
        for key in own:
            holders.setdefault(key, []).append(row)
    pairs = [pair for rows in holders.values() if len(rows) > 1 for pair in _among(rows)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _among(rows: Sequence[int]) -> list[tuple[int, int]]:
    width = len(rows) if len(rows) <= CROWD else CROWD // 2
    return [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 : i + 1 + width]]
