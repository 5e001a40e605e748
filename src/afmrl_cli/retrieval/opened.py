"""What a search reads of a catalog, each part opened at its first use and kept: a service searches often, a command
once, and neither pays for what it does not need.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..attributes.parse import InvalidAttributes, parse_attributes
from ..attributes.schema import folded
from ..errors import UsageError
from ..workspace import Workspace
from .bm25 import tokenize
from .colors import Colors, open_colors
from .columns import Columns, Mask
from .filters import Filters, has_one, near_values
from .hybrid import Floats, Gallery, Rows
from .index import Index, exact_search, search_index
from .lexicon import Lexicon, generated_columns, open_lexicon
from .named import Named
from .vectors import Vectors
from .weights import HybridWeights, default_weights, read_weights

GROUPS = {"product": "product_id", "style": "group_id"}
"""What results are collapsed by: the columns that say so."""


@dataclass(frozen=True)
class Opened:
    """The stored vectors of a catalog, and all that is read beside them. Reading is safe from several threads."""

    work: Workspace
    vectors: Vectors
    _search: Lock = field(default_factory=Lock, repr=False)

    def __len__(self) -> int:
        return len(self.vectors.matrix)

    @cached_property
    def weights(self) -> HybridWeights:
        """Return the weights of a hybrid search."""
        return read_weights(self.vectors.folder.parent, default_weights(self.work))

    @cached_property
    def lexicon(self) -> Lexicon:
        """Return the words and values of all listings."""
        return open_lexicon(self.work, self.vectors)

    @cached_property
    def named(self) -> Named:
        """Return the values of the shop's own columns and of generated attributes."""
        return Named.joined(self.lexicon.own, self.lexicon.generated)

    @cached_property
    def columns(self) -> Columns:
        """Return what filters look at: the shop's own columns, and generated attributes where those say nothing."""
        own = Columns(self.vectors.listings.fields())
        if not self.work.folder.database.is_file() or not self.lexicon.generated.pairs:
            return own  # the first spares a filter the lexicon
        return own.with_more(generated_columns(self.lexicon.generated))

    @cached_property
    def gallery(self) -> Gallery:
        """Return what a hybrid search ranks."""
        nearest = None if self.vectors.index_kind == "flat" else self._nearest_rows
        words, center = self.lexicon.words, self.lexicon.center
        return Gallery(self.vectors.matrix, center, words, self.named, nearest=nearest)

    @cached_property
    def colored_gallery(self) -> Gallery:
        """Return the same with the colours of all listings."""
        return replace(self.gallery, colors=self.colors)

    @cached_property
    def colors(self) -> Colors | None:
        """Return the colours of all listings, None where `embed` made none."""
        return open_colors(self.vectors)

    @cached_property
    def _index(self) -> Index:
        return self.vectors.index()

    def _nearest_rows(self, query: Floats, k: int) -> Rows:
        return self.nearest(query, k)[1]

    def nearest(self, query: Floats, k: int, rows: Rows | None = None) -> tuple[Floats, Rows]:
        """Return the scores and rows of the k vectors nearest to `query` [d], best first; of `rows` alone where they
        are given, and then exactly.
        """
        vectors = self.vectors
        if rows is not None or vectors.index_kind == "flat":
            # Exact either way: for one query the matrix product is the faster one, and importing FAISS costs more.
            scores, found = exact_search(vectors.matrix, query[None], k, rows)
        else:
            with self._search:  # the effort of a search is set on the index
                scores, found = search_index(self._index, query[None], k)
        there = found[0] >= 0
        return scores[0][there], found[0][there]

    def groups(self, collapse: str) -> NDArray[np.int64] | None:
        """Return a number for each listing [n] that those of one product (`product`) or style (`style`) share; None
        where no listing says so.
        """
        column = self.columns.get(GROUPS[collapse])
        return column.groups() if column is not None and column.cells else None

    def allowed(self, filters: Filters, without: Sequence[str]) -> tuple[Mask | None, list[str]]:
        """Tell of each listing whether it passes `filters` and has nothing of `without` [n], None where neither says
        anything; and what is to be said of them. Raises UsageError for keys that no listing has.
        """
        if not filters and not without:
            return None, []
        passed, notes = self.columns.passing(filters, "--filter") if filters else (np.ones(len(self), dtype=bool), [])
        for wish in without:
            has, more = self._having(wish)
            passed &= ~has
            notes += more
        return passed, notes

    def _having(self, wish: str) -> tuple[Mask, list[str]]:
        """Tell which listings have what is not wished: `key: value`, `key=value`, or words of their text."""
        try:
            pairs = parse_attributes(wish if ":" in wish else wish.replace("=", ": ", 1))
        except InvalidAttributes:
            return self._with_words(wish)
        has, notes = np.zeros(len(self), dtype=bool), list[str]()
        for key, value in pairs.items():
            found, more = self._with_value(key, value)
            has |= found
            notes += more
        return has, notes

    def _with_value(self, key: str, value: str) -> tuple[Mask, list[str]]:
        name = named_column(self.columns, key, value)
        column, wanted = self.columns[name], value.casefold()
        right = np.array([*(has_one(name, cell, [wanted]) for cell in column.cells), False])
        if right.any():
            return right[column.codes], []
        return right[column.codes], [f"--not {key}: {value}: no listing has it; {near_values(wanted, column.cells)}"]

    def _with_words(self, text: str) -> tuple[Mask, list[str]]:
        """Tell which listings hold all words of `text`, or have a value that it names."""
        tokens = tokenize(text)
        if not tokens:
            raise UsageError(f"--not {text}: says nothing", "such as --not 'pattern: floral' or --not polyester")
        has: Mask = np.all([self.lexicon.words.scores([token]) > 0 for token in dict.fromkeys(tokens)], axis=0)
        for wish in self.named.wishes(text, {}):
            if wish.words == " ".join(tokens):
                has[self.named.holders(wish)] = True
        return has, [] if has.any() else [f"--not {text}: no listing has it"]


def named_column(columns: Iterable[str], key: str, value: str) -> str:
    """Return which of `columns` the key of an exclusion means. UsageError when it is none of them."""
    names = {folded(name): name for name in columns}
    if folded(key) not in names:
        close = difflib.get_close_matches(folded(key), list(names), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(names)[:20])}"
        raise UsageError(f"--not {key}: {value}: no listing has such an attribute", hint)
    return names[folded(key)]
