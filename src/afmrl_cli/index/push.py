"""Stored vectors and listings -> an index in another engine; only what differs is sent.

What is sent is decided by the engine's own points: each carries its print, so that a push that was killed, or that
another machine has made, is gone on with, and what the engine has lost is sent again. The order of things:

    1  the prints of all points of the collection for these vectors (a new one where they are of another embedder)
    2  changed points are written, points of products that are gone removed, the engine indexes them
    3  the number of points is compared, recall measured
    4  the card is completed, the collection named as the one that counts, others removed

Until 4 a search finds the vectors of the embedder before, whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..errors import DataError, UsageError
from ..intervals import interval
from ..listener import Listener
from ..retrieval.index import NEAREST, RECALL_AIM, exact_search
from ..retrieval.lexicon import attribute_texts, lexicon_facts
from ..retrieval.listings import Listing
from ..retrieval.narrow import stored_rows
from ..retrieval.vectors import Vectors, content_of, load_vectors, vectors_folder
from ..scores import TIE
from ..store.files import hash_json
from ..workspace import Workspace
from .card import Card, Unreadable
from .engine import Engine
from .points import Key, Numbers, amounts_of, cells_of, number_field, numbers_of, payload_of, print_of

BATCH_NUMBERS, MOST_AT_ONCE = 2**18, 1000
"""So many numbers of vectors, and points, go into one request."""
QUERIES = 200
EFFORTS = (64, 128, 256, 512, 1024)
"""HNSW's ef: the first that reaches RECALL_AIM is kept for searching."""
SAMPLE = 2000
INDEXED_FROM, MOST_INDEXED = 0.01, 24
"""Numbers that this share of the first SAMPLE listings has are indexed; others are compared one by one."""


@dataclass(frozen=True)
class PushSummary:
    """What `push_index` did. `sent` points were written, `removed` ones were of products that are gone; `replaced` is
    the embedder whose vectors counted before, "" where it is the same or there was none. `recall` is recall@10 against
    exact search over `queries` of the stored vectors, `interval` its interval over others; `bytes` is None where the
    engine does not say it.
    """

    index: str
    embedder: str
    products: int
    dimension: int
    sent: int
    removed: int
    replaced: str
    effort: int
    recall: float
    interval: tuple[float, float]
    queries: int
    bytes: int | None
    seconds: float


def push_index(work: Workspace, engine: Engine, *, force: bool = False) -> PushSummary:
    """Bring the index up to date with the stored vectors of the settings' embedder.

    Raises ModelError without vectors; UsageError, but with `force`, where more than half of what the index holds would
    be removed, or it is not known what it holds; and as the engine does.
    """
    started = time.monotonic()
    vectors, before = load_vectors(work), _opened(work, engine)
    count, dimension = vectors.matrix.shape
    wanted = Card(
        embedder=work.embedder_id,
        vectors=vectors_folder(work).name,
        dimension=dimension,
        count=count,
        data=(data := content_of(vectors.folder, vectors.manifest)),
        state=hash_json([lexicon_facts(work, vectors), vectors.form, data]),
    )
    same = before is not None and before.version == wanted.version
    if same and before is not None and before.complete and before.state == wanted.state and engine.count() == count:
        return _summary(engine, before, "", (0, 0), started)
    numbers = numbers_of(vectors.ids)
    held = engine.held() if before is not None else None
    if not force:
        _check_same_catalog(engine, engine.there() if held is None else held[0], numbers)
    if held is None or not same:
        engine.prepare(wanted)
        held = engine.held()
    sent, removed, keys = _send(work, vectors, engine, (numbers, *held), before if same else None)
    engine.finish(work.listener)
    if (there := engine.count()) != count:
        raise DataError(f"{engine.shown}: holds {there:,} points, not {count:,}", "run the same command again")
    card = replace(measured(engine, vectors, wanted, work.listener), keys=keys, complete=True)
    engine.write_card(card)
    engine.replace()
    replaced = before.embedder if before is not None and not same else ""
    return _summary(engine, card, replaced, (sent, removed), started)


def _summary(engine: Engine, card: Card, replaced: str, done: tuple[int, int], started: float) -> PushSummary:
    return PushSummary(
        index=engine.shown,
        embedder=card.embedder,
        products=card.count,
        dimension=card.dimension,
        sent=done[0],
        removed=done[1],
        replaced=replaced,
        effort=card.effort,
        recall=card.recall,
        interval=card.interval,
        queries=card.queries,
        bytes=engine.disk(),
        seconds=time.monotonic() - started,
    )


def _opened(work: Workspace, engine: Engine) -> Card | None:
    """Return the card of what counts; None where there is nothing, or it can't be read."""
    try:
        return engine.open()
    except Unreadable as error:
        work.listener.note(f"{error}: it is made anew")
        return None


def _check_same_catalog(engine: Engine, held: Numbers | None, numbers: Numbers) -> None:
    """Raise UsageError where most of what counts now is of other products, or nobody knows: it may be another catalog's
    index.
    """
    if held is None:
        hint = "another catalog's index? Give another place, or --force"
        raise UsageError(f"{engine.shown}: it can't be read which products the index holds", hint)
    gone = int((~np.isin(held, numbers)).sum())
    if 2 * gone > len(held):
        raise UsageError(
            f"{engine.shown}: {gone:,} of its {len(held):,} products are not in this catalog, and would be removed",
            "another catalog's index? Give another place, or --force",
        )


def _send(
    work: Workspace,
    vectors: Vectors,
    engine: Engine,
    points: tuple[Numbers, Numbers, Numbers],
    before: Card | None,
) -> tuple[int, int, dict[str, Key]]:
    """Send what differs; return how many points were written and removed, and what is known of the keys. `points` are
    the numbers of the listings, and numbers and prints that the engine holds. The card `before` says until the end that
    this has begun.
    """
    numbers, held, prints = points
    gone = held[~np.isin(held, numbers)]
    rows, keys, sent, begun = _rows(work, vectors), dict[str, Key](), 0, before is None
    at_once = max(1, min(MOST_AT_ONCE, BATCH_NUMBERS // vectors.matrix.shape[1]))
    engine.index(_numbers_to_index(work, vectors))
    order = np.argsort(held)
    for start in range(0, len(numbers), at_once):
        some = list(islice(rows, at_once))
        stored = stored_rows(vectors.matrix, slice(start, start + len(some)))
        own = np.array([print_of(*each, row) for each, row in zip(some, stored, strict=True)], dtype=np.uint64)
        part = numbers[start : start + len(some)]
        places = np.searchsorted(held, part, sorter=order) if len(held) else np.zeros(len(part), dtype=np.int64)
        at = order[np.minimum(places, len(held) - 1)] if len(held) else places
        there = (held[at] == part) & (prints[at] == own) if len(held) else np.zeros(len(part), dtype=bool)
        for listing, text in some:
            for key, cell in cells_of(json.loads(listing.fields), text).items():
                keys.setdefault(key, Key()).see(key, cell)
        if changed := [int(place) for place in np.flatnonzero(~there)]:
            if not begun and before is not None:
                engine.write_card(replace(before, complete=False))
                begun = True
            payloads = [payload_of(*some[place], int(own[place])) for place in changed]
            matrix = np.asarray(vectors.matrix[start : start + len(some)], dtype=np.float32)
            engine.put([int(part[place]) for place in changed], matrix[changed], payloads)
            sent += len(changed)
        work.listener.progress("products", start + len(some), len(numbers))
    if len(gone):
        if not begun and before is not None:
            engine.write_card(replace(before, complete=False))
        engine.remove([int(number) for number in gone])
    return sent, len(gone), keys


def _rows(work: Workspace, vectors: Vectors) -> Iterator[tuple[Listing, str]]:
    """Yield the listings with their attribute texts."""
    yield from zip(vectors.listings, attribute_texts(work, vectors), strict=True)


def _numbers_to_index(work: Workspace, vectors: Vectors) -> list[str]:
    """Return under which names numbers are that many listings have, judged by the first ones."""
    found: dict[str, int] = {}
    seen = 0
    for listing, text in islice(_rows(work, vectors), SAMPLE):
        seen += 1
        cells = cells_of(json.loads(listing.fields), text).items()
        names = {number_field(key, unit) for key, cell in cells for unit, _ in amounts_of(key, cell)}
        for name in names:
            found[name] = found.get(name, 0) + 1
    often = sorted((name for name in found if found[name] >= INDEXED_FROM * seen), key=lambda name: -found[name])
    return often[:MOST_INDEXED]


def measured(engine: Engine, vectors: Vectors, card: Card, listener: Listener, seed: int = 0) -> Card:
    """Return the card with recall@10 of the engine against exact search over a sample of the stored vectors, each
    without itself, at the least effort that reaches RECALL_AIM.
    """
    count = len(vectors.matrix)
    k = min(NEAREST, count - 1)
    if k < 1:
        return replace(card, effort=EFFORTS[0], recall=1.0, interval=(1.0, 1.0), queries=count)
    rows = np.sort(np.random.default_rng(seed).choice(count, size=min(QUERIES, count), replace=False))
    queries = np.ascontiguousarray(vectors.matrix[rows], dtype=np.float32)
    scores, right = exact_search(vectors.matrix, queries, k + 1)
    # By score, not by row: of equal vectors either one is right.
    worst = [scores[i][right[i] != own][k - 1] for i, own in enumerate(rows)]
    numbers = numbers_of(vectors.ids[row] for row in rows)
    for effort in EFFORTS:
        listener.progress("recall", EFFORTS.index(effort), len(EFFORTS))
        shares = []
        for query, own, least in zip(queries, numbers, worst, strict=True):
            near = engine.nearest(query, k + 1, effort=effort, payload=False)
            found = [each.score for each in near if each.number != int(own)][:k]
            shares.append(sum(score >= least - TIE for score in found) / k)
        recall = float(np.mean(shares))
        if recall >= RECALL_AIM or effort == EFFORTS[-1]:
            break
    ends = (recall, recall)
    if count > len(rows):
        low, high = interval(np.array(shares)[:, None], [str(row) for row in rows], 0.95)[:, 0]
        ends = (float(low), float(high))
    return replace(card, effort=effort, recall=recall, interval=ends, queries=len(rows))
