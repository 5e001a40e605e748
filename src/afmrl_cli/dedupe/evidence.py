"""Why a pair is thought to be one product, and what speaks against it: for a person who has to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..attributes.parse import write_attributes
from ..catalog.product import Product
from ..retrieval.bm25 import tokenize
from .features import Sources
from .groups import Pair
from .variants import KEYS, conflicts_of
from .words import codes_of

MOST_WORDS = 6


@dataclass(frozen=True)
class Evidence:
    """Similarities are in 0..1 and None where one side has nothing to compare. Words are those of the titles, the
    rarest first; `other_words` are the rarest that only the first and only the second listing has."""

    vector: float | None
    photo: float | None
    text: float
    words: tuple[str, ...]
    other_words: tuple[tuple[str, ...], tuple[str, ...]]
    codes: tuple[str, ...]
    attributes: dict[str, str]
    other_attributes: dict[str, tuple[str, str]]
    prices: tuple[float, float] | None
    reranker: float | None = None
    """How probable the reranker finds that both are one product; None where it was not asked."""

    @property
    def conflicts(self) -> str:
        """Return the attributes that differ, on one line."""
        return write_attributes((key, f"{one} / {other}") for key, (one, other) in self.other_attributes.items())


class EvidenceBuilder:
    """Gives evidence on pairs of a catalog."""

    def __init__(self, sources: Sources, reranked: Mapping[Pair, float] | None = None) -> None:
        self._sources, self._reranked = sources, reranked or {}
        self.products: list[Product] = sources.listings.products

    def build(self, pairs: Sequence[Pair]) -> list[Evidence]:
        """Make evidence on each pair."""
        if not pairs:
            return []
        from .features import NAMES, pair_features

        rows = np.array(pairs, dtype=np.int64)
        features = pair_features(self._sources, rows)
        column = {name: features[:, NAMES.index(name)] for name in ("vector", "text", "photo_shape", "photo_colour")}
        photo = np.minimum(column["photo_shape"], column["photo_colour"])
        return [
            self._of(a, b, float(column["vector"][i]), float(photo[i]), float(column["text"][i]))
            for i, (a, b) in enumerate(pairs)
        ]

    def _of(self, a: int, b: int, vector: float, photo: float, text: float) -> Evidence:
        sources, listings = self._sources, self._sources.listings
        seen = sources.photos is not None and bool(sources.photos.count[a] and sources.photos.count[b])
        left, right = (self._titles_words(row) for row in (a, b))
        codes = codes_of(self.products[a].title) & codes_of(self.products[b].title)
        columns = {code.split("=", 1)[1] for code in listings.codes[a] & listings.codes[b]}
        same, other = {}, {}
        for key, values in listings.attributes.items():
            if values[a] and values[b]:
                if values[a] == values[b]:
                    same[key] = values[a]
                else:
                    other[key] = (values[a], values[b])
        shown = {KEYS.get(key, key) for key in other}
        found = conflicts_of(listings.facts[a], listings.facts[b])
        other |= {kind: values for kind, values in found.items() if kind not in shown}
        prices = listings.prices[[a, b]]
        return Evidence(
            vector if sources.vector_row[a] >= 0 and sources.vector_row[b] >= 0 else None,
            photo if seen else None,
            text,
            tuple(word for word in left if word in right)[:MOST_WORDS],
            (
                tuple(w for w in left if w not in right)[:MOST_WORDS],
                tuple(w for w in right if w not in left)[:MOST_WORDS],
            ),
            tuple(sorted(codes | columns)),
            same,
            other,
            None if np.isnan(prices).any() else (float(prices[0]), float(prices[1])),
            self._reranked.get((a, b)),
        )

    def _titles_words(self, row: int) -> list[str]:
        """Return the title's words, the rarest first."""
        words = self._sources.words
        idf = words.idf
        return sorted(
            dict.fromkeys(tokenize(self.products[row].title)), key=lambda word: (-idf[words.column[word]], word)
        )
