"""What a history's listings share above what the catalog has by chance, in the shop's own attributes.

    k of n   listings of the history have a value, a share p of the catalog's listings has it
    G        k log(k / (n p)) + (n - k) log((n - k) / (n (1 - p))),   for k / n > p

G is the log-likelihood ratio against chance. A value is a taste from G >= LEAST on (95 %), and where at least
LEAST_COUNT listings of the history have it, or the only one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .gallery import Gallery, GalleryListing, Value

LEAST, LEAST_COUNT, SHOWN = 1.92, 2, 3


@dataclass(frozen=True)
class Taste:
    """A value that `count` of `listings` in the history have, and a `share` of the catalog. `words` are for people."""

    value: Value
    words: str
    count: int
    listings: int
    share: float


def tastes_of(gallery: Gallery, history: Sequence[int]) -> list[Taste]:
    """Return the tastes of a history, given as places of listings, the surest first."""
    described = [gallery.listings[place] for place in sorted(set(history)) if gallery.listings[place].values]
    counts = Counter(value for listing in described for value in listing.values)
    least = min(LEAST_COUNT, len(described))
    found = []
    for value, count in counts.items():
        share = gallery.counts[value] / gallery.described
        evidence = above_chance(count, len(described), share)
        if count >= least and evidence >= LEAST:
            found.append((-evidence, value, Taste(value, gallery.words(value), count, len(described), share)))
    return [taste for *_, taste in sorted(found, key=lambda each: each[:2])]


def above_chance(count: int, of: int, share: float) -> float:
    """Return G, 0 where the history has no more of it than the catalog."""
    if count <= of * share:
        return 0.0
    rest = of - count
    return count * math.log(count / (of * share)) + (rest * math.log(rest / (of * (1 - share))) if rest else 0.0)


def shared_by(listing: GalleryListing, tastes: Sequence[Taste]) -> list[Taste]:
    """Return the surest tastes that a listing meets."""
    return [taste for taste in tastes if taste.value in listing.values][:SHOWN]


def tastes_in_words(tastes: Sequence[Taste]) -> str:
    """Return the surest tastes in words, "" for none."""
    shown = tastes[:SHOWN]
    if not shown:
        return ""
    if shown[0].listings == 1:
        return ", ".join(taste.words for taste in shown)
    often = "mostly" if all(2 * taste.count >= taste.listings for taste in shown) else "often"
    first, *others = shown
    counted = [f"{first.words} ({first.count} of {first.listings})", *(f"{t.words} ({t.count})" for t in others)]
    return f"{often} {', '.join(counted)}"
