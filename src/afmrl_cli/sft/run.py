"""`train-sft` from catalog to checkpoint: what is read, which run it is, training, and what is written at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..catalog.problems import Problems
from ..errors import UsageError
from ..models.base import Bases
from ..models.generator import LocalGenerator, load_generator
from ..models.presets import Base, name_of, resolve_adapter, resolve_base
from ..models.processor import load_processor
from ..store.checkpoints import Manifest
from ..store.files import make_folder, write_json
from ..store.lineage import with_sources
from ..store.lock import writer_lock
from ..store.training_products import TrainingProducts, training_products
from ..training.adapter import add_trainable
from ..training.estimate import Estimate, measure
from ..training.outcome import draw_curve, find_done, refuse_taken_name
from ..training.resumable import train_resumably
from ..workspace import Workspace
from .card import model_card
from .corpus import load_corpus
from .plan import Plan, describe, make_plan, run_key
from .trainer import Collator, SftTrainer, with_pictures
from .vocabulary import warn_of_indistinct


@dataclass(frozen=True)
class SftSummary:
    """What `train_sft` did or, for a dry run, would do (`estimate`). `checkpoint` "" when nothing was trained.

    `before` and `best` are the validation's figures with `step`, `keys` (per key) and `failures`; {} without one.
    """

    run: Path
    plan: dict[str, object]
    checkpoint: str = ""
    before: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    resumed_from: int = 0
    seconds: float = 0.0
    already_done: bool = False
    estimate: Estimate | None = None


def train_sft(work: Workspace, *, dry_run: bool = False, force: bool = False) -> SftSummary:
    """Train the generator on right answers and put the adapter into the checkpoint store.

    The same settings and catalog continue a run that was stopped, and do nothing when it is done (`force`: train
    again). Raises UsageError, DataError and ModelError as the parts do, KeyboardInterrupt after a state was saved.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train-sft works in one process", "start it without torchrun")
    folder, settings, listener, checkpoints = work.folder, work.settings, work.listener, work.checkpoints
    base = resolve_base(settings.model, "generator", listener)
    parent = resolve_adapter(settings.model, "generator", base, checkpoints)
    student = name_of(settings.model, "generator", base, parent)
    with contextlib.nullcontext() if dry_run else writer_lock(folder.store, "afmrl train-sft"):
        plan = plan_sft(work, base, student)
        settings = plan.settings
        work = work.with_settings(settings)
        run = folder.runs / f"train-sft-{run_key(plan, student)}"
        if dry_run:
            return SftSummary(run, describe(plan), estimate=_measure(work, plan, parent))
        if not force and (done := find_done(run, checkpoints)) is not None:
            return SftSummary(run, describe(plan), **done, already_done=True)
        refuse_taken_name(settings.sft.name, checkpoints, run)
        if force:
            shutil.rmtree(run, ignore_errors=True)
        make_folder(run)
        write_json(run / "settings.json", settings.model_dump())
        generator = _load(work, work.bases)
        warn_of_indistinct(generator, plan.corpus.train, listener)
        model = add_trainable(generator, settings.sft, parent, checkpoints, "CAUSAL_LM")
        trainer = SftTrainer(plan, generator, model, run, base, model_card(base, plan, parent), listener)
        asked = trainer.evaluate if plan.corpus.validation else None
        resumed = train_resumably(trainer, listener, steps_per_epoch=plan.steps_per_epoch, at_start=asked)
        return _finish(work, trainer, base, parent, resumed)


def plan_sft(work: Workspace, base: Base, student: str) -> Plan:
    """What a run will do; `student` is the id of the generator that is taught. Raises DataError without targets."""
    problems, listener = Problems(), work.listener
    corpus = load_corpus(work, load_processor(base), student, problems)
    problems.tell(listener)
    plan = make_plan(corpus, work.task, work.settings, base)
    listener.note(
        f"targets from {corpus.source.name}: {len(corpus.train):,} to learn, {len(corpus.validation):,} to check by; "
        f"{plan.steps:,} steps of {plan.settings.sft.batch_size}"
    )
    for reason, number in corpus.left_out.most_common():
        product, text = corpus.first[reason]
        listener.warn(f"{number:,} targets left out: {reason}; first {product}" + (f": {text[:80]}" if text else ""))
    if not corpus.validation:
        listener.warn(
            "no product of the validation split has a target: the last step's adapter is kept "
            "(split.validation is its share)"
        )
    return plan


def _load(work: Workspace, bases: Bases) -> LocalGenerator:
    """The bare base as a generator; the adapter comes on top, to be trained."""
    bare = work.settings.model.model_copy(update={"generator_checkpoint": ""})
    return load_generator(bare, work.settings.attributes, work.checkpoints, bases=bases, listener=work.listener)


def _finish(work: Workspace, trainer: SftTrainer, base: Base, parent: Manifest | None, resumed: int) -> SftSummary:
    """The curve, the checkpoint, and the note that the run is done."""
    plan, checkpoints, listener = trainer.plan, work.checkpoints, work.listener
    run, settings, best, before = trainer.run, plan.settings, trainer.best, trainer.before
    draw_curve(run, "loss", settings.sft.best_by)
    if best and not best["valid"]:
        kind = max(best["failures"], key=best["failures"].__getitem__)
        listener.warn(f"no answer of the trained generator is valid (most often: {kind}); train longer (sft.epochs)")
    elif best and best[settings.sft.best_by] <= before[settings.sft.best_by]:
        listener.warn("the trained generator is no better than before; more targets or steps may help")
    figures = {key: float(value) for key, value in best.items() if isinstance(value, int | float) and key != "step"}
    figures |= {f"accuracy.{key}": each["accuracy"] for key, each in best.get("keys", {}).items()}
    inputs = {"targets": plan.corpus.source.teacher} if plan.corpus.source.teacher else {}
    stored = checkpoints.add(
        run / f"best-{trainer.state.best_global_step}",
        Manifest(
            role="generator",
            base=base.name,
            base_revision=base.revision,
            name=settings.sft.name,
            parent=parent.name if parent else None,
            run=run.name,
            inputs=inputs,
            data=plan.corpus.fingerprint,
            products=with_sources(_seen(plan), parent, inputs, checkpoints),
            settings={
                "sft": settings.sft.model_dump(),
                "attributes": settings.attributes.model_dump(),
                "plan": describe(plan),
            },
            metrics=figures,
        ),
    )
    done: dict[str, Any] = {"checkpoint": stored.name, "before": before, "best": best, "seconds": trainer.seconds}
    write_json(run / "done.json", done)
    for state in run.glob("state-*"):
        shutil.rmtree(state)
    return SftSummary(run, describe(plan), **done, resumed_from=resumed)


def _seen(plan: Plan) -> TrainingProducts:
    """The products with targets, and those that the best step was chosen by."""
    sides = (plan.corpus.train, plan.corpus.validation)
    train, validation = ([(each.product.id, each.product.identity) for each in side] for side in sides)
    return training_products(train, validation)


def _measure(work: Workspace, plan: Plan, parent: Manifest | None) -> Estimate:
    """Load the model and learn one chunk; time and memory of a whole step follow from that."""
    # A dry run writes nothing, so no store: the first epoch is what is told.
    settings = plan.settings
    generator = _load(work, Bases())
    model = add_trainable(generator, settings.sft, parent, work.checkpoints, "CAUSAL_LM").train()
    batch = Collator(generator, plan.task, settings)([plan[i] for i in range(plan.chunk)])

    def learn() -> torch.Tensor:
        loss: torch.Tensor = model(**with_pictures(batch, generator)).loss
        torch.autograd.backward(loss)
        return loss.detach()

    return measure(learn, generator.loaded.device, settings.sft.batch_size / plan.chunk, plan.steps)
