"""Which negatives a run weighted or masked, and why: counted as it trains, written as a report at the end.

The pairs that the model, at that moment, found more like the query than its own positive by the margin are what the
mask takes out. They are counted and listed, with similarity and shared attributes, whether there is a mask or not:
some are duplicates that the catalog does not know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..escaping import markdown, write_csv
from ..store.files import write_json, writing
from .pairs import TrainListing

B_EDGES = (0.0, 1e-9, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Edges of the histogram of B; the first bin holds those that share nothing, the last all from 32 up."""
W_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
"""Edges of the histogram of ln(w), w the weight of a negative."""
KEEP = 20_000
SHOW = 20


@dataclass
class SimilarPair:
    """Two listings (numbers, the lower first) above the margin: how often, and at the highest similarity."""

    times: int
    similarity: float
    positive: float


@dataclass
class Negatives:
    """Counts over a run; `similar` is bounded, the least similar pairs go first. `masks`: they were masked."""

    masks: bool = True
    negatives: int = 0
    too_similar: int = 0
    known: int = 0
    b_counts: list[int] = field(default_factory=lambda: [0] * len(B_EDGES))
    w_counts: list[int] = field(default_factory=lambda: [0] * len(W_EDGES))
    similar: dict[tuple[int, int], SimilarPair] = field(default_factory=dict)

    def add(
        self,
        query: NDArray[np.int64],
        target: NDArray[np.int64],
        weights: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
        cosines: NDArray[np.float32],
        too_similar: NDArray[np.bool_],
        known: NDArray[np.bool_],
    ) -> None:
        """Count one batch: `query` and `target` [n] are listing numbers, the rest is [n, n]. `weights` are B and ln w;
        None where attributes weigh nothing.
        """
        other = ~np.eye(len(query), dtype=bool)
        self.negatives += int(other.sum())
        self.too_similar += int(too_similar.sum())
        self.known += int(known.sum())
        if weights is not None:
            _count(self.b_counts, B_EDGES, weights[0][other])
            _count(self.w_counts, W_EDGES, weights[1][other])
        for i, j in zip(*np.nonzero(too_similar), strict=True):
            first, second = sorted((int(query[i]), int(target[j])))
            seen = self.similar.setdefault((first, second), SimilarPair(0, -1.0, 0.0))
            seen.times += 1
            if cosines[i, j] > seen.similarity:
                seen.similarity, seen.positive = float(cosines[i, j]), float(cosines[i, i])
        if len(self.similar) > 2 * KEEP:
            self.similar = dict(self._nearest(KEEP))

    def _nearest(self, number: int) -> list[tuple[tuple[int, int], SimilarPair]]:
        return sorted(self.similar.items(), key=lambda item: (-item[1].similarity, item[0]))[:number]

    def as_json(self) -> dict[str, Any]:
        """Return it for the state that a killed run goes on from."""
        pairs = [[i, j, pair.times, pair.similarity, pair.positive] for (i, j), pair in self.similar.items()]
        return {**{name: getattr(self, name) for name in _COUNTS}, "similar": pairs}

    @staticmethod
    def from_json(content: dict[str, Any]) -> Negatives:
        """Return the inverse of `as_json`."""
        made = Negatives(**{name: content[name] for name in _COUNTS})
        made.similar = {(i, j): SimilarPair(times, s, p) for i, j, times, s, p in content["similar"]}
        return made

    def summary(self) -> dict[str, Any]:
        """Return shares and histograms, for reports and --json."""
        total = max(1, self.negatives)
        return {
            "negatives": self.negatives,
            "too_similar_share": self.too_similar / total,
            "masked_share": self.too_similar / total if self.masks else 0.0,
            "known_share": self.known / total,
            "similar_pairs": len(self.similar),
            "bm25": {"from": list(B_EDGES), "count": self.b_counts},
            "log_weight": {"from": list(W_EDGES), "count": self.w_counts},
        }

    def write(self, run: Path, listings: Sequence[TrainListing], tokens: Sequence[Sequence[str]]) -> None:
        """Write negatives.json, similar_pairs.csv (the most similar first) and negatives.md in the run's folder."""
        write_json(run / "negatives.json", self.summary())
        rows = []
        for (i, j), pair in self._nearest(KEEP):
            shared = sorted(set(tokens[i]) & set(tokens[j]))
            title = [listings[k].text.split("\n", 1)[0].removeprefix("Title: ") for k in (i, j)]
            numbers = [f"{pair.similarity:.4f}", f"{pair.positive:.4f}", pair.times]
            rows.append([listings[i].id, listings[j].id, *numbers, " ".join(shared), *title])
        with writing(run / "similar_pairs.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            names = ["id", "other_id", "similarity", "positive", "times", "shared", "title", "other_title"]
            write_csv(file, [names, *rows])
        with writing(run / "negatives.md") as temporary:
            temporary.write_text(self._page(rows), "utf-8")

    def _page(self, rows: Sequence[Sequence[object]]) -> str:
        summary = self.summary()
        done = "masked" if self.masks else "not masked"
        lines = [
            "# Negatives of this run",
            "",
            f"{self.negatives:,} pairs of a query and another product's target met in batches.",
            f"- more similar than the positive by the margin, and {done}: {summary['too_similar_share']:.3%}",
            f"- left out, the same product or identical content: {summary['known_share']:.3%}",
            "",
            "| BM25 of the attributes from | share |",
            "| --- | --- |",
        ]
        counted = max(1, sum(self.b_counts))
        lines += [f"| {edge:g} | {n / counted:.2%} |" for edge, n in zip(B_EDGES, self.b_counts, strict=True)]
        lines += ["", "| weight from | share |", "| --- | --- |"]
        edges = [float(np.exp(edge)) for edge in W_EDGES]
        lines += [f"| {edge:.2f} | {n / counted:.2%} |" for edge, n in zip(edges, self.w_counts, strict=True)]
        lines += [
            "",
            f"## The most similar of them, {done}: probable duplicates ({len(self.similar):,} in similar_pairs.csv)",
        ]
        lines += [
            "",
            "| id | other | similarity | positive | times | shared attributes |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += ["| " + " | ".join(map(markdown, row[:6])) + " |" for row in rows[:SHOW]]
        return "\n".join(lines) + "\n"


_COUNTS = ("masks", "negatives", "too_similar", "known", "b_counts", "w_counts")


def _count(counts: list[int], edges: Sequence[float], values: NDArray[np.float64]) -> None:
    found = np.searchsorted(np.asarray(edges), values, side="right") - 1
    for i, number in enumerate(np.bincount(np.clip(found, 0, len(edges) - 1), minlength=len(edges))):
        counts[i] += int(number)
