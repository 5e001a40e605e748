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
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

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
    """Lower-case words and numbers of `text`; "V-neck 900D" -> ["v", "neck", "900d"].

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
