"""`cycle` from catalog to leaderboard (CIT): which stage follows which, and from which checkpoints it goes on.

    checks              what is known to fail later fails now
    base                the embedder that the settings name, queries without attributes: zero-shot
    round 1    SFT      the generator learns right answers, where there are any; with `folds` two more, on a half each
               attributes by it; with `folds` of each half by the generator of the other one: what AGCL sees
               InfoNCE on the side, if chosen, with AGCL's pairs and batches
               AGCL     scored: the embedder, queries without attributes
               attributes  scored: the same embedder, queries with attributes
               RAR      scored: attributes by the generator that this embedder has rewarded
    round 2 .. AGCL     scored: goes on from the last embedder, with the last generator's attributes, on `cycle.share`
                        of the products (the paper: 30 %), with `folds` others than before, at a lower rate
               RAR      scored: goes on from the last generator, with `cycle.share` of steps and queries
    composed            the last accepted embedder learns composed queries (`cycle.composed`); nothing goes on from it
    test                every stage's scores on the test split, when nothing is left to decide

A stage is accepted by queries about the validation split. The paper reports one round after the first. Two rounds in a
row that bring nothing end the cycle.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..catalog.folds import Part
from ..catalog.splits import LEAST_PRODUCTS
from ..rar.run import RAR
from ..sft.run import SFT
from ..store.checkpoints import versions
from ..store.files import make_folder, reading, write_json
from ..store.lock import writer_lock
from ..store.runs import next_number
from ..training.run import AGCL
from ..training.shell import Method
from ..workspace import Workspace
from .checks import (
    check_stages,
    choose_protocol,
    choose_targets,
    judged_as_scored,
    products_with_queries,
    test_products_seen,
)
from .composed import KEY, ComposedStage
from .expect import Expected, expect
from .folds import HALVES, FoldPlan, folds_lines, plan_folds, read_plan
from .inputs import Inputs, read_catalog
from .plan import EVERY_ROUND, changed_settings, cycle_key, cycles, of_round, planned, refuse
from .records import InputsChanged, Record, Records, StageNotDone
from .report import write_report
from .stage_results import StageResult, System, accept, last_accepted, shows
from .stage_work import StageWork
from .stages import Scored

SCHEMA = "afmrl.cycle/2"
PATIENCE = 2
"""Rounds in a row that bring nothing, after which the cycle ends."""


@dataclass(frozen=True)
class CycleSummary:
    """What `run_cycle` did or, for a dry run, would do (`expected`). `content` is cycle.json, or its folds."""

    run: Path
    metric: str
    results: list[StageResult] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)


def run_cycle(work: Workspace, *, dry_run: bool = False) -> CycleSummary:
    """Train and score round after round; finished stages are skipped, a stopped one goes on inside.

    Raises UsageError, DataError and ModelError as the stages do, DataError while another command is writing.
    KeyboardInterrupt comes after the stage at hand has saved its state.
    """
    work = work.of_embedder()
    refuse(work.settings)
    with contextlib.nullcontext() if dry_run else writer_lock(work.folder.store, "afmrl cycle", lend=True):
        cycle = Cycle(work, dry=dry_run)
        if dry_run:
            return cycle.expect()
        return cycle.run()


class Cycle:
    """One cycle of a catalog: its folder, the results so far, and the last system that was accepted."""

    def __init__(self, work: Workspace, *, dry: bool) -> None:
        self.work = work.with_settings(judged_as_scored(choose_protocol(work)))
        self.folder, self.settings, self.listener, self.dry = work.folder, self.work.settings, work.listener, dry
        self.metric = self.settings.cycle.metric
        self.place = work.folder.runs / f"cycle-{cycle_key(self.settings)}"
        self.catalog = read_catalog(self.work)
        self._begin()
        self.number = 0
        self.began = time.monotonic()

    def _begin(self) -> None:
        """Begin with nothing done yet, with the catalog as it was read last."""
        self.records = Records(self.place, self.listener, dry=self.dry, changed=self._changed)
        self.work = self.work.with_settings(self.settings)  # ids and the prompt may have changed with the catalog
        self.inputs = Inputs(self.catalog)
        self.results: list[StageResult] = []
        self.targets = choose_targets(self.work)
        self.num_products = products_with_queries(self.work)
        self.flattered = test_products_seen(self.work)
        self.do = StageWork(self.work, self.records, self.inputs, self.num_products)
        self.composed = ComposedStage(self.do)
        self.plan = FoldPlan(None, self.settings.cycle.iterations)  # until `_check` has made it
        self.halves: tuple[str, ...] = ()

    def _changed(self) -> list[str]:
        """Return what is another than at the last reading; what was only written anew is not."""
        before, self.catalog = self.catalog, read_catalog(self.work)
        return self.catalog.differs(before)

    # From the beginning to the end

    def run(self) -> CycleSummary:
        """Run all rounds."""
        if not self.place.is_dir():
            for line in changed_settings(self.folder, self.settings):
                self.listener.note(line)
        make_folder(self.place)
        self.number = next_number(path for path in cycles(self.folder) if path.parent != self.place)
        write_json(self.place / "settings.json", self.settings.model_dump())
        self._tell_sizes()
        stopped = self._all_rounds()
        content = self._write("finished", stopped)
        for name in content["lineage"].values():
            if name:
                self.work.checkpoints.set_best(name)
        places = [record.result["place"] for each in self.results for record in (each.validation, each.test) if record]
        self.records.keep_scores([*places, *self.composed.places()])
        write_report(self.place, self.work)
        return CycleSummary(self.place, self.metric, self.results, content)

    def _all_rounds(self) -> str:
        while True:
            try:
                self._check()
                stopped = self._rounds()
                self._train_composed()
                self._score_test()
                return stopped
            except InputsChanged as error:
                self.listener.warn(
                    f"{', '.join(error.what)} changed while {error.name} was being done: "
                    "what depends on it is done again"
                )
                self._begin()

    def _check(self) -> None:
        """Fail now where a stage would fail later, and divide the training split; once for a catalog and settings."""
        inputs = self.inputs.checks(self.work, self.targets)
        record = self.records.stage("checks", "checks", inputs, lambda before: self._divide().as_json())
        with reading(self.place / "stages" / "checks.json"):
            self._take(read_plan(record.result))

    def _divide(self) -> FoldPlan:
        return plan_folds(self.work, lambda plan: check_stages(self.work, self.targets, plan))

    def _take(self, plan: FoldPlan) -> None:
        self.plan = plan
        for line in folds_lines(plan.content()):
            self.listener.note(line)

    def _tell_sizes(self) -> None:
        """Report whether the validation split can decide, and whether the test split tells anything."""
        validation, test = (self.num_products[split] for split in ("validation", "test"))
        if validation < LEAST_PRODUCTS:
            then = "accepted" if self.settings.cycle.undecided == "accept" else "rejected"
            self.listener.warn(
                f"the validation queries are about {validation:,} products, too few to decide by ({LEAST_PRODUCTS}): "
                f"stages are {then} undecided (cycle.undecided; split.validation is the split's share)"
            )
        if not test:
            self.listener.warn(
                "no query is about the test split (split.test): nothing will say how good what was chosen is"
            )
        elif self.flattered:
            self.listener.warn(self.flattered)

    def _rounds(self) -> str:
        model = self.settings.model
        start = System(model.embedder_checkpoint, model.generator_checkpoint)
        name = start.embedder or "base"
        self._add(StageResult(name, 0, start, "base", self._score("base", start, None)))
        idle, rounds = 0, self.plan.rounds
        for number in range(1, rounds + 1):
            before = self.last
            self._round(number)
            idle = 0 if self._brought(before) else idle + 1
            if idle == PATIENCE and number < rounds:
                return f"rounds {number - 1} and {number} brought nothing"
        return ""

    def _brought(self, before: StageResult) -> bool:
        """Tell whether the round after `before` raised the validation metric, or could not decide."""
        value, then = self.last.value(self.metric), before.value(self.metric)
        return value is None or then is None or before.products() < LEAST_PRODUCTS or value > then

    def _train_composed(self) -> None:
        """Train for composed queries where that is wanted; by the cycle's own queries it is there to compare with."""
        last = self.last
        if not self.composed.wanted:
            return
        system = self.composed.train(last)
        if system is None:
            self.listener.note(f"{KEY}: {self.composed.note}")
        elif self.settings.cycle.protocol != KEY:
            record = self._score(KEY, system, last.validation)
            self._add(StageResult(KEY, last.round, system, KEY, record, last.name, baseline=True))
        self.composed.ask("validation")

    def _score_test(self) -> None:
        """Compute the test split's scores of every stage, now that nothing is left to decide."""
        scored: dict[str, Record] = {}
        for i, result in enumerate(self.results):
            if result.key:
                record = self._score(result.key, result.system, scored.get(result.against), "test")
                self.results[i] = replace(result, test=record)
                scored |= {result.name: record} if record else {}
        self.composed.ask("test")

    def _round(self, number: int) -> None:
        generator, name = self.last.system.generator, "attributes"
        if number == 1:
            start = generator
            generator, name = self._teach(generator)
            self.do.describe("1-attributes", generator)
            if generator != start and self.plan.folds:
                self._teach_halves(start)
            if self.settings.cycle.infonce:
                self._baseline(generator)
        for method in EVERY_ROUND:
            generator = self._improve(number, method, generator)
            if number == 1 and method is EVERY_ROUND[0]:
                self._try(name, number, "1-attributes", System(self.last.system.embedder, generator, True))

    def _improve(self, number: int, method: Method, generator: str) -> str:
        """Train by `method` and try what it made; the generator to go on with, which need not be accepted yet."""
        name, key = (f"round {number}: " if number > 1 else "") + method.title, f"{number}-{method.name}"
        last = self.last
        trained = self._train(number, method, generator)
        made = str(trained["checkpoint"])
        if not made:
            refused = trained.get("refused")
            note = f"skipped: {refused}" if refused else "no step was as good as the start on the held-out queries"
            self._add(StageResult(name, number, last.system, "", None, last.name, False, note=note))
        elif method.role == "embedder":
            self._try(name, number, key, System(made, generator, last.system.enriched))
        else:
            self.do.describe(f"{key}-attributes", made)
            self._try(name, number, key, System(last.system.embedder, made, True))
        return made if made and self.last.system.generator == made else generator

    @property
    def last(self) -> StageResult:
        """Return the last stage that was accepted."""
        return last_accepted(self.results)

    def _add(self, result: StageResult) -> None:
        self.results.append(result)
        if result.note:
            self.listener.note(f"{result.name}: {result.note}")
        if not self.dry:
            self._write("running", "")

    def _try(self, name: str, number: int, key: str, system: System) -> None:
        """Score `system` as the next stage, and accept it or not."""
        last, cycle = self.last, self.settings.cycle
        result = StageResult(name, number, system, key, self._score(key, system, last.validation), last.name)
        record = result.validation
        if system.enriched and not last.system.enriched and record and not record.result["with_attributes"]:
            self.listener.warn(
                f"no query of protocol {record.result['protocol']} is a listing with attributes: what attributes "
                "are worth can't be seen (cycle.protocol = identity needs listings that share a product_id)"
            )
        self._add(accept(result, last, self.metric, keep_worse=cycle.keep_worse, undecided=cycle.undecided))

    # The stages

    def _score(self, key: str, system: System, against: Record | None, split: Scored = "validation") -> Record | None:
        """Return the metrics of `system` on `split`, compared with `against`; None where no query is about it."""
        if not self.num_products[split]:
            return None
        first = self.results[0].record(split) if self.results else None
        return self.do.score(key, system, split, (against, first))

    def _teach(self, generator: str) -> tuple[str, str]:
        """Return (the generator that attributes are written by, what its attributes are called)."""
        if not self.targets:
            return generator, "attributes"
        made = self._taught("1-sft", generator, self.plan.part(HALVES))
        by, before, after = self.settings.sft.best_by, made.get("before", {}), made.get("metrics", {})
        why = ""
        if after.get("valid") == 0:
            why = "no answer of the taught generator is valid"
        elif by in before and by in after and after[by] < before[by] and not self.settings.cycle.keep_worse:
            why = f"validation {by} fell from {before[by]:.3f} to {after[by]:.3f}"
        if why:
            last, note = self.last, f"SFT is left out: {why}; more sft.epochs may help"
            self._add(StageResult("SFT", 1, last.system, "", None, last.name, False, note=note))
            return generator, "attributes"
        return str(made["checkpoint"]), "SFT attributes"

    def _taught(self, stage: str, generator: str, part: Part | None) -> Mapping[str, Any]:
        of_stage = self.do.with_models("", generator, sft={"source": self.targets})
        return self.do.train(stage, SFT, replace(of_stage, part=part))

    def _teach_halves(self, generator: str) -> None:
        """Teach a generator on each half; each describes the half that it does not know."""
        made = [self._taught(f"1-sft-{half}", generator, self.plan.part((half,))) for half in HALVES]
        names = tuple(str(each["checkpoint"]) for each in made)
        if any(each.get("metrics", {}).get("valid") == 0 for each in made):
            self.listener.warn(
                "no answer of a generator that learnt from one half is valid: AGCL sees attributes by one that learnt "
                "from the same products; more sft.epochs may help"
            )
            return
        for half, other in zip(HALVES, reversed(names), strict=True):
            self.do.describe(f"1-attributes-{half}", other, self.plan.part((half,)))
        self.halves = names

    def _baseline(self, generator: str) -> None:
        """Train by InfoNCE: the same pairs and batches as AGCL's, the loss alone differs; nothing goes on from it."""
        first = self.results[0]
        made = str(self._train(1, AGCL, generator, kind="infonce", loss="infonce")["checkpoint"])
        system = System(made, first.system.generator)
        record = self._score("1-infonce", system, first.validation)
        self._add(StageResult("InfoNCE", 1, system, "1-infonce", record, first.name, baseline=True))

    def _train(self, number: int, method: Method, generator: str, kind: str = "", **changes: Any) -> Mapping[str, Any]:
        """Train from the last embedder and `generator`; from the second round on with a share of samples and steps."""
        halves = (generator, *self.halves) if self.halves else ()
        part = self.plan.agcl(number, halves) if method.role == "embedder" else self.plan.rar()
        changes |= of_round(self.settings, method, number, divided=part is not None)
        # AGCL's best step is chosen by the queries of the evaluation: without attributes until a stage has some.
        if method is AGCL and not self.last.system.enriched:
            changes["validation_enrich"] = "none"
        if method is RAR:
            changes["from_base"] = not generator
        of_stage = self.do.with_models(self.last.system.embedder, generator, **{method.name: changes})
        return self.do.train(f"{number}-{kind or method.name}", method, replace(of_stage, part=part), kind)

    # What is kept

    def _write(self, status: str, stopped: str) -> dict[str, Any]:
        last, plan = self.last.system, self.plan
        content = {
            "schema": SCHEMA,
            "number": self.number,
            "status": status,
            "stopped": stopped,
            "catalog": self.folder.catalog.name,
            "data": self.catalog.products,
            "products": len(self.catalog.fingerprints),
            "metric": self.metric,
            "confidence": self.settings.eval.confidence,
            "rounds": self.plan.rounds,
            "shows": shows(self.settings, self.results),
            "folds": plan.content(),
            "chosen_by": {"split": "validation", "products": self.num_products["validation"], "needed": LEAST_PRODUCTS},
            "test_flatters": self.flattered,
            "leaderboard": [result.describe(self.metric) for result in self.results],
            "lineage": {"embedder": last.embedder, "generator": last.generator},
            "attributes": last.enriched,
            "composed": self.composed.describe(),
            "stages": self.records.describe(),
            "stage_seconds": round(sum(each.seconds for each in self.records.worked()), 3),
            "seconds": round(time.monotonic() - self.began, 3),
            "versions": versions(),
        }
        write_json(self.place / "cycle.json", content)
        return content

    # A dry run

    def expect(self) -> CycleSummary:
        """Return the stages, which of them are done, and what the others will take as far as that is known."""
        waiting = False
        try:
            if self.records.is_done("checks", self.inputs.checks(self.work, self.targets)):
                self._check()
            else:
                self._take(self._divide())
            self._rounds()
            self._train_composed()
        except StageNotDone:
            waiting = True
        try:
            self._score_test()
        except StageNotDone:
            waiting = True
        scored = [split for split, products in self.num_products.items() if products]
        coming = planned(self.settings, self.plan, taught=bool(self.targets), scored=scored)
        coming = self.composed.planned(coming, scored)
        done = {record.name for record in self.records.stages}
        if not waiting:  # all is done: no round that an early stop has left out
            coming = [each for each in coming if each[0] in done]
        self._tell_sizes()
        model = self.settings.model
        sft = {"source": self.targets or self.settings.sft.source}
        work = self.do.with_models(model.embedder_checkpoint, model.generator_checkpoint, sft=sft)
        expected = expect(work, coming, done, len(self.catalog.fingerprints))
        return CycleSummary(self.place, self.metric, self.results, {"folds": self.plan.content()}, expected)
