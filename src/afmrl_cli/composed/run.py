"""What `train-composed` reads, reports, trains and leaves.

A run's folder holds a folder for each stage, `batch` and `bank`, with all that a training's folder holds, and
`adapter`, which is put into the checkpoint store: the gallery's adapter, and the query's where the second stage brought
something.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from ..attributes.views import LISTING
from ..catalog.problems import Problems
from ..models.backends import check_trainable
from ..models.embedder import Embedder
from ..settings import Settings
from ..store.checkpoints import QUERY_WEIGHTS, WEIGHTS
from ..store.files import hash_file, writing_folder
from ..store.training_products import training_products
from ..training.adapter import add_trainable, save_adapter
from ..training.corpus import Corpus, load_corpus
from ..training.estimate import Estimate, measure
from ..training.loop import train_resumably
from ..training.pairs import Side
from ..training.parallel import gather_objects
from ..training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_training
from ..training.staged import Done, join_metrics, load_weights, read_done, write_done
from ..training.step import Reader, encode_sides, item_of
from ..training.validation import encode_once
from ..triplets.records import NoTriplets
from ..triplets.verdicts import read_verdicts
from ..workspace import Workspace
from .bank import Bank, FrozenSide, make_bank
from .card import composed_card
from .corpus import Examples, check_windows, load_examples
from .plan import NOT_THE_RESULT, Plan, data_of, describe, make_plan, run_key, stages_of
from .step import BankStep, BatchStep
from .trainer import ComposedTrainer, Stage
from .validation import METRICS, make_validation

BANK = "bank-vectors"
WORTH = 0.01
"""By how much the validation's mrr must rise for a query adapter to be kept: the best of several steps is a little
above the start by chance, and one side more is one model more to keep and to serve.
"""
MEASURED = 64
"""Triplets that a dry run learns from."""


def train_composed(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary | None:
    """Train the embedder for composed queries and put the adapters into the checkpoint store, as `run_training`.

    `details`: metrics of what was kept, `stages` with those before and after each, and `validation`, which says what
    they are of; {} without a validation.
    """
    return run_training(COMPOSED, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work.with_instructions(), Problems()
    check_trainable(work.settings, "embedder")
    source = work.source_on_disk if work.settings.embed.enrich != "none" else None
    corpus = load_corpus(work, source, problems, for_agcl=False)
    problems.tell(work.listener)
    train = load_examples(work, "train", corpus.train)
    plan = make_plan(corpus, train, _held_out(work, corpus), work.settings, job.base)
    job.world.need_one_each(min(plan.settings.composed.batch_size, len(train.rows)), "composed.batch_size")
    _tell(plan, work)
    written = train.source == "generated" or any(LISTING in listing.attributes for listing in corpus.train)
    made_by = {"attributes": source.generator} if source and written else {}
    listings = [[(each.id, each.identity) for each in side] for side in (corpus.train, corpus.validation)]
    return Planned(
        plan.settings,
        run_key(plan, job.model_id, job.world),
        data_of(plan),
        training_products(*listings),
        made_by,
        describe(plan),
        plan,
    )


def _held_out(work: Workspace, corpus: Corpus) -> Examples | None:
    """Return the triplets of the validation split; None, with a warning that says why, where there are none."""
    try:
        return load_examples(work, "validation", corpus.validation)
    except NoTriplets as error:
        work.listener.warn(f"{error}: no step can be chosen by it, the last one's adapter is kept")
        return None


def _tell(plan: Plan, work: Workspace) -> None:
    train, composed = plan.train, plan.settings.composed
    counts = ", ".join(f"{number:,} {window}" for window, number in train.counts.items())
    stages = " and ".join(f"stage {name}" for name in stages_of(plan.settings))
    far = f" ({train.far_left_out:,} far ones left out: composed.windows)" if train.far_left_out else ""
    work.listener.note(
        f"triplets: {counts}{far}; batches of {composed.batch_size}; {plan.steps:,} steps of {stages}; captions of "
        f"{len(train.captions):,} listings by {', '.join(train.made_by) or 'nobody'}"
    )
    if plan.validation and make_validation(plan) is None:
        work.listener.warn(
            f"{len(plan.validation.rows)} triplets of the validation split are too few to choose a step by: the last "
            "one's adapter is kept (split.validation is its share)"
        )
    if train.left_out:
        work.listener.warn(f"{train.left_out:,} triplets left out: a photo of theirs can't be opened")


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    plan = planned.content
    return Training(
        planned.settings, planned.description, partial(_train, job, plan, run), partial(_measure, job, plan)
    )


class Run:
    """One run in memory: the embedder whose adapter is trained, and the folder."""

    def __init__(self, job: Job, plan: Plan, run: Path) -> None:
        self.job, self.plan, self.run, self.world = job, plan, run, job.world
        self.work = job.work.with_settings(plan.settings)
        self.embedder: Embedder = self.work.load_embedder(job.bare_model)
        self.model: PeftModel = add_trainable(self.embedder, plan.settings.composed, job.parent, job.work.checkpoints)
        self.reader = Reader(self.embedder, plan.settings)
        self.validation = make_validation(plan)

    def batch(self) -> Done:
        """Do the first stage: both sides learn."""
        return self._stage("batch", BatchStep(self.plan, self.reader, self.world), self._validate)

    def bank(self, gallery: Path) -> Done:
        """Do the second stage: what asks learns, from the adapter in the folder `gallery` on."""
        load_weights(self.model, gallery)
        self.model.eval()
        # Vectors that another adapter made are not found under the name of this one.
        folder = self.run / BANK / hash_file(gallery / WEIGHTS)[:10]
        frozen = FrozenSide(self.work, self.embedder, folder, self.world)
        bank = make_bank(self.plan, frozen, self.embedder.loaded.device)
        shown = None
        if self.validation:
            listings = self.plan.corpus.validation
            shown = frozen.encode(self.validation.gallery, "encoding the validation", listings)
        step = BankStep(self.plan, self.reader, bank, self.world)
        return self._stage("bank", step, lambda: self._validate(gallery=shown))

    def save(self, folder: Path) -> None:
        """Write the adapter as it is now."""
        card = composed_card(self.job, self.plan, self.embedder.template)
        save_adapter(self.model, self.job.base, folder, card)

    def _stage(self, name: str, step: BatchStep | BankStep, validate: Any) -> Done:
        place = self.run / name
        place.mkdir(exist_ok=True)
        trainer = ComposedTrainer(
            self.plan,
            Stage(name, place, step, validate, self.save),
            self.model,
            self.embedder.loaded.device.type,
            self.work.listener,
        )
        listener = self.work.listener
        resumed = train_resumably(
            trainer, listener, steps_per_epoch=self.plan.steps_per_epoch, at_start=trainer.evaluate
        )
        done = Done(
            place / f"best-{trainer.state.best_global_step}",
            trainer.progress.start,
            trainer.progress.best,
            trainer.seconds,
            resumed,
        )
        if self.world.first:
            write_done(place, done)
        return done

    def _validate(self, gallery: NDArray[np.float32] | None = None) -> dict[str, float]:
        """Measure recall and MRR with the adapter as it is now; the gallery's vectors too, where none are given."""
        if self.validation is None:
            return {}
        embed = self.plan.settings.embed
        queries = encode_once(self._encode, self.validation.queries, embed.query_instruction)
        if gallery is None:
            gallery = encode_once(self._encode, self.validation.gallery, embed.target_instruction)
        return self.validation.metrics(queries, gallery)

    def _encode(self, sides: Sequence[Side], instruction: str) -> NDArray[np.float32]:
        return encode_sides(self.embedder, sides, instruction, self.world)


def _train(job: Job, plan: Plan, run: Path) -> Outcome:
    listener, stages = job.work.listener, stages_of(plan.settings)
    found: dict[str, Done] = {}
    training = None
    for name in stages:
        # What the first process sees: it may already have noted the end of a stage that others are about to read of.
        if (done := gather_objects(read_done(run / name, METRICS), job.world)[0]) is None:
            training = training or Run(job, plan, run)
            if name == "batch":
                done = training.batch()
            else:
                done = training.bank(found["batch"].adapter if found else _start(training))
        if job.world.first:
            for state in (run / name).glob("state-*"):
                shutil.rmtree(state)
        found[name] = done
        _tell_gain(name, done, listener)
    first = found.get("batch")
    gallery = first.adapter if first else run / "start"
    query = found["bank"] if "bank" in found and found["bank"].gained("mrr", WORTH) else None
    metrics = query.best if query else first.best if first else found["bank"].start
    if job.world.first:
        shutil.rmtree(run / BANK, ignore_errors=True)
        join(run, gallery, query.adapter if query else None)
        join_metrics(run, dict.fromkeys(stages, plan.steps))
    details = {
        "metrics": metrics,
        "query_adapter": query is not None,
        "stages": {name: {"before": done.start, "best": done.best} for name, done in found.items()},
        "validation": _described(plan),
    }
    seconds, resumed = sum(done.seconds for done in found.values()), sum(done.resumed_from for done in found.values())
    adapter = run / "adapter" if first or query else None
    return Outcome(adapter, metrics, details, ("loss", "mrr"), resumed, seconds)


def _start(training: Run) -> Path:
    """Keep the adapter that the second stage begins with, where there was no first one."""
    place = training.run / "start"
    if training.world.first and not place.exists():
        with writing_folder(place) as folder:
            training.save(folder)
    gather_objects(None, training.world)
    return place


def _described(plan: Plan) -> dict[str, object]:
    validation = make_validation(plan)
    return validation.describe() if validation else {}


def _tell_gain(name: str, done: Done, listener: Any) -> None:
    if not done.start:
        return
    message = f"stage {name}: validation mrr {done.start['mrr']:.3f} before, {done.best['mrr']:.3f} at the best step"
    if done.gained("mrr", WORTH if name == "bank" else 0.0):
        listener.note(message)
    elif name == "bank":
        listener.note(f"{message}: not more than {WORTH} was gained, so there is no query adapter")
    else:
        listener.warn(f"{message}: nothing was gained; train longer, or lower composed.learning_rate")


def join(run: Path, gallery: Path, query: Path | None) -> None:
    """Write the folder `adapter`: that of the gallery's adapter, with the query's weights beside it."""
    shutil.rmtree(run / "adapter", ignore_errors=True)
    with writing_folder(run / "adapter") as folder:
        for file in gallery.iterdir():
            shutil.copyfile(file, folder / file.name)
        if query:
            shutil.copyfile(query / WEIGHTS, folder / QUERY_WEIGHTS)


def _measure(job: Job, plan: Plan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model and do the work of a few triplets of each stage; time and memory of the whole follow from that.

    The bank is one of random vectors: any others take as long.
    """
    settings = plan.settings
    # A dry run writes nothing, so no store: the estimate is that of the first epoch.
    uncached = settings.model_copy(update={"cache": settings.cache.model_copy(update={"vision": False})})
    work = job.work.with_settings(uncached)
    embedder = work.load_embedder(job.bare_model)
    add_trainable(embedder, settings.composed, job.parent, job.work.checkpoints).train()
    reader, device = Reader(embedder, settings), embedder.loaded.device
    drawn = plan.draw(next(plan.from_step(0, 0))[2][:MEASURED], 0)
    parts, found = settings.composed.batch_size / len(drawn) / job.world.size, []
    for name in stages_of(settings):
        step = BatchStep(plan, reader) if name == "batch" else BankStep(plan, reader, _random_bank(plan, embedder))

        def part(step: BatchStep | BankStep = step) -> Tensor:
            return step(drawn)[0]

        found.append(measure(part, device, parts, plan.steps))
    encoding = 0.0
    if "bank" in stages_of(settings):
        sides = [plan.listing_side(plan.corpus.train, each.target.listing) for each in drawn]
        encoding = _seconds_of(embedder, sides, settings.embed.target_instruction) * len(plan.corpus.train) / len(sides)
        encoding /= job.world.size
    whole = sum(each.whole_seconds for each in found) + encoding
    peak = max(each.peak_bytes for each in found)
    return Estimate(peak, found[0].step_seconds, whole), {"bank_seconds": encoding}


def _random_bank(plan: Plan, embedder: Embedder) -> Bank:
    rows = torch.nn.functional.normalize(torch.randn(len(plan.corpus.train), embedder.dimension), dim=1)
    return Bank(rows.to(embedder.loaded.device))


def _seconds_of(embedder: Embedder, sides: list[Side], instruction: str) -> float:
    """Return the seconds that encoding `sides` takes."""

    def work() -> Tensor:
        return torch.as_tensor(embedder.encode([item_of(side) for side in sides], instruction=instruction)).sum()

    return measure(work, embedder.loaded.device, 1.0, 1).step_seconds


def _check(work: Workspace, corpus: Corpus) -> None:
    """Raise what has nothing to do with attributes that are still to be written."""
    check_windows(work.settings.composed)
    read_verdicts(work)


def _uses(settings: Settings) -> frozenset[str]:
    generated = settings.triplets.attributes != "given" or settings.embed.enrich != "none"
    return frozenset({"embedder", "texts", "columns", "verdicts", "triplets", *(["generator"] if generated else [])})


COMPOSED = Method(
    "composed",
    "composed",
    "embedder",
    _plan,
    _prepare,
    check=_check,
    uses=_uses,
    not_the_result=NOT_THE_RESULT,
    parallel=True,
    writes_dry=True,
)
