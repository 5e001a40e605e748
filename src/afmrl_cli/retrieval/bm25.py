"""The lexical baseline: BM25 over product text.

    score(q, d) = sum over the tokens t of q of  idf(t) * f(t,d) * (k1 + 1) / (f(t,d) + k1 * (1 - b + b * |d| / avgdl))
    idf(t)      = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

f(t,d) is how often d holds t, n(t) how many of the N documents do. The statistics (f, |d|, avgdl) and k1 = 1.5,
b = 0.75 are rank-bm25's BM25Okapi. One departure: its idf can be negative for words in more than half of the catalog
and is then replaced by a quarter of the mean idf, so that a common word can outweigh a rare one in a small catalog;
ours is Lucene's, which is never negative. Scores are read from one array per word, not by a loop over all documents.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CJK = "぀-ヿ㐀-䶿一-鿿豈-﫿가-힯"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_ACCENT = re.compile("[\u0300-\u036f]")  # Latin, Greek and Cyrillic accents; the marks of kana are no accents
_IS_CJK = re.compile(rf"[{_CJK}]")


def tokenize(text: str, *, fold_accents: bool = True) -> list[str]:
    """Lower-case words and numbers of `text`; "V-neck 900D" -> ["v", "neck", "900d"].

    Chinese, Japanese and Korean, which put no space between words, become single characters and pairs of neighbours.
    `fold_accents` reads "Éclair" as "eclair".
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if fold_accents:
        decomposed = unicodedata.normalize("NFD", text)
        text = unicodedata.normalize("NFC", _ACCENT.sub("", decomposed))
    tokens: list[str] = []
    for word in _WORD.findall(text):
        if _IS_CJK.match(word):
            tokens += [*word, *(word[i : i + 2] for i in range(len(word) - 1))]
        else:
            tokens.append(word)
    return tokens


@dataclass(frozen=True)
class Bm25:
    """An indexed corpus: for each word, which documents hold it and what it adds to their score."""

    postings: dict[str, tuple[NDArray[np.int32], NDArray[np.float64]]]
    documents: int

    def scores(self, tokens: Sequence[str]) -> NDArray[np.float64]:
        """Scores [n] of all documents, in their order; a token that stands twice counts twice."""
        total = np.zeros(self.documents)
        for token in tokens:
            if token in self.postings:
                rows, weights = self.postings[token]
                total[rows] += weights  # a row stands once in a posting list, so nothing is lost
        return total


def build_bm25(corpus: Sequence[Sequence[str]]) -> Bm25:
    """Index tokenised documents; an empty corpus, or one of empty documents, scores 0 everywhere."""
    if not any(corpus):
        return Bm25({}, len(corpus))
    from rank_bm25 import BM25Okapi

    statistics = BM25Okapi(corpus)
    holders: dict[str, list[int]] = {}
    counts: dict[str, list[int]] = {}
    for row, frequencies in enumerate(statistics.doc_freqs):
        for token, count in frequencies.items():
            holders.setdefault(token, []).append(row)
            counts.setdefault(token, []).append(count)
    lengths = np.asarray(statistics.doc_len, dtype=np.float64)
    norm = statistics.k1 * (1 - statistics.b + statistics.b * lengths / statistics.avgdl)
    postings: dict[str, tuple[NDArray[np.int32], NDArray[np.float64]]] = {}
    for token, held in holders.items():
        rows = np.asarray(held, dtype=np.int32)
        frequency = np.asarray(counts[token], dtype=np.float64)
        weights = idf(len(corpus), len(held)) * frequency * (statistics.k1 + 1) / (frequency + norm[rows])
        postings[token] = (rows, weights)
    return Bm25(postings, len(corpus))


def idf(documents: int, holders: int) -> float:
    """Lucene's inverse document frequency of a word that `holders` of `documents` hold: above 0."""
    return math.log(1 + (documents - holders + 0.5) / (holders + 0.5))
