"""How much the attributes of two products share: the B_ij of AGCL.

    B_ij = sum over the tokens t of query i of  idf(t) * f(t,j) * (k1 + 1) / (f(t,j) + k1 * (1 - b + b * |j| / avgdl))
    idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

The statistics (f, |j|, avgdl, n) are rank-bm25's BM25Okapi over the attributes of the whole training corpus, k1 = 1.5,
b = 0.75, fitted once and frozen for the run. Its own idf is replaced by Lucene's, which is never negative: with a
negative one, common values would pull every score far below 0 and tanh would make all weights alike, AGCL silently off.

Tokens are the words of the values ("values") or whole key=value pairs ("pairs"), never keys alone: every product has a
colour. What each token adds to a product's score is kept in one sparse matrix by product, so that the pairs of a batch
cost one small product of matrices instead of a loop over the corpus.

Ours, off by default: `normalise` divides B_ij by B_ii (raw scores of pairs that share two values saturate the tanh, so
that the weight is nearly a switch), `scale` multiplies what goes into the tanh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..retrieval.bm25 import idf, tokenize

Tokens = Literal["values", "pairs"]
Rows = Sequence[int] | NDArray[np.int64]


def attribute_tokens(attributes: Mapping[str, str], tokens: Tokens = "values") -> list[str]:
    """The tokens of a product's attributes: {"colour": "navy blue"} -> ["navy", "blue"], or ["colour=navy blue"]."""
    if tokens == "values":
        return [token for value in attributes.values() for token in tokenize(value)]
    pairs = [(" ".join(tokenize(key)), " ".join(tokenize(value))) for key, value in attributes.items()]
    return [f"{key}={value}" for key, value in pairs if value]


@dataclass(frozen=True)
class Sparse:
    """Rows of (token, number), as in a CSR matrix: row i is `tokens[starts[i]:starts[i + 1]]` with its `values`."""

    starts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    values: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """(position in `rows`, token, value) of every entry of these rows."""
        first, count = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        position = np.repeat(np.arange(len(rows)), count)
        inside = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        at = np.repeat(first, count) + inside
        return position, self.tokens[at], self.values[at]


@dataclass(frozen=True)
class Lexical:
    """BM25 between the products of a training corpus. `build_lexical` makes it.

    `counts` holds how often a product, as a query, names a token; `weights` what the token adds to it as a candidate.
    """

    counts: Sparse
    weights: Sparse
    by_token: Sparse
    """`weights` turned: row = token, entries = products."""
    normalise: bool
    scale: float

    def __len__(self) -> int:
        return len(self.counts.starts) - 1

    def raw(self, queries: Rows, candidates: Rows) -> NDArray[np.float64]:
        """BM25 scores [n, m] of rows of the corpus against rows of the corpus."""
        q_at, q_tokens, q_counts = self.counts.take(np.asarray(queries, dtype=np.int64))
        c_at, c_tokens, c_weights = self.weights.take(np.asarray(candidates, dtype=np.int64))
        # Only tokens on both sides count; numbered from 0, so that the two matrices stay as narrow as the batch.
        number = np.full(int(max(q_tokens.max(initial=0), c_tokens.max(initial=0))) + 1, -1, dtype=np.int64)
        here = np.unique(q_tokens)
        number[here] = np.arange(len(here))
        shared = number[c_tokens] >= 0
        left = np.zeros((len(queries), len(here)))
        right = np.zeros((len(here), len(candidates)))
        left[q_at, number[q_tokens]] = q_counts
        right[number[c_tokens[shared]], c_at[shared]] = c_weights[shared]
        product: NDArray[np.float64] = left @ right
        return product

    def scores(self, queries: Rows, candidates: Rows) -> NDArray[np.float64]:
        """What goes into the tanh, [n, m]: `raw`, normalised and scaled as the run wants it."""
        raw = self.raw(queries, candidates)
        if self.normalise:
            own = self.self_scores(queries)
            raw = np.divide(raw, own[:, None], out=np.zeros_like(raw), where=own[:, None] > 0)
        return raw * self.scale

    def self_scores(self, rows: Rows) -> NDArray[np.float64]:
        """BM25 of each row against itself, [n]."""
        found = np.zeros(len(rows))
        for i, row in enumerate(rows):
            here = slice(self.counts.starts[row], self.counts.starts[row + 1])
            found[i] = self.counts.values[here] @ self.weights.values[here]
        return found

    def against_all(self, row: int) -> NDArray[np.float64]:
        """`raw` of one product's attributes against the whole corpus, [n]."""
        total = np.zeros(len(self))
        for at in range(self.counts.starts[row], self.counts.starts[row + 1]):
            token = self.counts.tokens[at]
            holders = slice(self.by_token.starts[token], self.by_token.starts[token + 1])
            total[self.by_token.tokens[holders]] += self.counts.values[at] * self.by_token.values[holders]
        return total

    def described(self, row: int) -> bool:
        """Whether the product has any attribute token."""
        return bool(self.counts.starts[row + 1] > self.counts.starts[row])


def build_lexical(corpus: Sequence[Sequence[str]], *, normalise: bool = False, scale: float = 1.0) -> Lexical:
    """Fit the statistics over the tokens of all products ([] where there are no attributes) and keep the matrix."""
    if any(corpus):
        statistics = lucene_bm25(corpus)
        number = {token: i for i, token in enumerate(statistics.idf)}
        lengths = np.asarray(statistics.doc_len, dtype=np.float64)
        norm = statistics.k1 * (1 - statistics.b + statistics.b * lengths / statistics.avgdl)
        frequencies, k1, weight = statistics.doc_freqs, statistics.k1, list(statistics.idf.values())
    else:
        number, norm, frequencies, k1, weight = {}, np.zeros(len(corpus)), [{}] * len(corpus), 1.5, []
    starts = np.concatenate([[0], np.cumsum([len(each) for each in frequencies])]).astype(np.int64)
    tokens = np.fromiter((number[token] for each in frequencies for token in each), np.int32, int(starts[-1]))
    count = np.fromiter((n for each in frequencies for n in each.values()), np.float64, int(starts[-1]))
    rows = np.repeat(np.arange(len(corpus)), np.diff(starts))
    added = np.asarray(weight)[tokens] * count * (k1 + 1) / (count + norm[rows]) if len(tokens) else np.zeros(0)
    order = np.argsort(tokens, kind="stable")
    holders = np.concatenate([[0], np.cumsum(np.bincount(tokens, minlength=len(number)))]).astype(np.int64)
    return Lexical(
        counts=Sparse(starts, tokens, count),
        weights=Sparse(starts, tokens, added),
        by_token=Sparse(holders, rows[order].astype(np.int32), added[order]),
        normalise=normalise,
        scale=scale,
    )


def lucene_bm25(corpus: Sequence[Sequence[str]]) -> Any:
    """rank-bm25's BM25Okapi over `corpus`, its idf replaced by one that is never negative."""
    from rank_bm25 import BM25Okapi

    fitted = BM25Okapi([list(tokens) for tokens in corpus])
    holders: dict[str, int] = {}
    for each in fitted.doc_freqs:
        for token in each:
            holders[token] = holders.get(token, 0) + 1
    fitted.idf = {token: idf(len(corpus), held) for token, held in holders.items()}
    return fitted
