"""The ladder: each rung is a system, scored on the same queries and compared with the one it would replace.

    kept        its figure (`cycle.metric`) is not below that of the last rung that was kept
    kept out    it fell, or nothing came of it: the next stage goes on from the last rung that was kept

The interval and the test of the difference (paired, over the test queries) say whether a change is more than luck; they
are told, and do not decide: with a few hundred queries most single steps stay within the noise, and going on from the
higher figure is right more often than not. Since the test queries take part in that choice, the last rung's figure is
that of the best of a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .records import Record


@dataclass(frozen=True)
class System:
    """What answers: names of checkpoints ("" for the bare bases), and whether queries get attributes."""

    embedder: str = ""
    generator: str = ""
    enriched: bool = False


@dataclass(frozen=True)
class Rung:
    """A step of the ladder. `record` is that of its score (None: it was not scored), `against` the rung that it is
    compared with. `kept`: what follows goes on from it; `baseline`: it is there to compare with.
    """

    name: str
    round: int
    system: System
    record: Record | None
    against: str = ""
    kept: bool = True
    baseline: bool = False
    note: str = ""

    def figure(self, metric: str) -> float:
        """A figure of the test queries."""
        if self.record is None:
            raise ValueError(f"{self.name} was not scored")
        return float(self.record.result["metrics"][metric])

    def difference(self, metric: str, to: str = "differences") -> dict[str, Any] | None:
        """The paired difference to the rung before, or to the first one (`to` = from_base): value, other, difference,
        low, high, p, verdict.
        """
        found = self.record.result.get(to, {}).get(metric) if self.record else None
        return dict(found) if found else None

    def describe(self, metric: str) -> dict[str, Any]:
        """For JSON: what it is and its figures."""
        told = self.record.result if self.record else {}
        return {
            "name": self.name,
            "round": self.round,
            "embedder": self.system.embedder,
            "generator": self.system.generator,
            "attributes": self.system.enriched,
            "queries_with_attributes": told.get("with_attributes"),
            "metrics": told.get("metrics", {}),
            "intervals": told.get("intervals", {}),
            "against": self.against,
            "change": self.difference(metric),
            "change_from_base": self.difference(metric, "from_base"),
            "kept": self.kept,
            "baseline": self.baseline,
            "note": self.note,
            "score": told.get("place"),
        }


def judged(rung: Rung, last: Rung, metric: str, *, keep_worse: bool) -> Rung:
    """`rung` with the decision, compared with `last`, the last one that was kept."""
    if rung.figure(metric) >= last.figure(metric):
        return rung
    if keep_worse:
        return replace(rung, note=f"{metric} fell, kept all the same (cycle.keep_worse)")
    return replace(rung, kept=False, note=f"{metric} fell: kept out, the next stage goes on from {last.name}")


def rows(ladder: list[Rung], metric: str) -> list[list[object]]:
    """The ladder as a table: rung, figure, interval, change, interval of the change, verdict, kept."""
    found: list[list[object]] = []
    for rung in ladder:
        if rung.record is None:
            found.append([rung.name, "-", "-", "-", "-", "", rung.note])
            continue
        low, high = rung.record.result["intervals"][metric]
        change = rung.difference(metric)
        told = ["", "", ""]
        if change:
            told = [f"{change['difference']:+.4f}", _span(change), f"{change['verdict']} (vs {rung.against})"]
        state = "baseline" if rung.baseline else "kept" if rung.kept else "kept out"
        found.append([rung.name, f"{rung.figure(metric):.4f}", f"{low:.3f} to {high:.3f}", *told, state])
    return found


def in_all(first: str, last: str, change: Mapping[str, Any] | None, metric: str) -> str:
    """What all of it brought, in words; `change` is the last kept rung's difference to the first."""
    if change is None:
        return f"{metric} is that of {first}: no rung was better"
    told = f"{metric} {change['other']:.3f} -> {change['value']:.3f} from {first} to {last}"
    return f"{told}: {change['difference']:+.3f} ({_span(change)}), {change['verdict']}"


def _span(change: Mapping[str, Any]) -> str:
    return f"{change['low']:+.3f} to {change['high']:+.3f}"


COLUMNS = ("rung", "", "interval", "change", "interval of the change", "verdict", "")
