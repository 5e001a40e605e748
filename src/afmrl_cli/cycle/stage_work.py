"""What a cycle does for each kind of stage: the settings that name its models, its inputs, and what of an earlier
result can be gone. Done stages are skipped by the records.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..catalog.folds import Part
from ..training.shell import Method
from ..workspace import Workspace
from . import stages
from .inputs import Inputs
from .records import Record, Records
from .stage_results import System
from .stages import Scored


@dataclass(frozen=True)
class StageWork:
    """The stages of one cycle of `work`, its catalog as it was read last; `num_products` are those that the queries of
    each split are about.
    """

    work: Workspace
    records: Records
    inputs: Inputs
    num_products: Mapping[Scored, int]

    def with_models(self, embedder: str, generator: str, **sections: Mapping[str, Any]) -> Workspace:
        """Return the workspace of a stage: its settings name these models; `sections` are changes by section."""
        changes: dict[str, Mapping[str, Any]] = {
            "model": {"embedder_checkpoint": embedder, "generator_checkpoint": generator},
            **sections,
        }
        settings = self.work.settings
        made = {name: getattr(settings, name).model_copy(update=dict(own)) for name, own in changes.items()}
        return self.work.with_settings(settings.model_copy(update=made))

    def with_system(self, system: System, **sections: Mapping[str, Any]) -> Workspace:
        """Return the workspace of a stage by a system's models, without attributes where it answers without."""
        plain: dict[str, Mapping[str, Any]] = {} if system.enriched else {"embed": {"enrich": "none"}}
        return self.with_models(system.embedder, system.generator, **plain, **sections)

    def score(
        self,
        key: str,
        system: System,
        split: Scored,
        others: tuple[Record | None, Record | None],
        **sections: Mapping[str, Any],
    ) -> Record:
        """Return the metrics of `system` on `split`, compared with `others`: those of the stage before, and of the
        first one.
        """
        against, _ = others
        of_stage = self.with_system(system, **sections)
        inputs = self.inputs.score(of_stage, split, against.fingerprint if against else "")
        scores = self.records.folder / "scores"
        name = f"{key}-{'test' if split == 'test' else 'score'}"
        place = scores / f"{name}-{self.records.fingerprint(inputs)[:8]}"
        other, base = (scores / each.result["place"] if each else None for each in others)

        def work(before: stages.Result | None) -> stages.Result:
            shutil.rmtree(place, ignore_errors=True)  # of a kill between its writing and the record's
            return stages.score(of_stage, split, place, (other, base))

        def missing(result: stages.Result) -> str:
            return "" if (scores / result["place"] / "metrics.json").is_file() else f"{result['place']} is gone"

        return self.records.stage(name, "score", inputs, work, missing)

    def describe(self, stage: str, generator: str, part: Part | None = None) -> None:
        """Have the generator write the attributes of all products, or of those of the training split in `part`."""
        of_stage = replace(self.with_models(self.work.settings.model.embedder_checkpoint, generator), part=part)
        inputs = self.inputs.attributes(of_stage)

        def missing(result: stages.Result) -> str:
            prints = self.inputs.catalog.shown(part)
            with self.work.database() as database:
                rows = database.attributes(inputs["generator"], inputs["prompt"], prints).values()
                there = sum(row.viewed for row in rows)
            return f"{len(prints) - there:,} products have no stored answer" if there < len(prints) else ""

        def work(before: stages.Result | None) -> stages.Result:
            splits = [split for split, products in self.num_products.items() if products and part is None]
            return stages.write_attributes(of_stage, splits)

        self.records.stage(stage, "attributes", inputs, work, missing)

    def train(self, stage: str, method: Method, of_stage: Workspace, kind: str = "") -> Mapping[str, Any]:
        """Return what a training left; a checkpoint that was deleted is trained again, under its name."""

        def work(before: stages.Result | None) -> stages.Result:
            named = {"name": before["checkpoint"] if before else ""}
            own = getattr(of_stage.settings, method.name).model_copy(update=named)
            settings = of_stage.settings.model_copy(update={method.name: own})
            return stages.train(method, of_stage.with_settings(settings))

        def missing(result: stages.Result) -> str:
            name = result["checkpoint"]
            return f"checkpoint {name} is gone" if name and not self.work.checkpoints.path(name).is_dir() else ""

        inputs = self.inputs.training(method, of_stage)
        return self.records.stage(stage, kind or method.name, inputs, work, missing).result
