"""What a benchmark found, beside what it prints: `python -m benchmarks` collects it for the table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One row of the table. `ratio` is other / ours where less is better, ours / other where more is: above 1
    is to our favour. `low` and `high` are its spread over rounds. What there is none of is None.
    """

    name: str
    ours: float
    other: float | None
    ratio: float | None
    low: float | None
    high: float | None
    aim: str
    more: dict[str, float | str] = field(default_factory=dict)


found: list[Figure] = []
"""The figures of this process, in the order in which they were measured."""


def record(
    name: str,
    ours: float,
    other: float | None = None,
    ratio: float | None = None,
    *,
    spread: list[float] | None = None,
    aim: str = "",
    **more: float | str,
) -> None:
    """Keep a figure for the table; `spread` holds the ratio of each round."""
    low, high = (min(spread), max(spread)) if spread else (None, None)
    found.append(Figure(name, ours, other, ratio, low, high, aim, more))
