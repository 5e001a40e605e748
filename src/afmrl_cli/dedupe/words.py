"""The listings' words as sparse matrices: for each listing which words, codes and numbers it holds.

A code is a word of letters and digits (`dscw120`), or several such parts joined by a hyphen, a slash or a dot, read
with and without the joint (`DSC-W120/B` is `dscw120b`, too): shops write model numbers in every way. A number is a
run of digits with its decimals (`15.6`, `8` of `8gb`): what near-duplicates differ in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.product import Product
from ..retrieval.bm25 import idf, tokenize, weigh

JOINED = re.compile(r"[a-z0-9]+(?:[-/._][a-z0-9]+)*")
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
SHORTEST_CODE = 4


@dataclass(frozen=True)
class Words:
    """CSR matrices [n, words], rows by listing."""

    column: dict[str, int]
    """The number of each word, in `counts` and `title`."""
    counts: Any
    """float32: how often, over title, brand and description."""
    title: Any
    """float32, 1 for each different word of the title, columns as in `counts`."""
    codes: Any
    """float32, 1 for each different code, of title and description."""
    title_codes: Any
    numbers: Any
    """float32, 1 for each different number of the title."""
    idf: NDArray[np.float32]
    code_idf: NDArray[np.float32]
    bm25: Any
    """float32: BM25's weight of each word in each listing."""
    letters: Any
    """float32, rows of length 1: groups of three letters within the words of the title, by their idf."""


def codes_of(text: str) -> set[str]:
    """Return the codes in a text, without joints: letters and digits together, or at least five digits."""
    found = set()
    for word in JOINED.findall(text.lower()):
        parts = re.split(r"[-/._]", word)
        for code in {*parts, "".join(parts)}:
            digits = sum(character.isdigit() for character in code)
            if len(code) >= SHORTEST_CODE and digits >= 2 and (digits < len(code) or digits >= 5):
                found.add(code)
    return found


def numbers_of(text: str) -> set[str]:
    """Return the numbers in a text, as they are said: `08` and `8`, `15,6` and `15.6` and `15.60` are the same."""
    return {f"{float(number.replace(',', '.')):g}" for number in NUMBER.findall(text)}


def read_words(products: Sequence[Product]) -> Words:
    """Count the words of the products' texts. A listing without text has an empty row."""
    vocabulary: dict[str, int] = {}
    codes: dict[str, int] = {}
    numbers: dict[str, int] = {}
    rows: dict[str, list[list[int]]] = {name: [] for name in ("words", "title", "codes", "title_codes", "numbers")}
    for product in products:
        title = tokenize(product.title)
        text = title + tokenize(product.brand) + tokenize(product.description)
        rows["words"].append([vocabulary.setdefault(word, len(vocabulary)) for word in text])
        rows["title"].append([vocabulary[word] for word in set(title)])
        own = codes_of(product.title)
        rows["title_codes"].append([codes.setdefault(code, len(codes)) for code in own])
        rows["codes"].append([codes.setdefault(c, len(codes)) for c in own | codes_of(product.description)])
        rows["numbers"].append([numbers.setdefault(n, len(numbers)) for n in numbers_of(product.title)])
    counts = _matrix(rows["words"], len(vocabulary))
    counts.sum_duplicates()
    all_codes = _matrix(rows["codes"], len(codes))
    rarity, code_rarity = (idf(matrix).astype(np.float32) for matrix in (counts, all_codes))
    return Words(
        vocabulary,
        counts,
        _matrix(rows["title"], len(vocabulary)),
        all_codes,
        _matrix(rows["title_codes"], len(codes)),
        _matrix(rows["numbers"], len(numbers)),
        rarity,
        code_rarity,
        weigh(counts, rarity),
        _letters([product.title for product in products]),
    )


def _letters(titles: list[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    groups = [f" {' '.join(tokenize(title))} " if title else "" for title in titles]
    if not any(groups):
        return _matrix([[] for _ in titles], 1)
    made = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False, dtype=np.float32)
    return made.fit_transform(groups).tocsr()


def _matrix(rows: list[list[int]], columns: int) -> Any:
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, rows)])
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(ends[-1]))
    made = csr_array((np.ones(len(flat), dtype=np.float32), flat, ends), shape=(len(rows), max(1, columns)))
    made.sort_indices()
    return made


def scaled(matrix: Any, weight: NDArray[np.float32]) -> Any:
    """Return `matrix` with each column multiplied by its weight."""
    made = matrix.copy()
    made.data = matrix.data * weight[matrix.indices]
    return made


def unit_rows(matrix: Any) -> Any:
    """Return `matrix` with rows of length 1; empty rows stay empty."""
    made = matrix.copy()
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64)).ravel()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    made.data = (matrix.data / length[row]).astype(np.float32)
    return made
