"""How much the attributes of two products share: the B_ij of AGCL.

    B_ij = BM25 of product j for the attribute tokens of product i                                      (retrieval.bm25)

The statistics are those of the attributes of the whole training corpus, fitted once and frozen for the run. With
rank-bm25's own idf, which can be negative, common values would pull every score far below 0 and tanh would make all
weights alike, AGCL silently off: ours never is.

Tokens are the words of the values ("values") or whole key=value pairs ("pairs"), never keys alone: every product has a
colour.

Ours, off by default: `normalise` divides B_ij by B_ii (raw scores of pairs that share two values saturate the tanh, so
that the weight is nearly a switch), `scale` multiplies what goes into the tanh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..retrieval.bm25 import Bm25, Rows, fit_bm25, tokenize

Tokens = Literal["values", "pairs"]


def attribute_tokens(attributes: Mapping[str, str], tokens: Tokens = "values") -> list[str]:
    """Return the tokens of a product's attributes: {"colour": "navy blue"} -> ["navy", "blue"], or ["colour=navy
    blue"].
    """
    if tokens == "values":
        return [token for value in attributes.values() for token in tokenize(value)]
    pairs = [(" ".join(tokenize(key)), " ".join(tokenize(value))) for key, value in attributes.items()]
    return [f"{key}={value}" for key, value in pairs if value]


@dataclass(frozen=True)
class Lexical:
    """B_ij between the products of a training corpus. `build_lexical` makes it."""

    bm25: Bm25
    normalise: bool
    scale: float

    def scores(self, queries: Rows, candidates: Rows) -> NDArray[np.float64]:
        """Compute what goes into the tanh, [n, m]: BM25 of rows of the corpus against rows of it, normalised and scaled
        as the run wants it.
        """
        raw = self.bm25.pairs(queries, candidates)
        if self.normalise:
            own = self.bm25.self_scores(queries)
            raw = np.divide(raw, own[:, None], out=np.zeros_like(raw), where=own[:, None] > 0)
        return raw * self.scale


def build_lexical(corpus: Sequence[Sequence[str]], *, normalise: bool = False, scale: float = 1.0) -> Lexical:
    """Fit the statistics over the tokens of all products ([] where there are no attributes)."""
    return Lexical(fit_bm25(corpus), normalise, scale)
