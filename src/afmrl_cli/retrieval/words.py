"""The words of all listings, as a stored index: BM25 of any query without a pass over the listings.

    score(q, d) = sum over the tokens t of q of  weight(t, d)            the very weights of `bm25`

Each token has a number of 64 bits, its hash, in one sorted array; beside it stand the rows that hold it and what it
adds to their scores. So the index is a few arrays that are read as they are, and a query looks at the rows of its own
tokens alone. Two tokens of a catalog with one hash would count as one: of a million tokens that happens once in 40
million catalogs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bm25 import fit_bm25


@dataclass(frozen=True)
class Words:
    """An index of n listings: `hashes` uint64 [t] of the tokens, sorted; token i stands in `rows` int32 [p] from
    `ends[i]` to `ends[i + 1]`, with its `weights` float32 [p].
    """

    count: int
    hashes: NDArray[np.uint64]
    ends: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return self.count

    def scores(self, tokens: Iterable[str]) -> NDArray[np.float32]:
        """Score all listings [n]; a token that stands twice counts twice."""
        total = np.zeros(self.count, dtype=np.float32)
        for token, times in Counter(tokens).items():
            held = self._held(token)
            total[self.rows[held]] += times * self.weights[held]
        return total

    def _held(self, token: str) -> slice:
        number = token_hash(token)
        place = int(np.searchsorted(self.hashes, number))
        if place == len(self.hashes) or self.hashes[place] != number:
            return slice(0, 0)
        return slice(int(self.ends[place]), int(self.ends[place + 1]))


def token_hash(token: str) -> np.uint64:
    """Return the number of a token."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big"))


def index_words(corpus: Sequence[Sequence[str]]) -> Words:
    """Index tokenised listings."""
    fitted = fit_bm25(corpus)
    by_token = fitted.weights.T.tocsr()
    hashes = np.fromiter(map(token_hash, fitted.column), np.uint64, len(fitted.column))
    order = np.argsort(hashes)
    sizes = np.diff(by_token.indptr)[order] if len(order) else np.zeros(0, dtype=np.int64)
    starts = by_token.indptr[:-1][order] if len(order) else sizes
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # Where each posting of the sorted tokens lies among those of the unsorted ones.
    places = np.repeat(starts - ends[:-1], sizes) + np.arange(int(ends[-1]))
    rows, weights = by_token.indices[places], by_token.data[places]
    return Words(len(corpus), hashes[order], ends, rows.astype(np.int32), weights.astype(np.float32))
