"""Verified pairs -> groups in which every two listings are verified: complete link, never chains.

From the best pair down, the groups of its two listings become one if each pair across them is verified, and none is
rejected. a~b and b~c do not put a and c together: without a verified a~c the group is {a, b}. What the shop or a
person says is one product (`joined`) stays together from the start.

One departure from complete-link clustering as textbooks have it: it merges in the order of the pairs' own scores, not
of the weakest pair between two groups, so that no table of all distances is needed. Every group is a clique either
way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..catalog.verdicts import join

Pair = tuple[int, int]


def complete_link(
    verified: Mapping[Pair, float], joined: Iterable[Pair] = (), rejected: frozenset[Pair] = frozenset()
) -> list[list[int]]:
    """Return groups of two and more rows, in order. `verified` are scores of pairs (lower row first), `joined` pairs
    that are one whatever their score; `rejected` pairs are never in one group unless `joined` says so.
    """
    group_of: dict[int, int] = {}
    members: dict[int, list[int]] = {}

    def group(row: int) -> int:
        if row not in group_of:
            group_of[row] = row
            members[row] = [row]
        return group_of[row]

    def merge(one: int, other: int) -> None:
        for row in members[other]:
            group_of[row] = one
        members[one] += members.pop(other)

    for a, b in joined:
        if group(a) != group(b):
            merge(group(a), group(b))
    for (a, b), _ in sorted(verified.items(), key=lambda item: (-item[1], item[0])):
        one, other = group(a), group(b)
        if one == other:
            continue
        across = [ordered(x, y) for x in members[one] for y in members[other]]
        if all(pair in verified and pair not in rejected for pair in across):
            merge(one, other)
    return sorted(sorted(rows) for rows in members.values() if len(rows) > 1)


def components(pairs: Iterable[Pair]) -> list[list[int]]:
    """Return rows that hang together by chains of pairs: what a group can be at most."""
    found: dict[int, list[int]] = {}
    for row, first in join(pairs).items():
        found.setdefault(first, []).append(row)
    return [sorted(rows) for rows in found.values()]


def ordered(a: int, b: int) -> Pair:
    """Return a pair as it is stored: the lower row first."""
    return (a, b) if a < b else (b, a)
