"""RAR's environment: the frozen embedder, a fixed gallery, the queries, and what an attribute text does to their ranks.

    rank(p) = 1 + |{rows before p}| by  z(query text + attributes, query photos) . z(row)

The query's text is written as search and eval write it (`Embedder.texts`: attributes whole, product text cut to what
they leave); the generator is shown what the query's side shows and nothing else. Rows are encoded once by the embedder
that the settings name, without a gradient, and kept in the run's folder under a key made of embedder, instruction and
content: another embedder, product or instruction is encoded anew, and a killed run goes on with what is there.

The held-out environment asks with listings of the validation split, and its gallery is the training gallery plus the
listings of the validation split: about as hard as what is trained on, so that one k does for both. Its queries are
sampled at random, and so are those to train by; of these `room` chooses.

Tied scores are those of `scores`, and tied rows stand in the gallery's order: a rank must not depend on how a batch was
rounded.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..attributes.request import Generation, Request
from ..attributes.schema import read_answer
from ..catalog.folds import Part
from ..catalog.images import open_image
from ..catalog.pictures import LoadImage
from ..catalog.problems import Problems
from ..errors import DataError, UsageError
from ..models.batching import Batches
from ..models.embed_input import Item
from ..models.embedder import Embedder
from ..retrieval.cache import VectorCache
from ..retrieval.encode import Input, encode_missing
from ..scores import ranks_of as ranks_by_score
from ..settings import Settings
from ..store.files import hash_json
from ..training.corpus import Corpus, load_corpus
from ..training.pairs import Side, TrainListing
from ..training.sizes import median_rank_k
from ..workspace import Workspace
from .frozen import frozen
from .prefix import encode_groups
from .queries import QueryKind, RarQuery, choose_kind, offered, pose, some_products
from .reward import Reward, Shape, invalid_reward, propose_size, recall_at_k, valid_reward

LEAST_QUERIES = 5
CANDIDATES_EACH = 4
"""Queries whose plain rank is computed for each that is asked."""


class Environment:
    """Queries, a gallery and its vectors [rows, d]; `make_environments` makes it. A query's number is its place in
    `queries`, a row's number its place in `gallery`.
    """

    def __init__(
        self,
        work: Workspace,
        embedder: Embedder,
        kind: QueryKind,
        gallery: list[Side],
        vectors: NDArray[np.float32],
        queries: Sequence[RarQuery],
    ) -> None:
        self.embedder = embedder
        self.task, self.settings = work.task, work.settings
        self.kind = kind
        self.gallery = gallery
        self.vectors = vectors
        self.queries = tuple(queries)
        self._batches = Batches(work.settings.embed.batch_size, work.listener, "reward")

    def under(self, settings: Settings) -> Environment:
        """Return the same environment under settings that differ in how answers are rewarded."""
        other = copy.copy(self)
        other.settings = settings
        return other

    @property
    def median_k(self) -> int:
        """Return the k at which about half of the queries have a hit without attributes."""
        return median_rank_k([query.rank for query in self.queries])

    @property
    def fingerprint(self) -> str:
        """Hash what ranks depend on beside the attributes: embedder, instructions, gallery rows in order."""
        embed = self.settings.embed
        rows = [row.content for row in self.gallery]
        return hash_json([self.embedder.id, embed.query_instruction, embed.target_instruction, rows])

    def request(self, number: int, load_image: LoadImage | None = None) -> Request:
        """Make the request about a query: what its side shows, no more; photos by `load_image`."""
        query = self.queries[number]
        load_image = load_image or partial(open_image, settings=self.settings.catalog)
        most = self.settings.model.generator_images or len(query.photos)
        photos = [load_image(photo.path) for photo in query.photos[:most]]
        return self.task.request_for(query.side.text, query.category, photos)

    def ranks(self, numbers: Sequence[int], attribute_texts: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Return for each pair of a query's number and an attribute text (None: without) the ranks, from 1, of the
        query's positives in their order. Texts of one query share one pass over what they begin with.
        """
        members: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            members.setdefault(number, []).append(place)
        groups = [
            [self._item(self.queries[number], attribute_texts[place]) for place in places]
            for number, places in members.items()
        ]
        with frozen(self.embedder):
            instruction = self.settings.embed.query_instruction
            found = encode_groups(self.embedder, groups, instruction=instruction, batches=self._batches)
        ranks: dict[int, tuple[int, ...]] = {}
        for (number, places), vectors in zip(members.items(), found, strict=True):
            rows = ranks_of(vectors @ self.vectors.T, self.queries[number])
            ranks.update(zip(places, rows, strict=True))
        return [ranks[place] for place in range(len(numbers))]

    def rewards(self, numbers: Sequence[int], answers: Sequence[str], cut: Sequence[bool]) -> list[Reward]:
        """Return the reward of each answer to a query; `cut`: no end token within the budget. Only valid ones are
        encoded.
        """
        read = [
            read_answer(answer, cut_off, self.task.schema, self.queries[number].category, self.task.settings)
            for number, answer, cut_off in zip(numbers, answers, cut, strict=True)
        ]
        valid = [place for place, (text, _) in enumerate(read) if text is not None]
        found = self.ranks([numbers[place] for place in valid], [read[place][0] for place in valid])
        ranks = dict(zip(valid, found, strict=True))
        rar = self.settings.rar
        rewards = []
        for place, (text, failure) in enumerate(read):
            if text is not None:
                shape: Shape = "recall" if rar.reward == "recall" else "rank"  # auto is settled by `room`
                rewards.append(valid_reward(text, ranks[place], k=rar.k, shape=shape))
            elif failure is not None:
                rewards.append(invalid_reward(failure, eta=rar.eta))
        return rewards

    def read(self, number: int, answer: Generation) -> str | None:
        """Return the attribute text of an answer to a query, None when it is invalid: what `recall` takes."""
        category = self.queries[number].category
        return read_answer(answer.text, answer.cut_off, self.task.schema, category, self.task.settings)[0]

    def recall(self, attribute_texts: Sequence[str | None], ks: Sequence[int]) -> dict[str, float]:
        """Return {"recall@10": ...}: mean over all queries, with one attribute text for each (None: without)."""
        if len(attribute_texts) != len(self.queries):
            raise ValueError(f"{len(attribute_texts)} texts for {len(self.queries)} queries")
        return mean_recall(self.ranks(range(len(self.queries)), attribute_texts), ks)

    def _item(self, query: RarQuery, attributes: str | None) -> Item:
        return Item(query.side.text, tuple(photo.path for photo in query.side.photos), attributes or "")


@dataclass(frozen=True)
class Environments:
    """To train in and to validate in. `offers`: how many queries of each kind the training split has."""

    train: Environment
    heldout: Environment
    offers: dict[QueryKind, int]

    def with_choice(self, settings: Settings, numbers: Sequence[int]) -> Environments:
        """Return the same environments under settings that differ in how answers are rewarded, with these of the
        training queries.
        """
        train = self.train.under(settings)
        train.queries = tuple(train.queries[number] for number in numbers)
        return Environments(train, self.heldout.under(settings), self.offers)

    @functools.cached_property
    def description(self) -> dict[str, object]:
        """Return what was made, for manifests and for people; a plain hit is that of the best positive, without
        attributes.

        With `median_rank_k` or `median_rank_gallery_rows` alone the held-out plain hit would be about a half.
        """
        settings = self.train.settings
        k = settings.rar.k or self.train.median_k
        ranks, rows = [query.rank for query in self.heldout.queries], len(self.heldout.gallery)
        return {
            "embedder": self.train.embedder.id,
            "query": self.train.kind,
            "offers": self.offers,
            "gallery": self.train.fingerprint,
            "gallery_rows": len(self.train.gallery),
            "queries": len(self.train.queries),
            "heldout_gallery": self.heldout.fingerprint,
            "heldout_gallery_rows": len(self.heldout.gallery),
            "heldout_queries": len(self.heldout.queries),
            "plain_hit": float(np.mean([query.rank <= k for query in self.train.queries])),
            "heldout_plain_hit": float(np.mean([rank <= k for rank in ranks])),
            "k": k,
            "median_rank_k": median_rank_k(ranks),
            "median_rank_gallery_rows": propose_size(ranks, rows, k),
        }


def mean_recall(ranks: Iterable[Sequence[int]], ks: Sequence[int]) -> dict[str, float]:
    """Return {"recall@10": ...} of the ranks of each query's positives, mean over the queries."""
    every = list(ranks)
    return {f"recall@{k}": float(np.mean([recall_at_k(ranks, k) for ranks in every])) for k in ks}


def ranks_of(scores: NDArray[np.float32], query: RarQuery) -> list[tuple[int, ...]]:
    """Return the ranks of the query's positives in each row of scores [texts, gallery], hidden rows left out."""
    scores = scores.copy()
    scores[:, list(query.hidden)] = -np.inf
    return [tuple(row) for row in ranks_by_score(scores, query.positives).tolist()]


def read_corpus(work: Workspace, problems: Problems) -> Corpus:
    """Return the catalog's listings; attributes are read where the gallery has them (`embed.enrich` = both).

    Raises UsageError when queries are not enriched at all, DataError when the gallery's attributes are missing.
    """
    settings = work.settings
    if settings.embed.enrich == "none":
        message = "embed.enrich = none: queries get no attributes, so no attribute could be rewarded"
        raise UsageError(message, "set embed.enrich to query (the default) or both")
    source = work.source if settings.embed.enrich == "both" else None
    corpus = load_corpus(work, source, problems, for_agcl=False)
    if source and not any(listing.attributes for listing in corpus.train):
        message = f"embed.enrich = both, and {source.generator} has written no attributes for the gallery"
        raise DataError(message, "run `afmrl attributes` first, or set embed.enrich=query")
    return corpus


@dataclass(frozen=True)
class Posed:
    """Queries of one kind and the rows that they search, before any is chosen: to train, and held out (`wider` is
    the gallery with the validation split's listings).
    """

    kind: QueryKind
    offers: dict[QueryKind, int]
    gallery: list[Side]
    queries: list[RarQuery]
    wider: list[Side]
    heldout: list[RarQuery]


def pose_all(corpus: Corpus, settings: Settings, part: Part | None) -> Posed:
    """Pose every query that the catalog offers, of the training split those of listings that may ask (`part`); no model
    runs. DataError when queries or rows are too few.
    """
    rar, most = settings.rar, settings.model.embedder_images
    enrich = settings.embed.enrich == "both"

    def may_ask(listings: list[TrainListing]) -> list[bool]:
        return [part is None or part.asks(each.id, each.identity) for each in listings]

    offers = offered(corpus.train, may_ask(corpus.train), max_photos=most, seed=rar.seed)
    every = [True] * len(corpus.validation)
    held_out = offered(corpus.validation, every, max_photos=most, seed=rar.seed)
    kind = choose_kind(rar.query, offers, LEAST_QUERIES, held_out)
    shown = some_products(corpus.train, rar.gallery, rar.seed)

    def posed(listings: list[TrainListing], may_query: list[bool]) -> tuple[list[Side], list[RarQuery]]:
        return pose(listings, may_query, kind, max_photos=most, enrich=enrich, seed=rar.seed)

    gallery, queries = posed(shown, may_ask(shown))
    wider, heldout = posed(shown + corpus.validation, [False] * len(shown) + every)
    _check_sizes(kind, len(gallery), queries, heldout, settings)
    return Posed(kind, offers, gallery, queries, wider, heldout)


def make_environments(
    work: Workspace, embedder: Embedder, run: Path, problems: Problems, corpus: Corpus | None = None
) -> Environments:
    """Encode the gallery by `embedder` (into `run`/gallery) and rank it by the queries, more to train by than will be
    asked; `corpus` is what `read_corpus` gave, if it was called before.

    Raises as `read_corpus` does, and DataError when nothing asks or answers or the gallery is too small for `rar.k`.
    """
    work = work.with_instructions()
    settings = work.settings
    rar = settings.rar
    posed = pose_all(corpus or read_corpus(work, problems), settings, work.part)
    chosen = _some(posed.queries, CANDIDATES_EACH * rar.queries, rar.seed)
    held_out = _some(posed.heldout, rar.validation_queries, rar.seed)

    vectors = _Vectors(work, embedder, VectorCache(run / "gallery"), problems)
    rows = vectors.of(posed.wider, settings.embed.target_instruction, "gallery")
    train_rows = rows[: len(posed.gallery)]
    return Environments(
        Environment(work, embedder, posed.kind, posed.gallery, train_rows, _ranked(chosen, vectors, train_rows)),
        Environment(work, embedder, posed.kind, posed.wider, rows, _ranked(held_out, vectors, rows)),
        posed.offers,
    )


def _check_sizes(
    kind: QueryKind, rows: int, queries: Sequence[RarQuery], heldout: Sequence[RarQuery], settings: Settings
) -> None:
    rar = settings.rar
    least = rows - max((len(query.hidden) for query in queries), default=0)
    if least <= max(rar.k, 1):
        message = f"the gallery has {least:,} products to choose from, so recall@{rar.k} would always be 1"
        raise DataError(message, f"set rar.k well below that, such as {max(1, least // 20)}, or take a larger catalog")
    if len(heldout) < LEAST_QUERIES:
        message = f"the validation split has {len(heldout)} queries of the kind {kind}, {LEAST_QUERIES} are needed"
        raise DataError(message, "raise split.validation, or choose another rar.query")


def _some(queries: list[RarQuery], most: int, seed: int) -> list[RarQuery]:
    chosen = np.random.default_rng((seed, 3)).permutation(len(queries))[:most]
    return [queries[i] for i in sorted(chosen.tolist())]


def _ranked(queries: list[RarQuery], vectors: _Vectors, rows: NDArray[np.float32]) -> list[RarQuery]:
    """Return the queries with the plain rank of their best positive."""
    plain = vectors.of([query.side for query in queries], vectors.work.settings.embed.query_instruction, "queries")
    return [
        replace(query, rank=min(ranks_of(vector[None] @ rows.T, query)[0]))
        for query, vector in zip(queries, plain, strict=True)
    ]


@dataclass(frozen=True)
class _Vectors:
    """Sides -> vectors, through the run's cache."""

    work: Workspace
    embedder: Embedder
    cache: VectorCache
    problems: Problems

    def of(self, sides: Sequence[Side], instruction: str, what: str) -> NDArray[np.float32]:
        """Return float32 [sides, d]; what the cache does not hold is encoded."""
        keys = [hash_json([self.embedder.id, instruction, side.content]) for side in sides]
        items = [Item(side.text, tuple(photo.path for photo in side.photos), side.attributes) for side in sides]
        inputs = [
            Input(key, item, f"listing {side.listing}") for key, item, side in zip(keys, items, sides, strict=True)
        ]
        with frozen(self.embedder):
            empty = encode_missing(
                self.work, inputs, self.cache, lambda: self.embedder, instruction, self.problems, f"embedding {what}"
            )
        if empty:
            raise DataError(f"{len(empty)} photos can't be opened any more", "run the same command again")
        return np.stack([self.cache.get(key) for key in keys])
