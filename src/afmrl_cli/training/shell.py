"""A training from catalog to checkpoint: lock, key, finished runs, settings, the store, cleaning, and a dry run.

Every training command is a `Method`; what stands here is the same for all of them:

    plan      reads the catalog, loads no model, and says what decides the result: the run's key is a hash of it
    prepare   gives a `Training`, whose `train` does the steps and whose `measure` does a part of one

A run's folder (`.afmrl/runs/train-<method>-<key>/`) holds settings.json, plan.json, metrics.jsonl, curve.svg, the state
that a killed run goes on from (state-<step>), the best adapter so far (best-<step>), and done.json at the end. The key
is a hash of everything that decides the result, so the same command finds its run again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, ModelError, UsageError
from ..listener import Silent
from ..models.presets import Base, base_precision, name_of, resolve_adapter, resolve_base
from ..models.templates import Template, template_of
from ..settings import ModelSettings, Settings
from ..store.checkpoints import EMBED_TEMPLATE, Checkpoints, Manifest, Role, changes_tower
from ..store.files import make_folder, parse_json, reading, write_json
from ..store.lineage import with_sources
from ..store.lock import writer_lock
from ..store.training_products import TrainingProducts
from ..workspace import Workspace
from .corpus import Corpus
from .curve import draw_curve
from .estimate import Estimate
from .parallel import World, gather_objects, in_turn, join_world, leave_world, reporting_ended


@dataclass(frozen=True)
class Planned:
    """What a method's `plan` says, before any model is loaded. `content` is the method's own.

    `settings` have the sizes that follow from the catalog, `key` is a hash of all that decides the result, `data` one
    of what training sees of the catalog; `inputs` are ids of other models whose output is learnt from.
    """

    settings: Settings
    key: str
    data: str
    products: TrainingProducts
    inputs: dict[str, str]
    description: dict[str, object]
    content: Any


@dataclass(frozen=True)
class Outcome:
    """The end of a training: `adapter` is the PEFT folder of the best step (None: no step was worth keeping).

    `metrics` go into the checkpoint's manifest, `details` into done.json and --json; `curve` names the metric of each
    step and the validation's metric that are drawn (None: there was no step).
    """

    adapter: Path | None
    metrics: dict[str, float]
    details: dict[str, Any]
    curve: tuple[str, str] | None
    resumed_from: int
    seconds: float


@dataclass(frozen=True)
class Training:
    """A training that can begin. `settings` and `description` may say more than the plan could.

    `train` goes on from the last state to the last step; `measure` does a part of a step, for what a whole one takes,
    and gives the details that a dry run tells.
    """

    settings: Settings
    description: dict[str, object]
    train: Callable[[], Outcome]
    measure: Callable[[], tuple[Estimate, dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """One training to do: in which workspace, and from which base and adapter it starts."""

    method: Method
    work: Workspace
    base: Base
    parent: Manifest | None
    world: World = field(default_factory=World)

    @property
    def model_id(self) -> str:
        """Return the id of the model that training starts from."""
        return name_of(self.model, self.method.role, self.base, self.parent)

    @property
    def reading_id(self) -> str:
        """Return the id under which what the same model wrote is stored: it may read in another precision."""
        return name_of(self.work.settings.model, self.method.role, self.base, self.parent)

    @property
    def model(self) -> ModelSettings:
        """Return the model settings with the precision that the base is trained in, for all models of the training."""
        settings = self.work.settings.model
        return settings.model_copy(update={"precision": base_precision(settings, self.base, training=True).precision})

    @property
    def bare_model(self) -> ModelSettings:
        """Return the same without the checkpoint: its adapter, or a new one, is put on top to be trained."""
        own = {EMBED_TEMPLATE: self.template.name} if self.template else {}
        return self.model.model_copy(update={f"{self.method.role}_checkpoint": "", **own})

    @property
    def template(self) -> Template | None:
        """Return the template that the embedder is trained under, its adapter's own; None for a generator."""
        model, base = self.work.settings.model, self.base
        if self.method.role != "embedder":
            return None
        return template_of(model.embed_template, base.name, base.folder, self.parent)


@dataclass(frozen=True)
class Method:
    """A way to train. `name` is its section of the settings and its command, `title` what people call it.

    `parallel`: several processes can share a batch. `writes_dry`: a dry run writes into the store, too. The rest is for
    `cycle`, and left out by a method that is in none: `check` raises what `plan` would raise, before the attributes of
    earlier stages are there; `trial` gives the settings under which a part of a step can be measured then, in seconds;
    `uses` names what the result depends on (`cycle.inputs`), `samples` the setting that says how much is learnt from;
    `not_the_result` are settings that do not change what is learnt.
    """

    name: str
    title: str
    role: Role
    plan: Callable[[Job], Planned]
    prepare: Callable[[Job, Planned, Path], Training]
    check: Callable[[Workspace, Corpus], None] = lambda work, corpus: None
    trial: Callable[[Settings], Settings] = lambda settings: settings
    uses: Callable[[Settings], frozenset[str]] = lambda settings: frozenset()
    samples: str = ""
    not_the_result: set[str] = field(default_factory=set)
    parallel: bool = False
    writes_dry: bool = False

    @property
    def command(self) -> str:
        """Return the command, such as train-sft."""
        return f"train-{self.name}"


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did or, for a dry run, would do (`estimate`). `checkpoint` is "" when none was made; `details`
    are the method's own results, metrics among them.
    """

    run: Path
    plan: dict[str, object]
    checkpoint: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    resumed_from: int = 0
    seconds: float = 0.0
    already_done: bool = False
    estimate: Estimate | None = None


def run_training(
    method: Method, work: Workspace, *, dry_run: bool = False, force: bool = False
) -> TrainingSummary | None:
    """Train by `method` on the catalog and put the adapter into the checkpoint store.

    The same settings and catalog continue a run that was stopped, and do nothing when it is done (`force`: train
    again). None in all but the first of several processes. Raises UsageError, DataError and ModelError as the parts do,
    and KeyboardInterrupt after a state was saved.
    """
    if not method.parallel and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{method.command} works in one process", "start it without torchrun")
    world = join_world() if method.parallel else World()
    try:
        work = work if world.first else replace(work, listener=Silent())
        with reporting_ended(world):
            return _run(start_job(method, work, world), dry_run=dry_run, force=force)
    finally:
        leave_world(world)


def run_alone(method: Method, work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary:
    """Train as `run_training` by a method that works in one process."""
    summary = run_training(method, work, dry_run=dry_run, force=force)
    if summary is None:
        raise RuntimeError("one process has the result")
    return summary


def start_job(method: Method, work: Workspace, world: World | None = None) -> Job:
    """Resolve base and adapter of the model that `method` trains. Raises ModelError."""
    base = resolve_base(work.settings.model, method.role, work.listener)
    parent = resolve_adapter(work.settings.model, method.role, base, work.checkpoints)
    if parent is not None and method.role != "vision":
        refuse_changed_tower(parent, work.checkpoints)
        if parent.two_sided:
            work.listener.note(
                f"training goes on from the gallery adapter of {parent.name}; its query adapter is not taken on"
            )
    return Job(method, work, base, parent, world or World())


def refuse_changed_tower(adapter: Manifest, checkpoints: Checkpoints) -> None:
    """Raise ModelError when `adapter` changes the vision tower, whose output training takes for the base's own."""
    if changes_tower(checkpoints.path(adapter.name)):
        raise ModelError(
            f"checkpoint {adapter.name} changes the vision tower: training goes on from adapters of the language model",
            "use it for attributes, embed, search and eval, or train on another one",
        )


def _run(job: Job, *, dry_run: bool, force: bool) -> TrainingSummary | None:
    method, work, world = job.method, job.work, job.world
    writes = world.first and (method.writes_dry or not dry_run)
    with writer_lock(work.folder.store, f"afmrl {method.command}") if writes else contextlib.nullcontext():
        planned = _plan(job)
        job = replace(job, work=work.with_settings(planned.settings))
        run = work.folder.runs / f"{method.command}-{planned.key}"
        if dry_run:
            training = method.prepare(job, planned, run)
            estimate, details = training.measure()
            shown = TrainingSummary(run, training.description, details=details, estimate=estimate)
            return shown if world.first else None
        # What the first process sees: one that finds the end of a run alone would leave the others waiting.
        if not force and (done := gather_objects(find_done(run, work.checkpoints), world)[0]) is not None:
            return _summary(run, planned, done, already_done=True) if world.first else None
        refuse_taken_name(getattr(planned.settings, method.name).name, work.checkpoints, run)
        training = method.prepare(job, planned, run)
        gather_objects(None, world)  # no process searches for states before all have seen what there is
        if world.first:
            if force:
                shutil.rmtree(run, ignore_errors=True)
            make_folder(run)
            write_json(run / "settings.json", training.settings.model_dump())
            write_json(run / "plan.json", training.description)
        gather_objects(None, world)
        outcome = training.train()
        return _finish(job, planned, training, outcome, run) if world.first else None


def _plan(job: Job) -> Planned:
    """Plan as the method does; where that writes into the store, the first process does so before others read it.

    Raises DataError when another process has planned another training: a catalog or settings of another machine.
    """
    method, world = job.method, job.world
    planned = in_turn(lambda: method.plan(job), world) if method.writes_dry else method.plan(job)
    if len(set(gather_objects(planned.key, world))) > 1:
        raise DataError(
            f"{method.command}: the processes don't see the same catalog, models and settings",
            "start all of them in one folder with the same settings",
        )
    return planned


def _finish(job: Job, planned: Planned, training: Training, outcome: Outcome, run: Path) -> TrainingSummary:
    """Draw the curve, store the checkpoint, note that the run is done, and remove its states."""
    if outcome.curve is not None:
        draw_curve(run, *outcome.curve)
    name = ""
    if outcome.adapter is not None:
        name = job.work.checkpoints.add(outcome.adapter, _manifest(job, planned, training, outcome, run)).name
    done = {"plan": training.description, "checkpoint": name, **outcome.details, "seconds": outcome.seconds}
    write_json(run / "done.json", done)
    for state in run.glob("state-*"):
        shutil.rmtree(state)
    return _summary(run, planned, done, resumed_from=outcome.resumed_from)


def _manifest(job: Job, planned: Planned, training: Training, outcome: Outcome, run: Path) -> Manifest:
    method, parent, settings = job.method, job.parent, training.settings
    own, beside = getattr(settings, method.name), "embed" if method.role == "embedder" else "attributes"
    return Manifest(
        role=method.role,
        base=job.base.name,
        base_revision=job.base.revision,
        name=own.name,
        parent=parent.name if parent else None,
        run=run.name,
        inputs=planned.inputs,
        data=planned.data,
        products=with_sources(planned.products, parent, planned.inputs, job.work.checkpoints),
        settings={
            method.name: own.model_dump(),
            beside: getattr(settings, beside).model_dump(),
            "plan": training.description,
            **({EMBED_TEMPLATE: job.template.name} if job.template else {}),
        },
        metrics=outcome.metrics,
    )


def _summary(run: Path, planned: Planned, done: Mapping[str, Any], **more: Any) -> TrainingSummary:
    """Return what done.json says; those of earlier versions have no plan."""
    details = {name: value for name, value in done.items() if name not in ("plan", "checkpoint", "seconds")}
    plan = done.get("plan", planned.description)
    return TrainingSummary(run, plan, str(done["checkpoint"]), details, seconds=float(done["seconds"]), **more)


def find_done(run: Path, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Return what a finished run says of itself (done.json), None when it is not finished or its checkpoint is gone.

    `checkpoint` is "" where a run ended without one. Raises ModelError when its checkpoint is there and damaged,
    DataError when done.json is.
    """
    file = run / "done.json"
    if not file.is_file():
        return None
    with reading(file):
        content: dict[str, Any] = parse_json(file.read_text("utf-8"))
        name = str(content["checkpoint"])
        float(content["seconds"])
    if not name:
        return content
    if not checkpoints.path(name).is_dir():
        return None
    checkpoints.get(name)
    return content


def refuse_taken_name(name: str, checkpoints: Checkpoints, run: Path) -> None:
    """Raise ModelError before hours of training rather than after them; the checkpoint of `run` itself, killed before
    it noted that, is not in the way.
    """
    if name and checkpoints.path(name).exists() and checkpoints.get(name).run != run.name:
        raise ModelError(f"checkpoint {name!r} exists already", "choose another --name")
