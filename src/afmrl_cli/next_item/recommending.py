"""The job of `afmrl recommend`: whose history, what is next, and why.

Sources learn from all interactions here, since nothing is measured; the weights are those of the validation part. Of
the variants of a style (`group_id`, else the product's identity) the best one is recommended. What left the catalog is
in no history and never recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..catalog.problems import Problems
from ..catalog.read import read_products
from ..errors import DataError, UsageError
from ..recommend.customers import customer_text, shown, unkept_customers
from ..recommend.interactions import interaction_files, no_files
from ..recommend.items import ItemIndex
from ..store.lock import writer_lock
from ..workspace import Workspace
from .gallery import Gallery, GalleryListing, read_gallery
from .histories import Histories, Question, Recommender
from .reasons import Reason, Reasons
from .retrieval import Retrieval, learnt_from_all, make_retrieval, retrieval_of_nobody, retrieval_over
from .tastes import Taste, shared_by, tastes_of

Ordered = Callable[[Recommender], Recommender]
ANYBODY = "`--history SKU,SKU` recommends for anybody"


@dataclass(frozen=True)
class Recommended:
    """A recommended listing. `tastes` are those that it meets; `variants` how many others of its group ranked lower."""

    rank: int
    score: float
    listing: GalleryListing
    tastes: Sequence[Taste]
    reason: Reason
    variants: int


@dataclass(frozen=True)
class Recommendation:
    """What is recommended, best first, by which `ranking` and after which history, oldest first. `customer` is the
    keyed hash, "" for a history that is nobody's; `unknown` what was asked for and the catalog does not have.
    """

    gallery: Gallery
    retrieval: Retrieval
    ranking: Recommender
    question: Question
    customer: str
    unknown: Sequence[str]
    tastes: Sequence[Taste]
    products: Sequence[Recommended]

    @property
    def history(self) -> list[GalleryListing]:
        """Return the listings of the history, each once, the latest first."""
        return [self.gallery.listings[place] for place in dict.fromkeys(self.question.history[::-1].tolist())]


def recommend(
    work: Workspace, customer: str | None, named: Sequence[str], k: int, ordered: Ordered | None = None
) -> Recommendation:
    """Recommend k products for a `customer` as the files write them, or for a history of listings that are `named`;
    `ordered` makes of the fused ranking the one that is shown.

    Raises DataError for a customer or a history of whom nothing is known, ModelError where there are neither
    interactions nor vectors.
    """
    if customer is not None and not interaction_files(work):
        raise no_files(work)
    if customer is not None and not customer_text(customer):
        raise UsageError("--customer: is nobody", f"give a number or e-mail address as the files have it; {ANYBODY}")
    gallery = read_gallery(work)
    places, unknown = _places(work, gallery, named) if customer is None else ([], [])
    retrieval = _retrieval(work, gallery)
    hashed = None if customer is None else _hash_of(work, customer)  # with the key that reading has made, if any
    question = _asked(retrieval.histories, places) if hashed is None else _of_customer(retrieval.histories, hashed)
    tastes = tastes_of(gallery, question.history.tolist())
    ranking = ordered(retrieval.fused) if ordered else retrieval.fused
    products = best_products(retrieval, gallery, question, ranking, tastes, k)
    owner = "" if hashed is None else shown(hashed)
    return Recommendation(gallery, retrieval, ranking, question, owner, unknown, tastes, products)


def _retrieval(work: Workspace, gallery: Gallery) -> Retrieval:
    """Return the retrieval with sources that have learnt from all interactions."""
    if not interaction_files(work):
        retrieval = retrieval_of_nobody(work, gallery.ids)
        work.listener.note("there are no interactions: popularity and what is taken together say nothing")
        return retrieval
    lock = partial(writer_lock, work.folder.store, "afmrl recommend")
    measured = retrieval_over(work, gallery.ids, lock)
    return make_retrieval(learnt_from_all(measured.histories), measured.vectors, measured.fused.weights)


def best_products(
    retrieval: Retrieval, gallery: Gallery, question: Question, ranking: Recommender, tastes: Sequence[Taste], k: int
) -> list[Recommended]:
    """Return the k best listings by `ranking`, one of each group, with their reasons."""
    scores = ranking.scores([question])[0]
    reasons = Reasons(retrieval, gallery, question)
    chosen: dict[str, int] = {}
    lower: dict[str, int] = {}
    for place in np.argsort(-scores, kind="stable").tolist():
        group = gallery.listings[place].group
        if scores[place] == -np.inf:
            break
        if group in chosen:
            lower[group] += 1
        elif len(chosen) < k:
            chosen[group], lower[group] = place, 0
    return [
        Recommended(
            rank,
            float(scores[place]),
            gallery.listings[place],
            shared_by(gallery.listings[place], tastes),
            reasons.of(place),
            lower[group],
        )
        for rank, (group, place) in enumerate(chosen.items(), 1)
    ]


def _hash_of(work: Workspace, customer: str) -> int:
    """Return the hash of a customer. Raises DataError for one who was forgotten."""
    known = unkept_customers(work.folder)
    hashed = known.hash_of(customer_text(customer))
    if hashed in known.forgotten:
        raise DataError("--customer: was forgotten, so that nothing is known", ANYBODY)
    return hashed


def _of_customer(histories: Histories, hashed: int) -> Question:
    """Return the question of what a customer takes next. Raises DataError where nothing is known of them."""
    place = histories.place_of(hashed)
    rows = histories.rows_of(place) if place >= 0 else slice(0, 0)
    if rows.start == rows.stop:
        hint = (
            f"give the number or address as the files have it; `afmrl interactions` says what was left out; {ANYBODY}"
        )
        raise DataError("--customer: no interaction of this customer with a listing of the catalog", hint)
    return Question(histories.item[rows], histories.seconds[rows], _now(histories), customer=place)


def _places(work: Workspace, gallery: Gallery, named: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the places of the listings that are named, and the names that the catalog does not know. Raises DataError
    where it knows none.
    """
    index = ItemIndex.of(read_products(work.folder, work.settings.catalog, Problems()))
    place = {listing: number for number, listing in enumerate(gallery.ids)}
    found = [(name, index.find(name)) for name in named]
    places = [place[known[0]] for _, known in found if known]
    unknown = [name for name, known in found if not known]
    if not places:
        raise DataError(
            f"--history: the catalog knows none of {', '.join(unknown[:5])}", "give ids, SKUs or product numbers of it"
        )
    if unknown:
        work.listener.warn(f"--history: the catalog does not know {', '.join(unknown)}")
    return places, unknown


def _asked(histories: Histories, places: Sequence[int]) -> Question:
    """Return the question of what follows listings that are given, the last one latest."""
    now = _now(histories)
    return Question(np.array(places, dtype=np.int32), now - len(places) + np.arange(len(places)), now)


def _now(histories: Histories) -> int:
    """Return the moment after the last interaction."""
    return int(histories.seconds.max(initial=0)) + 1
