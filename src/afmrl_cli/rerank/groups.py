"""What the reranker learns from: a query, a listing of its product, and near listings of other products.

Positives are sampled as AGCL's are (`training.pairs`): listings of one product, a photo and the rest of its listing,
text and photos. Negatives are what the embedder at hand finds nearest to the query among the other training products,
in the view that the positive shows, and before all others what people called different (`dedupe.verdicts`). The rank
decides how often: the r-th nearest is taken with a probability of 1 / r. A negative of a photo lacks a photo at random,
as the positive does, so that the number of photos tells nothing. Which of the two stands first is sampled, too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..attributes.views import ALL_PHOTOS, LISTING, TEXT, ViewKey
from ..errors import DataError
from ..retrieval.index import exact_search
from ..settings import Settings
from ..training.corpus import Corpus
from ..training.pairs import Pair, Positive, Side, draw_pair, first_photos_of, no_negatives, view_side

FAR = 0.3
"""A negative whose cosine is lower than that of the query's own listing by more than this is distinguished already."""

Encode = Callable[[Sequence[Side], str], NDArray[np.float32]]
"""Sides and an instruction -> unit vectors."""
Near = dict[tuple[ViewKey, int, str], list[int]]
"""Listings of other products, the nearest first, by the gallery's view, and the listing and content that ask."""


@dataclass(frozen=True)
class Group:
    """A query with its positive first and the negatives after it. `swapped` says of each whether the query stands
    second.
    """

    query: Side
    targets: tuple[Side, ...]
    swapped: tuple[bool, ...]


@dataclass(frozen=True)
class Plan:
    """The positives and how often they are gone through: `steps` of `rerank.batch_size` queries; `words` are the
    verdicts.
    """

    settings: Settings
    corpus: Corpus
    positives: list[Positive]
    words: tuple[str, str]
    steps: int
    steps_per_epoch: float
    peak_rate: float

    @property
    def chunk(self) -> int:
        """Return how many queries are in memory at a time: the most that `rerank.chunk_size` allows and that divide a
        step.
        """
        size = self.settings.rerank.batch_size
        return max(part for part in range(1, min(self.settings.rerank.chunk_size, size) + 1) if size % part == 0)

    def __len__(self) -> int:
        """Count the queries of the whole run: its epochs, one after the other."""
        return self.steps * self.settings.rerank.batch_size

    def pair(self, position: int) -> Pair:
        """Sample the query and its positive at a position of the run: in each epoch another order, and other views."""
        seed = self.settings.rerank.seed
        epoch, at = divmod(position, len(self.positives))
        number = int(_order(len(self.positives), seed, epoch)[at])
        rng = np.random.default_rng((seed, epoch, number))
        most = self.settings.model.generator_images
        return draw_pair(self.positives[number], self.corpus.train, rng, max_photos=most, enrich="none", dropout=1.0)


@functools.lru_cache(maxsize=2)
def _order(number: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(number)


class Groups:
    """The groups of a run, by position."""

    def __init__(self, plan: Plan, near: Near) -> None:
        self.plan, self.near = plan, near

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, position: int) -> Group:
        if not 0 <= position < len(self):
            raise IndexError(position)
        plan = self.plan
        pair, rng = plan.pair(position), np.random.default_rng((plan.settings.rerank.seed, position, 1))
        near = self.near[key_of(pair)]
        odds = 1 / np.arange(1, len(near) + 1)
        number = min(plan.settings.rerank.negatives, len(near))
        chosen = rng.choice(len(near), number, replace=False, p=odds / odds.sum())
        targets = (pair.target, *(self._negative(near[i], pair, rng) for i in chosen))
        return Group(pair.query, targets, tuple((rng.random(len(targets)) < 0.5).tolist()))

    def _negative(self, number: int, pair: Pair, rng: np.random.Generator) -> Side:
        listing, view = self.plan.corpus.train[number], gallery_view(pair)
        if pair.kind == "photos" and len(listing.photos) > 1:
            view = ("rest", listing.photos[int(rng.integers(len(listing.photos)))].content)
        side = view_side(listing, number, view, enriched=False)
        return first_photos_of(side, self.plan.settings.model.generator_images)


def gallery_view(pair: Pair) -> ViewKey:
    """Return what other listings show beside the target of `pair`."""
    if pair.kind != "image-text":
        return LISTING
    return ALL_PHOTOS if pair.query.text else TEXT


def key_of(pair: Pair) -> tuple[ViewKey, int, str]:
    """Return by what `Near` knows the query of `pair`."""
    return gallery_view(pair), pair.query.listing, pair.query.content


def mine(plan: Plan, encode: Encode) -> Near:
    """Find the nearest listings of other products for every query of the run.

    DataError when there are none for a query, or the embedder tells all of them far apart from its own listing.
    """
    pairs = {key_of(pair): pair for pair in map(plan.pair, range(len(plan)))}
    near: Near = {}
    close = 0
    for view in dict.fromkeys(view for view, _, _ in pairs):
        asked = {key: pair for key, pair in pairs.items() if key[0] == view}
        found, closer = _mine_view(plan, view, asked, encode)
        near |= found
        close += closer
    need_others(plan, near)
    if not close:
        raise DataError(
            f"nothing to rerank: of {len(near):,} training queries none has another product near it (by {FAR:g} in "
            "cosine)",
            "the embedder tells these products apart by itself; see `afmrl eval`",
        )
    return near


def need_others(plan: Plan, near: Near) -> None:
    """Raise DataError when there is no listing of another product for a query."""
    if lacking := next((key for key, found in near.items() if not found), None):
        raise DataError(
            f"listing {plan.corpus.train[lacking[1]].id}: there is no other training product to tell it apart from",
            "a reranker needs a catalog of several products: see split.validation, split.test, `afmrl check`",
        )


def _mine_view(
    plan: Plan, view: ViewKey, pairs: dict[tuple[ViewKey, int, str], Pair], encode: Encode
) -> tuple[Near, int]:
    """Return the near listings for the queries of one gallery, and how many of them have one that is not far."""
    embed, train, most = plan.settings.embed, plan.corpus.train, plan.settings.model.embedder_images
    sides = [first_photos_of(view_side(listing, i, view, enriched=False), most) for i, listing in enumerate(train)]
    sides = [side for side in sides if side.text or side.photos]
    gallery = encode(sides, embed.target_instruction)
    queries = encode([first_photos_of(pair.query, most) for pair in pairs.values()], embed.query_instruction)
    number_of = {listing.id: i for i, listing in enumerate(train)}
    row_of = {side.listing: row for row, side in enumerate(sides)}
    most_of_one = max(Counter(listing.identity for listing in train).values())
    wanted = plan.settings.rerank.candidates
    scores, rows = exact_search(gallery, queries, wanted + 2 * most_of_one)
    found: Near = {}
    close = 0
    for at, (key, pair) in enumerate(pairs.items()):
        said = [number_of[id] for id in sorted(train[pair.query.listing].rejected) if id in number_of]
        fit = ~no_negatives(pair, [sides[row] for row in rows[at]], train)
        by_rank = [sides[row].listing for row in rows[at][fit]]
        found[key] = list(dict.fromkeys([*said, *by_rank]))[:wanted]
        own = row_of.get(pair.query.listing)
        nearest = scores[at][fit]
        close += bool(said) or (
            own is not None and len(nearest) > 0 and bool(nearest[0] > gallery[own] @ queries[at] - FAR)
        )
    return found, close
