"""Which candidates become triplets: those that hold at both ends, none of which dominates.

    product   is the reference of at most `triplets.per_product` triplets of each window, and the target of as many;
              a product, not a listing: by identity
    key       of the targets that a reference has to choose from, the one whose changed key has been rarest so far is
              taken; then triplets that change one key alone are at most `triplets.key_share` of variants and near ones
              (KEPT of them in any case), a random rest is dropped

All else that is dropped is counted with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..settings import TripletSettings
from .change import change_between, fault_of
from .records import Record
from .verdicts import Verdicts
from .windows import MOST_CHANGED, WINDOWS, Candidates, Encoded, hashed

KEPT = 200
"""Triplets of one key that are never too many."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A chosen reference and target as rows of the records, with the changed keys."""

    reference: int
    target: int
    window: str
    keys: tuple[str, ...]
    confirmed: bool = False


@dataclass
class Chosen:
    """What was chosen, and why the other candidates were not: counts by reason."""

    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _Choice:
    """Chooses among the candidates of one window after the other."""

    def __init__(self, rows: Sequence[Record], verdicts: Verdicts, settings: TripletSettings) -> None:
        self.rows, self.verdicts, self.settings = rows, verdicts, settings
        self.chosen = Chosen()
        self._used: set[tuple[int, int]] = set()
        self._keys: Counter[str] = Counter()
        self._references: Counter[tuple[str, str]] = Counter()
        self._targets: Counter[tuple[str, str]] = Counter()

    def confirm(self, reference: int, target: int) -> None:
        """Take a triplet that a person confirmed, if anything still differs."""
        one, other = self.rows[reference], self.rows[target]
        change = change_between(one, other)
        if one.identity == other.identity or not change:
            self.chosen.dropped["confirmed, but nothing differs now"] += 1
            return
        alike = one.group and one.group == other.group
        window = "far" if len(change) > MOST_CHANGED else "variants" if alike else "near"
        self._take(Pair(reference, target, window, tuple(change), True))

    def choose(self, reference: int, targets: Sequence[int], window: str) -> None:
        """Choose the triplets of a reference among its candidates."""
        one = self.rows[reference]
        options: list[Pair] = []
        for target in targets:
            other = self.rows[target]
            change = change_between(one, other)
            if (one.id, other.id) in self.verdicts.rejected:
                self.chosen.dropped["rejected by a person"] += 1
            elif fault := fault_of(one, other, change):
                self.chosen.dropped[fault] += 1
            elif (reference, target) not in self._used:
                options.append(Pair(reference, target, window, tuple(change)))
        while options:
            best = min(options, key=lambda pair: max(self._keys[key] for key in pair.keys))
            options.remove(best)
            if self._references[window, one.identity] >= self.settings.per_product:
                self.chosen.dropped["its reference has enough targets"] += 1 + len(options)
                return
            if self._targets[window, self.rows[best.target].identity] >= self.settings.per_product:
                self.chosen.dropped["its target has enough references"] += 1
            else:
                self._take(best)

    def _take(self, pair: Pair) -> None:
        self.chosen.pairs.append(pair)
        self._used.add((pair.reference, pair.target))
        self._keys.update(pair.keys)
        self._references[pair.window, self.rows[pair.reference].identity] += 1
        self._targets[pair.window, self.rows[pair.target].identity] += 1


def choose(
    rows: Sequence[Record],
    encoded: Encoded,
    found: Mapping[str, Candidates],
    verdicts: Verdicts,
    settings: TripletSettings,
) -> Chosen:
    """Choose the triplets, in the order of windows and of the references' hashes."""
    choice = _Choice(rows, verdicts, settings)
    for reference, target in _confirmed(rows, verdicts):
        choice.confirm(reference, target)
    for window in (window for window in WINDOWS if window in found):
        targets = found[window].targets
        for reference in encoded.order.tolist():
            choice.choose(reference, [target for target in targets[reference].tolist() if target >= 0], window)
    chosen = choice.chosen
    kept = _balanced(chosen.pairs, rows, settings)
    chosen.dropped["too many of one key"] += len(chosen.pairs) - len(kept)
    place = {window: at for at, window in enumerate(WINDOWS)}
    kept.sort(key=lambda pair: place[pair.window])
    return Chosen(kept, +chosen.dropped)


def _confirmed(rows: Sequence[Record], verdicts: Verdicts) -> Iterator[tuple[int, int]]:
    """Yield the confirmed triplets of listings that are among `rows`; others are of another split, or gone."""
    if verdicts.confirmed:
        row_of = {record.id: at for at, record in enumerate(rows)}
        for reference, target in sorted(verdicts.confirmed):
            if reference in row_of and target in row_of:
                yield row_of[reference], row_of[target]


def _balanced(pairs: Sequence[Pair], rows: Sequence[Record], settings: TripletSettings) -> list[Pair]:
    """Return the pairs without those that make one key dominate."""
    close = [pair for pair in pairs if pair.window != "far"]
    alone = Counter(pair.keys[0] for pair in close if len(pair.keys) == 1)
    if not alone or settings.key_share == 1:
        return list(pairs)
    key, number = alone.most_common(1)[0]
    others = len(close) - number
    most = max(KEPT, int(others * settings.key_share / (1 - settings.key_share)))
    if not others or number <= most:
        return list(pairs)
    among = [pair for pair in close if pair.keys == (key,)]
    among.sort(key=lambda p: (not p.confirmed, hashed(settings.seed, rows[p.reference].id, rows[p.target].id)))
    gone = {(pair.reference, pair.target) for pair in among[most:] if not pair.confirmed}
    return [pair for pair in pairs if (pair.reference, pair.target) not in gone]
