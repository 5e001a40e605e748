"""What `train-composed` learns from: the stored triplets of a split over its listings, with captions.

The caption of a listing is its whole attribute text, by the source that the triplets were made from. A query has the
reference's known attributes, the changed keys replaced, as `search --change` writes them: those that the settings'
generator wrote, else the shop's own columns. Triplets whose reference or target has no photo that can be opened are
left out, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..attributes.parse import read_stored
from ..attributes.schema import folded
from ..attributes.views import LISTING
from ..errors import UsageError
from ..retrieval.composed import changed_attributes, read_change
from ..store.files import hash_json
from ..training.pairs import TrainListing
from ..training_settings import ComposedSettings
from ..triplets.outputs import Judgements
from ..triplets.records import NoTriplets, Record
from ..triplets.run import make_triplets
from ..triplets.store import TripletSplit, read_triplets
from ..triplets.windows import WINDOWS
from ..workspace import Workspace

CLOSE_ENOUGH = 100
"""Triplets of variants and near pairs from which on far ones are left out: few change four attributes of what they
have found, and learning that as well cost recall of what people ask for (docs/lab/composed.md).
"""
PERTURBED = 4
"""Captions that a query is compared with: the target's, and so many less one with a value replaced."""


@dataclass(frozen=True, slots=True)
class Example:
    """A triplet. `reference` and `target` are numbers of listings, `answers` those of all listings that answer, the
    target among them, one object for all triplets that have the same; `wish` and `sentence` are the change as pairs and
    in words, `edited` the attributes of the reference with the change made, "" where they are not known.
    """

    reference: int
    target: int
    answers: frozenset[int]
    wish: str
    sentence: str
    edited: str
    window: str
    changed: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Examples:
    """The triplets of a split: `captions` by number of the listing; `values` by key what the captions say of it;
    `counts` by window, `made_by` whose attributes, `fingerprint` a hash of all of it. `left_out` were triplets with a
    photo that can't be opened, `far_left_out` far ones where there are others enough.
    """

    rows: list[Example]
    captions: dict[int, str]
    values: dict[str, tuple[str, ...]]
    counts: dict[str, int]
    made_by: tuple[str, ...]
    source: str
    left_out: int
    far_left_out: int
    fingerprint: str

    def perturbed(self, number: int, seed: int) -> list[str]:
        """Return PERTURBED captions for an example: the target's, and it with one value replaced: first those of the
        changed keys by the reference's, then any by values that other captions have. [] where there are too few.
        """
        example = self.rows[number]
        caption = self.captions.get(example.target, "")
        own = {folded(key): value for key, value in read_stored(caption).items()}
        others = [(key, value) for key in own for value in self.values[key] if folded(value) != folded(own[key])]
        order = np.random.default_rng((seed, number)).permutation(len(others)).tolist()
        undone = [(folded(key), was) for key, (was, _) in example.changed.items() if folded(key) in own]
        chosen = list(dict.fromkeys([*undone, *(others[i] for i in order)]))[: PERTURBED - 1]
        if len(chosen) < PERTURBED - 1:
            return []
        return [caption, *(changed_attributes(read_stored(caption), {key: value}) for key, value in chosen)]


def check_windows(composed: ComposedSettings) -> None:
    """Raise UsageError for an unknown window in the settings."""
    if unknown := [window for window in composed.windows if window not in WINDOWS]:
        raise UsageError(f"composed.windows: {unknown[0]!r} is no window", f"known: {', '.join(WINDOWS)}")


def load_examples(work: Workspace, split: TripletSplit, listings: Sequence[TrainListing]) -> Examples:
    """Return the triplets of a split, made and stored where they are not; the caller holds the store's lock.

    `listings` are those of the split. Raises NoTriplets where nothing is left, UsageError for an unknown window.
    """
    composed = work.settings.composed
    check_windows(composed)
    made = make_triplets(work, split)
    number = {listing.id: i for i, listing in enumerate(listings) if listing.photos}
    records = {record.id: record for record in made.records.rows}
    answers = _Answers(Judgements(made.records.rows), listings)
    edited = _Edited(work, listings, number, made.records.source)
    rows: list[Example] = []
    left_out = 0
    for triplet in read_triplets(work.folder, split, records):
        if composed.windows and triplet.window not in composed.windows:
            continue
        if triplet.reference not in number or triplet.target not in number:
            left_out += 1
            continue
        reference, target = records[triplet.reference], records[triplet.target]
        rows.append(
            Example(
                number[triplet.reference],
                number[triplet.target],
                answers.of(number[triplet.reference], number[triplet.target], target, triplet.window),
                triplet.text,
                triplet.sentence,
                edited.of(reference, triplet.text),
                triplet.window,
                triplet.changed,
            )
        )
    close = [row for row in rows if row.window != "far"]
    far_left_out = 0 if composed.windows or len(close) < CLOSE_ENOUGH else len(rows) - len(close)
    rows = close if far_left_out else rows
    if not rows:
        named = f" of the windows {', '.join(composed.windows)}" if composed.windows else ""
        raise NoTriplets(f"{work.folder.catalog}: no triplets{named} of the {split} split", "see `afmrl triplets`")
    captions = {number[id]: record.text for id, record in records.items() if id in number and record.text}
    counts = Counter(row.window for row in rows)
    return Examples(
        rows,
        captions,
        _values(captions.values()),
        {window: counts[window] for window in WINDOWS if counts[window]},
        made.records.made_by,
        made.records.source,
        left_out,
        far_left_out,
        _fingerprint(rows, captions, listings),
    )


def _fingerprint(rows: Sequence[Example], captions: Mapping[int, str], listings: Sequence[TrainListing]) -> str:
    """Hash all that training sees of the examples, by ids; each set of answers once."""
    number: dict[frozenset[int], int] = {}
    content = [
        [
            *(listings[row.reference].id, listings[row.target].id),
            number.setdefault(row.answers, len(number)),
            *(row.wish, row.sentence, row.edited, sorted(row.changed)),
        ]
        for row in rows
    ]
    return hash_json([content, [sorted(listings[i].id for i in each) for each in number], sorted(captions.items())])


class _Answers:
    """Finds the listings that answer a triplet: those that are as its target is, and all of the target's product, but
    none of the reference's. In a catalog with few attributes thousands are alike: what is the same for many triplets is
    made once.
    """

    def __init__(self, judgements: Judgements, listings: Sequence[TrainListing]) -> None:
        self._judgements, self._listings = judgements, listings
        self._number = {listing.id: i for i, listing in enumerate(listings)}
        products: dict[str, list[int]] = {}
        for i, listing in enumerate(listings):
            products.setdefault(listing.identity, []).append(i)
        self._products = {identity: frozenset(found) for identity, found in products.items()}
        self._alike: dict[Hashable, frozenset[int]] = {}
        self._found: dict[Hashable, frozenset[int]] = {}

    def of(self, reference: int, target: int, record: Record, window: str) -> frozenset[int]:
        """Return the numbers of the listings; `record` is the target's."""
        common, ids = self._judgements.alike(record, window)
        if common not in self._alike:
            self._alike[common] = frozenset(self._number[id] for id in ids if id in self._number)
        alike = self._alike[common]
        own, other = (self._products[self._listings[i].identity] for i in (target, reference))
        more, less = own - alike, other & alike  # nearly always empty
        key = (common, more, less)
        if key not in self._found:
            self._found[key] = (alike | more) - less if more or less else alike
        return self._found[key]


class _Edited:
    """Writes the attributes of a reference with a change made."""

    def __init__(
        self, work: Workspace, listings: Sequence[TrainListing], number: Mapping[str, int], source: str
    ) -> None:
        settings = work.settings
        self.wanted = settings.search.known_attributes and settings.embed.enrich != "none"
        self.listings, self.number, self.source = listings, number, source

    def of(self, reference: Record, wish: str) -> str:
        """Return the edited attribute text, "" where it is not wanted or nothing is known of the reference."""
        if not self.wanted:
            return ""
        generated = self.listings[self.number[reference.id]].attributes.get(LISTING, "")
        known = read_stored(generated or (reference.text if self.source == "given" else ""))
        return changed_attributes(known, read_change(wish).pairs) if known else ""


def _values(captions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for caption in captions:
        for key, value in read_stored(caption).items():
            found.setdefault(folded(key), {}).setdefault(value)
    return {key: tuple(sorted(values)) for key, values in found.items()}
