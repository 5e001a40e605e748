"""The leaderboard: what each stage made, scored on the same queries, and whether it was accepted.

    accepted    its metric (`cycle.metric`) on the validation split is not below that of the last accepted stage
    rejected    it fell, or nothing came of it: the next stage goes on from the last accepted one
    undecided   the validation split has fewer than LEAST_PRODUCTS products to ask about: `cycle.undecided` decides

Interval and test of the difference (paired, over the validation queries) say whether a change is more than luck; they
are shown, and do not decide: with a few hundred queries most single steps stay within the noise, and going on from
the higher metric is right more often than not.

The test split takes no part in any of this. It is scored once, after the last decision, so that its metrics are those
of a system that was chosen without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from ..catalog.splits import LEAST_PRODUCTS
from ..evaluation.compare import signed
from ..evaluation.protocols import SHOWS
from ..settings import Settings
from .records import Record
from .stages import Scored


@dataclass(frozen=True)
class System:
    """What answers: names of checkpoints ("" for the bare bases), and whether queries get attributes."""

    embedder: str = ""
    generator: str = ""
    enriched: bool = False


@dataclass(frozen=True)
class StageResult:
    """What a stage made. `key` names its scores ("": nothing to score), `validation` and `test` are their records
    (None: not scored), `against` is the stage that it is compared with. `accepted`: what follows goes on from it;
    `baseline`: it is there to compare with.
    """

    name: str
    round: int
    system: System
    key: str = ""
    validation: Record | None = None
    against: str = ""
    accepted: bool = True
    baseline: bool = False
    note: str = ""
    test: Record | None = None

    def record(self, split: Scored) -> Record | None:
        """Return the score on a split."""
        return self.validation if split == "validation" else self.test

    def value(self, metric: str, split: Scored = "validation") -> float | None:
        """Return the metric on a split; None where it was not scored."""
        record = self.record(split)
        return float(record.result["metrics"][metric]) if record else None

    def products(self) -> int:
        """Return the products that the validation queries are about: independent of each other, unlike queries."""
        return int(self.validation.result["groups"]) if self.validation else 0

    def change(self, metric: str, split: Scored = "validation", to: str = "differences") -> dict[str, Any] | None:
        """Return the paired difference to the stage before, or to the first one (`to` = from_base): value, other,
        difference, low, high, p, verdict.
        """
        record = self.record(split)
        found = record.result.get(to, {}).get(metric) if record else None
        return dict(found) if found else None

    def describe(self, metric: str) -> dict[str, Any]:
        """Describe it for JSON: what it is and its metrics."""
        return {
            "name": self.name,
            "round": self.round,
            "embedder": self.system.embedder,
            "generator": self.system.generator,
            "attributes": self.system.enriched,
            "against": self.against,
            "accepted": self.accepted,
            "baseline": self.baseline,
            "note": self.note,
            "validation": self._scores(metric, "validation"),
            "test": self._scores(metric, "test"),
        }

    def _scores(self, metric: str, split: Scored) -> dict[str, Any] | None:
        record = self.record(split)
        if record is None:
            return None
        result = record.result
        return {
            "score": result["place"],
            "queries": result["queries"],
            "products": result["groups"],
            "gallery": result["gallery"],
            "queries_with_attributes": result["with_attributes"],
            "metrics": result["metrics"],
            "intervals": result["intervals"],
            "change": self.change(metric, split),
            "change_from_base": self.change(metric, split, "from_base"),
        }


def shows(settings: Settings, results: Sequence[StageResult]) -> list[str]:
    """Say what a query and the gallery show, and where stages with attributes put them; [] where nothing was scored."""
    scored = (each.record(split) for each in results for split in get_args(Scored))
    protocol = next((record.result["protocol"] for record in scored if record), "")
    if not protocol:
        return []
    query, gallery = SHOWS[protocol]
    most = settings.model.embedder_images
    photos = "all photos of a listing" if not most else "a listing's first photo" if most == 1 else f"{most} photos"
    sides = "the query" if settings.embed.enrich == "query" else "the query and on what is searched"
    fields = {f"eval.{name}": getattr(settings.eval, name) for name in ("query_fields", "gallery_fields")}
    narrowed = ", ".join(f"{name} = {value}" for name, value in fields.items() if value)
    return [
        f"a query shows {query}; searched are {gallery} ({protocol})",
        *([f"of that the fields that are set: {narrowed}"] if narrowed else []),
        f"the embedder is shown {photos}; stages with attributes have them on {sides}",
    ]


def chosen_settings(content: Mapping[str, Any]) -> list[str]:
    """Return as KEY=VALUE what `content` (cycle.json) has chosen: checkpoints, and that queries and gallery go without
    attributes where no stage with them was accepted.
    """
    named = [f"model.{role}_checkpoint={name}" for role, name in sorted(content["lineage"].items()) if name]
    return named if content["attributes"] else [*named, "embed.enrich=none"]


def accept(result: StageResult, last: StageResult, metric: str, *, keep_worse: bool, undecided: str) -> StageResult:
    """Return `result` with the decision, compared with `last`, the last accepted stage."""
    value, before = result.value(metric), last.value(metric)
    if value is None or before is None or result.products() < LEAST_PRODUCTS:
        few = f"validation queries are about {result.products()} products, too few to decide by ({LEAST_PRODUCTS})"
        if undecided == "accept":
            return replace(result, note=f"{few}: accepted undecided (cycle.undecided)")
        return replace(result, accepted=False, note=f"{few}: rejected, as cycle.undecided says")
    if value >= before:
        return result
    if keep_worse:
        return replace(result, note=f"{metric} fell, accepted all the same (cycle.keep_worse)")
    return replace(result, accepted=False, note=f"{metric} fell: rejected, the next stage goes on from {last.name}")


def last_accepted(results: Sequence[StageResult]) -> StageResult:
    """Return the stage that what follows goes on from."""
    return next(result for result in reversed(results) if result.accepted and not result.baseline)


def leaderboard(results: Sequence[StageResult], metric: str, split: Scored) -> list[list[object]]:
    """Return it as a table: stage, metric, interval, change to the stage before, verdict; by the validation split, what
    became of it.
    """
    rows: list[list[object]] = []
    for result in results:
        state = "baseline" if result.baseline else "accepted" if result.accepted else "rejected"
        state = state if result.against else "start"
        record, change = result.record(split), result.change(metric, split)
        row: list[object] = [result.name, "-", "-", "-", ""]
        if record is not None:
            low, high = record.result["intervals"][metric]
            row[1:3] = [f"{result.value(metric, split):.3f}", f"{low:.3f} to {high:.3f}"]
        if change:
            row[3:] = [f"{change['difference']:+.3f}", change["verdict"]]
        rows.append([*row, state] if split == "validation" else row)
    return rows


def columns(metric: str, split: Scored) -> list[str]:
    """Name the columns of the table."""
    found = ["stage", metric, "interval", "change", "verdict"]
    return [*found, ""] if split == "validation" else found


def in_all(first: str, last: str, change: Mapping[str, Any] | None, metric: str) -> str:
    """Return what all of it brought on the test split, in words; `change` is the last accepted stage's difference to
    the first.
    """
    if change is None:
        return f"{metric} is that of {first}: no stage was accepted after it"
    summary = f"{metric} {change['other']:.3f} -> {change['value']:.3f} from {first} to {last} on the test split"
    ends = f"{signed(change['low'], 3)} to {signed(change['high'], 3)}"
    return f"{summary}: {change['difference']:+.3f} ({ends}), {change['verdict']}"
