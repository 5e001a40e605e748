"""The stage after the rounds that teaches "this one, but in red" (`cycle.composed`), and what that brought.

    training    from the last accepted embedder, with the attributes of the last accepted generator
    before      composed queries answered by what was accepted last
    after       the same queries, by the checkpoint that came of it

Queries are made from variants, as `eval --protocol composed` makes them. Where they are about too few products of the
validation split, the training's own metrics stand there: of its triplets, by which its best step was chosen. Nothing
goes on from this checkpoint: the best embedder for plain search stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..catalog.splits import LEAST_PRODUCTS
from ..composed.run import COMPOSED
from ..errors import DataError
from ..evaluation.build import TaskSpec
from ..evaluation.compare import signed
from ..evaluation.report import independent_queries
from ..settings import Settings
from .records import Record
from .stage_results import StageResult, System, chosen_settings
from .stage_work import StageWork
from .stages import Scored

KEY, BEFORE, AFTER = "composed", "composed-before", "composed-after"
CUTS = {"R@1": 1, "R@10": 10}
"""R@k: share of the queries with a right listing among the first k, for which `eval` has hit@k too."""


class ComposedStage:
    """The stage of one cycle. `wishes` are the products that composed queries made from variants are about."""

    def __init__(self, do: StageWork) -> None:
        self.do, settings = do, do.work.settings
        self.wanted = settings.cycle.composed
        self._sections = _asking(settings)
        self.wishes: dict[Scored, int] = self._wishes() if self.wanted else {}
        self.last: StageResult | None = None
        self.trained: Mapping[str, Any] = {}
        self.asked: dict[Scored, tuple[Record, Record]] = {}

    def _wishes(self) -> dict[Scored, int]:
        model, found = self.do.work.settings.model, dict[Scored, int]()
        work = self.do.with_models(model.embedder_checkpoint, model.generator_checkpoint, **self._sections)
        for split in self.do.num_products:
            try:
                found[split] = independent_queries(work, TaskSpec("composed", split=split))[1]
            except DataError:  # the catalog has no variants
                found[split] = 0
        return found

    def planned(self, stages: list[tuple[str, str, float]], scored: Sequence[Scored]) -> list[tuple[str, str, float]]:
        """Return the stages of a cycle (name, kind, share of what its kind takes) with those of this one between them;
        `scored` are the splits that there are plain queries of.
        """
        if not self.wanted:
            return stages
        own = [(KEY, KEY, 1.0)]
        tests = [each for each in stages if each[0].endswith("-test")]
        asked = {split: [BEFORE, AFTER] if self._enough(split) else [] for split in self.wishes}
        if self.do.work.settings.cycle.protocol != KEY:
            asked = {split: [KEY] * (split in scored) + names for split, names in asked.items()}
        own += [(f"{name}-score", "score", 1.0) for name in asked["validation"]]
        tests += [(f"{name}-test", "score", 1.0) for name in asked["test"]]
        return [*(each for each in stages if each not in tests), *own, *tests]

    def train(self, last: StageResult) -> System | None:
        """Train from `last`; the system that it made, None where nothing came of it."""
        self.trained = self.do.train(KEY, COMPOSED, self.do.with_system(last.system))
        self.last = last
        made = str(self.trained["checkpoint"])
        return replace(last.system, embedder=made) if made else None

    def ask(self, split: Scored) -> None:
        """Ask the composed queries of `split` before and after, where there are any to go by."""
        last = self.last
        if last is None or not self.trained["checkpoint"] or not self.wishes[split] or self._by_triplets(split):
            return
        before = self.do.score(BEFORE, last.system, split, (None, None), **self._sections)
        made = replace(last.system, embedder=str(self.trained["checkpoint"]))
        self.asked[split] = before, self.do.score(AFTER, made, split, (before, None), **self._sections)

    def _enough(self, split: Scored) -> bool:
        """Tell whether variants are about enough products: any will do on the test split, where nothing is decided."""
        return self.wishes[split] >= (LEAST_PRODUCTS if split == "validation" else 1)

    def _by_triplets(self, split: Scored) -> bool:
        """Tell whether the training's own triplets stand in for variants that are about too few products."""
        return split == "validation" and not self._enough(split) and bool(self.trained.get("validation"))

    def places(self) -> list[str]:
        """Return the folders of its scores."""
        return [record.result["place"] for both in self.asked.values() for record in both]

    def describe(self) -> dict[str, Any] | None:
        """Describe it for cycle.json; None where it was not wanted or has not come yet."""
        if self.last is None:
            return None
        asked = {split: _asked(*both) for split, both in self.asked.items()}
        if self.trained["checkpoint"] and self._by_triplets("validation"):
            asked["validation"] = _of_training(self.trained)
        return {
            "checkpoint": self.trained["checkpoint"],
            "against": self.last.name,
            "embedder": self.last.system.embedder,
            "generator": self.last.system.generator,
            "attributes": self.last.system.enriched,
            "query_adapter": self.trained.get("query_adapter", False),
            "accepted": _accepted(asked.get("validation")),
            "note": self.note,
            "validation": asked.get("validation"),
            "test": asked.get("test"),
        }

    @property
    def note(self) -> str:
        """Say why nothing came of it, or how it was measured."""
        if not self.trained["checkpoint"]:
            refused = self.trained.get("refused")
            return f"skipped: {refused}" if refused else "no step was better than the start"
        missing = [split for split, products in self.wishes.items() if not products]
        note = f"no variants to ask for in the {' and in the '.join(missing)} split" if missing else ""
        if "validation" in missing and not self.trained["validation"]:
            note += "; too few triplets in the validation split, so its last step was kept"
        return note


def _asking(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Return the settings under which composed queries are asked: whole ones, with the cuts that are shown."""
    label = settings.eval.label if settings.cycle.protocol == "composed" else ""
    ks = sorted({*settings.eval.ks, *CUTS.values()})
    own = {"ks": ks, "depth": max(ks[-1], settings.eval.depth), "query_fields": "", "label": label}
    return {"cycle": {"protocol": "composed"}, "eval": own}


def _asked(before: Record, after: Record) -> dict[str, Any]:
    sides = {"before": before.result, "after": after.result}
    found = {name: {cut: result["metrics"][f"hit@{k}"] for cut, k in CUTS.items()} for name, result in sides.items()}
    intervals = {
        name: {cut: result["intervals"][f"hit@{k}"] for cut, k in CUTS.items()} for name, result in sides.items()
    }
    result = after.result
    return {
        "asked": "variants",
        "wish": result["wish"],
        "queries": result["queries"],
        "products": result["groups"],
        "gallery": result["gallery"],
        **found,
        "intervals": intervals,
        "change": {cut: result["differences"][f"hit@{k}"] for cut, k in CUTS.items()},
        "scores": [before.result["place"], result["place"]],
    }


def _of_training(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the metrics of the training's validation triplets, of which each has one target: recall is R@k."""
    first = next(iter(trained["stages"].values()))
    sides = {"before": first["before"], "after": trained["metrics"]}
    return {
        "asked": "triplets",
        "wish": "",
        **trained["validation"],
        "products": None,
        **{
            name: {**{cut: metrics[f"recall@{k}"] for cut, k in CUTS.items()}, "mrr": metrics["mrr"]}
            for name, metrics in sides.items()
        },
        "intervals": None,
        "change": None,
        "scores": [],
    }


def _accepted(asked: Mapping[str, Any] | None) -> bool | None:
    """Tell whether R@10 on the validation split, of triplets mrr, did not fall; None where nothing was measured."""
    if asked is None:
        return None
    by = "mrr" if asked["asked"] == "triplets" else "R@10"
    return bool(asked["after"][by] >= asked["before"][by])


def composed_table(found: Mapping[str, Any]) -> tuple[list[str], list[list[object]], str]:
    """Return (columns, rows, title) of what `found` (of cycle.json) brought; a row per split that was asked."""
    rows: list[list[object]] = []
    for split, asked in splits_asked(found).items():
        values = [f"{asked['before'][cut]:.3f} -> {asked['after'][cut]:.3f}" for cut in CUTS]
        change, ends = asked["after"]["R@10"] - asked["before"]["R@10"], "-"
        if asked["change"]:
            ends = " to ".join(signed(asked["change"]["R@10"][end], 3) for end in ("low", "high"))
        rows.append([split, *values, f"{change:+.3f}", ends])
    title = f"composed queries, {found['against']} -> {found['checkpoint']}; change and interval of R@10"
    return ["split", *CUTS, "change", "interval"], rows, title


def composed_lines(found: Mapping[str, Any]) -> list[str]:
    """Say of `found` (of cycle.json) what was asked in each split, and what else is to be known."""
    lines = []
    for split, asked in splits_asked(found).items():
        if asked["asked"] == "triplets":
            what = f"{asked['queries']:,} triplets of training's own validation, by which its best step was chosen"
        else:
            few = ", too few to tell by" if asked["products"] < LEAST_PRODUCTS else ""
            what = f"{asked['queries']:,} queries such as “{asked['wish']}”, about {asked['products']:,} styles{few}"
        lines.append(f"{split}: {what}; {asked['gallery']:,} listings are searched")
    return lines + ([found["note"]] if found["note"] else [])


def splits_asked(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what `found` says of each split that was asked, by its name."""
    return {split: found[split] for split in ("validation", "test") if found[split]}


def use_composed(content: Mapping[str, Any]) -> list[str]:
    """Return as KEY=VALUE what answers composed queries, of `content` (cycle.json)."""
    made = content["composed"]["checkpoint"]
    return chosen_settings({**content, "lineage": {**content["lineage"], "embedder": made}})
