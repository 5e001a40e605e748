"""BM25, once for all: product text in search and eval, attributes in AGCL, the words of listings in dedupe.

    score(q, d) = sum over the tokens t of q of  idf(t) * f(t,d) * (k1 + 1) / (f(t,d) + k1 * (1 - b + b * |d| / avgdl))
    idf(t)      = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

f(t,d) is how often d holds t, n(t) how many of the N documents do. The statistics (f, |d|, avgdl) and k1 = 1.5,
b = 0.75 are rank-bm25's BM25Okapi. One departure: its idf can be negative for words in more than half of the catalog
and is then replaced by a quarter of the mean idf, so that a common word can outweigh a rare one in a small catalog;
ours is Lucene's, which is never negative. What each token adds to a document stands in one sparse matrix: a score is
a sum over rows of it, and those of many pairs one product of sparse matrices.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[int] | NDArray[np.int64]
K1, B = 1.5, 0.75
"""Those of rank-bm25."""

_CJK = "々-〇぀-ヿㇰ-ㇿ㐀-䶿一-鿿豈-\ufaff가-힯\U00020000-\U000323af"
_THAI = "\u0e00-\u0e4e\u0e80-\u0ece\u1000-\u1049\u1050-\u109f\u1780-\u17d3"  # and Lao, Burmese, Khmer
_MARKS = "".join(c for c in map(chr, range(0x300, 0x1E00)) if unicodedata.category(c).startswith("M"))
"""Signs that belong to the letter before them, such as the vowels of Hindi; to `re` they are no part of a word."""
_WORD = re.compile(rf"[{_CJK}]+|[{_THAI}]+|(?:[^\W_{_CJK}{_THAI}][{_MARKS}]*)+")
_UNSPACED = re.compile(rf"[{_CJK}{_THAI}]")
_UNIT = re.compile(rf"[เ-ไເ-ໄ]?.[{_MARKS}]*[ะาๅະາ]?")
"""A letter with its vowels: some Thai ones are written before it, some after it."""
_ACCENT = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
"""Of Latin, Greek, Cyrillic, Hebrew and Arabic; elsewhere marks are vowels and make another word."""
_PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "æ": "ae", "œ": "oe"})  # no accent to take
_ASCII_WORD = re.compile("[a-z0-9]+")
_INVISIBLE = re.compile("[\u00ad\u0640\u200c\u200d\u2060\ufeff]")  # soft hyphen, tatweel, joiners


def tokenize(text: str, *, fold_accents: bool = True) -> list[str]:
    """Return lower-case words and numbers of `text`; "V-neck 900D" -> ["v", "neck", "900d"].

    Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese, which put no space between words or put it elsewhere,
    become single characters (a letter with its vowels) and pairs of neighbours. `fold_accents` reads "Éclair" as
    "eclair" and "Łódź" as "lodz".
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    if fold_accents:
        text = _fold(text)
    tokens: list[str] = []
    for word in _WORD.findall(text):
        if _UNSPACED.match(word):
            units = _UNIT.findall(word)
            tokens += [*units, *map("".join, pairwise(units))]
        else:
            tokens.append(word)
    return tokens


def _fold(text: str) -> str:
    # The breve of Cyrillic й makes another letter, not another accent, so it is kept.
    decomposed = unicodedata.normalize("NFD", text).replace("и\u0306", "й")
    return unicodedata.normalize("NFC", _ACCENT.sub("", decomposed).translate(_PLAIN))


@dataclass(frozen=True)
class Bm25:
    """A fitted corpus of n documents as scipy.sparse CSR arrays [n, tokens]: `counts` are f(t,d), `weights` what a
    token adds to the score of a document. `fit_bm25` makes it.
    """

    column: Mapping[str, int]
    """The number of each token."""
    counts: Any
    weights: Any

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    @cached_property
    def _by_token(self) -> Any:
        return self.weights.T.tocsr()

    def scores(self, tokens: Iterable[str]) -> NDArray[np.float64]:
        """Score all documents [n], in their order; a token that stands twice counts twice."""
        times = Counter(token for token in tokens if token in self.column)
        return self._sum([(self.column[token], count) for token, count in times.items()])

    def against_all(self, row: int) -> NDArray[np.float64]:
        """Score all documents [n] with document `row` as the query."""
        own = slice(*self.counts.indptr[row : row + 2])
        return self._sum(zip(self.counts.indices[own], self.counts.data[own], strict=True))

    def _sum(self, query: Iterable[tuple[int, float]]) -> NDArray[np.float64]:
        total = np.zeros(len(self))
        for column, count in query:
            held = slice(*self._by_token.indptr[column : column + 2])
            total[self._by_token.indices[held]] += count * self._by_token.data[held]
        return total

    def pairs(self, queries: Rows, candidates: Rows) -> NDArray[np.float64]:
        """Score documents against documents [q, c], each of `queries` as the query."""
        found: NDArray[np.float64] = (self.counts[_rows(queries)] @ self.weights[_rows(candidates)].T).toarray()
        return found

    def self_scores(self, rows: Rows) -> NDArray[np.float64]:
        """Score each of `rows` against itself, [rows]."""
        rows = _rows(rows)
        return np.asarray(self.counts[rows].multiply(self.weights[rows]).sum(axis=1), dtype=np.float64).ravel()


def fit_bm25(corpus: Sequence[Sequence[str]]) -> Bm25:
    """Fit the statistics of tokenised documents; an empty corpus, or one of empty documents, scores 0 everywhere."""
    if not any(corpus):
        nothing = count_matrix([{} for _ in corpus], {})
        return Bm25({}, nothing, nothing)
    from rank_bm25 import BM25Okapi

    frequencies: list[dict[str, int]] = BM25Okapi(corpus).doc_freqs
    column = {token: i for i, token in enumerate(dict.fromkeys(token for each in frequencies for token in each))}
    counts = count_matrix(frequencies, column)
    return Bm25(column, counts, weigh(counts, idf(counts)))


def count_matrix(frequencies: Sequence[Mapping[str, int]], column: Mapping[str, int]) -> Any:
    """Write how often each document holds each token as a CSR array [n, tokens] of float64."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, frequencies)])
    tokens = np.fromiter((column[token] for each in frequencies for token in each), np.int32, int(ends[-1]))
    data = np.fromiter((n for each in frequencies for n in each.values()), np.float64, int(ends[-1]))
    made = csr_array((data, tokens, ends), shape=(len(frequencies), max(1, len(column))))
    made.sort_indices()
    return made


def idf(counts: Any) -> NDArray[np.float64]:
    """Compute Lucene's inverse document frequency of each column of `counts` [n, tokens]: above 0."""
    holders = np.bincount(counts.indices, minlength=counts.shape[1])
    found: NDArray[np.float64] = np.log(1 + (counts.shape[0] - holders + 0.5) / (holders + 0.5))
    return found


def weigh(counts: Any, idf: NDArray[np.floating]) -> Any:
    """Compute what each token adds to the score of each document, for `counts` [n, tokens], in their precision."""
    made, length, frequency = counts.copy(), counts.sum(axis=1), counts.data
    norm = K1 * (1 - B + B * length / max(float(length.mean()), 1e-9))
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    made.data = (idf[counts.indices] * frequency * (K1 + 1) / (frequency + norm[row])).astype(counts.dtype)
    return made


def _rows(rows: Rows) -> NDArray[np.int64]:
    return np.asarray(rows, dtype=np.int64)
