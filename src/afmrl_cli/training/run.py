"""`train-agcl` from catalog to checkpoint: what is read, which run it is, training, and what is written at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..attributes.views import LISTING, VIEWS, AttributeSource
from ..catalog.problems import Problems
from ..listener import Listener, Silent
from ..models.embed_input import Item
from ..models.embedder import Embedder, load_embedder
from ..models.presets import name_of, resolve_adapter, resolve_base
from ..retrieval.encode import cut_message
from ..store.checkpoints import Manifest
from ..store.files import make_folder, write_json
from ..store.lineage import with_sources
from ..store.lock import writer_lock
from ..store.training_products import TrainingProducts, training_products
from ..workspace import Workspace
from .adapter import add_trainable
from .card import model_card
from .corpus import load_corpus
from .estimate import Estimate, measure
from .outcome import draw_curve, find_done, refuse_taken_name
from .pairs import KINDS, QUERIES_OF_KIND
from .parallel import World, gather_objects, join_world, leave_world
from .plan import Plan, describe, make_plan, queries_with_attributes, run_key
from .step import Reader, accumulate, make_batch
from .trainer import Trained, Trainer

MEASURED_PAIRS = 64


@dataclass(frozen=True)
class AgclSummary:
    """What `train_agcl` did or, for a dry run, would do (`estimate`). `checkpoint` "" when nothing was trained.
    `validation` says what `metrics` are of: queries, gallery, kinds of queries, enrich; {} without a validation.
    """

    run: Path
    plan: dict[str, object]
    checkpoint: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    negatives: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    resumed_from: int = 0
    seconds: float = 0.0
    already_done: bool = False
    estimate: Estimate | None = None


def train_agcl(work: Workspace, *, dry_run: bool = False, force: bool = False) -> AgclSummary | None:
    """Train the embedder on the catalog and put the adapter into the checkpoint store.

    The same settings and catalog continue a run that was stopped, and do nothing when it is done (`force`: train
    again). None in all but the first of several processes. Raises UsageError, DataError and ModelError as the parts do.
    """
    world = join_world()
    try:
        return _train(work if world.first else replace(work, listener=Silent()), world, dry_run, force)
    finally:
        leave_world(world)


def _train(work: Workspace, world: World, dry_run: bool, force: bool) -> AgclSummary | None:
    folder, settings, listener, checkpoints = work.folder, work.settings, work.listener, work.checkpoints
    base = resolve_base(settings.model, "embedder", listener)
    parent = resolve_adapter(settings.model, "embedder", base, checkpoints)
    # Nothing is needed of a generator where the catalog's own columns are the attributes.
    source = None if settings.agcl.attributes == "given" else work.source
    problems = Problems()
    with _lock(work, world, dry_run):
        corpus = load_corpus(work, source, problems)
        problems.tell(listener)
        plan = make_plan(corpus, settings, base, world.size)
        settings = plan.settings
        work = work.with_settings(settings)
        world.share(settings.agcl.batch_size)
        embedder_id = name_of(settings.model, "embedder", base, parent)
        run = folder.runs / f"train-agcl-{run_key(plan, embedder_id, source, world.size)}"
        _tell_plan(plan, listener)
        if dry_run:
            return AgclSummary(run, describe(plan), estimate=_measure(work, plan, parent))
        if not force and (done := find_done(run, checkpoints)) is not None:
            return AgclSummary(run, describe(plan), **done, already_done=True) if world.first else None
        refuse_taken_name(settings.agcl.name, checkpoints, run)
        gather_objects(None, world)  # nobody looks for states before all have seen that there is work to do
        if world.first:
            if force:
                shutil.rmtree(run, ignore_errors=True)
            make_folder(run)
            write_json(run / "settings.json", settings.model_dump())
        gather_objects(None, world)
        embedder = _load(work)
        _tell_cut(embedder, plan, listener)
        model = add_trainable(embedder, settings.agcl, parent, checkpoints)
        trainer = Trainer(plan, embedder, model, base, run, world, listener)
        trained = trainer.train(model_card(base, plan, parent))
        if not world.first:
            return None
        return _finish(work, trainer, trained, parent, source)


@contextlib.contextmanager
def _lock(work: Workspace, world: World, dry_run: bool) -> Iterator[None]:
    if dry_run or not world.first:
        yield
        return
    with writer_lock(work.folder.store, "afmrl train-agcl"):
        yield


def _load(work: Workspace) -> Embedder:
    """The bare base as an embedder; the adapter comes on top, to be trained."""
    settings = work.settings
    bare = settings.model.model_copy(update={"embedder_checkpoint": ""})
    return load_embedder(
        bare, settings.embed, work.checkpoints, bases=work.bases, catalog=settings.catalog, listener=work.listener
    )


def _tell_plan(plan: Plan, listener: Listener) -> None:
    told = describe(plan)
    pairs = ", ".join(f"{number:,} {kind}" for kind, number in plan_pairs(told).items())
    listener.note(f"pairs: {pairs}; batches of {told['batch_size']}: {plan.strategy}; {plan.steps:,} steps")
    if plan.settings.embed.enrich != "none" and plan.settings.agcl.attributes == "generated":
        found = queries_with_attributes(plan)
        shares = ", ".join(f"{found[kind]:,} of {number:,} {kind}" for kind, number in plan_pairs(told).items())
        listener.note(f"queries that have attributes written from what they show: {shares}")
        if lacking := [kind for kind in KINDS if found.get(kind) == 0 and kind != "listings"]:
            asking = {view for kind in lacking for view in QUERIES_OF_KIND[kind]}
            views = ",".join(view for view in VIEWS if view in asking)
            listener.note(f"{' and '.join(lacking)} ask without: `afmrl attributes --views {views}` writes some")
    missing = len(plan.corpus.train) - plan.corpus.num_with_attributes
    if plan.settings.agcl.loss == "agcl" and missing:
        listener.warn(f"{missing:,} training products have no attributes: nothing is weighted against them")
    if plan.strategy == "category":
        counts: dict[str, int] = {}
        for listing in plan.corpus.train:
            counts[listing.category] = counts.get(listing.category, 0) + 1
        if alone := [category or "(none)" for category, number in counts.items() if number == 1]:
            listener.warn(
                f"{len(alone)} categories have one product, such as {alone[0]}: they share mixed batches, "
                "where their negatives are easy ones"
            )


def _tell_cut(embedder: Embedder, plan: Plan, listener: Listener) -> None:
    """Tell how many listings are read with a part of their text only."""
    before = embedder.texts_cut
    enriched = plan.settings.embed.enrich != "none"
    listings = plan.corpus.train + plan.corpus.validation
    items = [Item(each.text, attributes=each.attributes.get(LISTING, "") if enriched else "") for each in listings]
    embedder.texts(items, "")
    if cut := embedder.texts_cut - before:
        listener.warn(f"training: {cut_message(cut)}")


def plan_pairs(described: dict[str, object]) -> dict[str, int]:
    """How many pairs of each kind a described plan has."""
    pairs = described["pairs"]
    return dict(pairs) if isinstance(pairs, dict) else {}


def _finish(
    work: Workspace, trainer: Trainer, trained: Trained, parent: Manifest | None, source: AttributeSource | None
) -> AgclSummary:
    """Reports, the checkpoint, and the note that the run is done."""
    plan, run, base, checkpoints = trainer.plan, trainer.run, trainer.base, work.checkpoints
    settings = plan.settings
    trainer.negatives.write(run, plan.corpus.train, plan.corpus.tokens)
    draw_curve(run, "loss", settings.agcl.best_by)
    inputs = {"attributes": source.generator} if source else {}
    stored = checkpoints.add(
        trained.adapter,
        Manifest(
            role="embedder",
            base=base.name,
            base_revision=base.revision,
            name=settings.agcl.name,
            parent=parent.name if parent else None,
            run=run.name,
            inputs=inputs,
            data=plan.corpus.fingerprint,
            products=with_sources(_seen(plan), parent, inputs, checkpoints),
            settings={"agcl": settings.agcl.model_dump(), "embed": settings.embed.model_dump(), "plan": describe(plan)},
            metrics=trained.metrics,
        ),
    )
    done: dict[str, Any] = {
        "checkpoint": stored.name,
        "metrics": trained.metrics,
        "negatives": trainer.negatives.summary(),
        "validation": trainer.validation.describe() if trainer.validation else {},
        "seconds": trained.seconds,
    }
    write_json(run / "done.json", done)
    for state in run.glob("state-*"):
        shutil.rmtree(state)
    return AgclSummary(run, describe(plan), **done, resumed_from=trained.resumed_from)


def _seen(plan: Plan) -> TrainingProducts:
    """Every listing of a pair, and the validation split, by which the best step was chosen."""
    train = plan.corpus.train
    used = {i for positive in plan.positives for i in (positive.listing, *positive.others)}
    return training_products(
        ((train[i].id, train[i].identity) for i in used), ((each.id, each.identity) for each in plan.corpus.validation)
    )


def _measure(work: Workspace, plan: Plan, parent: Manifest | None) -> Estimate:
    """Load the model and do the work of a few pairs once; time and memory of a whole step follow from that."""
    settings = plan.settings
    # A dry run writes nothing, so no store: the first epoch is what is told.
    uncached = settings.model_copy(update={"cache": settings.cache.model_copy(update={"vision": False})})
    embedder = _load(work.with_settings(uncached))
    _tell_cut(embedder, plan, work.listener)
    add_trainable(embedder, settings.agcl, parent, work.checkpoints).train()
    pairs = next(plan.from_step(0, 0))[2][:MEASURED_PAIRS]
    batch = make_batch(pairs, plan.lexical, plan.corpus.train)
    reader = Reader(embedder, settings)

    def some() -> torch.Tensor:
        return accumulate(reader, batch, settings.agcl, World())[0].value

    return measure(some, embedder.loaded.device, settings.agcl.batch_size / len(pairs), plan.steps)
