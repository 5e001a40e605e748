"""What `train-agcl` reads, reports, trains and leaves."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..attributes.views import LISTING, VIEWS, AttributeSource
from ..catalog.problems import Problems
from ..errors import DataError
from ..listener import Listener
from ..models.backends import check_trainable
from ..models.embed_input import Item
from ..models.embedder import Embedder
from ..retrieval.encode import cut_message
from ..settings import Settings
from ..store.training_products import TrainingProducts, training_products
from ..workspace import Workspace
from .adapter import add_trainable
from .card import model_card
from .corpus import Corpus, load_corpus
from .estimate import Estimate, measure
from .loop import train_resumably
from .margin import message
from .pairs import KINDS, QUERIES_OF_KIND, mix
from .parallel import World
from .plan import LEAST_BATCHES, NOT_THE_RESULT, Plan, describe, make_plan, queries_with_attributes, run_key
from .shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_training, start_job
from .step import Reader, accumulate, make_batch
from .trainer import AgclTrainer

MEASURED_PAIRS = 64


def train_agcl(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary | None:
    """Train the embedder on the catalog and put the adapter into the checkpoint store, as `run_training`.

    `details`: metrics of the best step, negatives (their summary), and validation, which says what the metrics are of:
    queries, gallery, kinds of queries, enrich; {} without a validation.
    """
    return run_training(AGCL, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work.with_instructions(), Problems()
    check_trainable(work.settings, "embedder")
    # Nothing is needed of a generator where the catalog's own columns are the attributes.
    source = None if work.settings.agcl.attributes == "given" else work.source
    corpus = load_corpus(work, source, problems)
    problems.tell(work.listener)
    plan = make_plan(corpus, work.settings, job.base, job.world.size)
    job.world.share(plan.settings.agcl.batch_size, "agcl.batch_size")
    _tell_plan(plan, work.listener)
    return Planned(
        plan.settings,
        run_key(plan, job.model_id, source, job.world.size),
        corpus.fingerprint,
        _products(plan),
        _described_by(corpus, source),
        describe(plan, work.part),
        plan,
    )


def _described_by(corpus: Corpus, source: AttributeSource | None) -> dict[str, str]:
    """Return the generators whose attributes are learnt from, for the manifest: the settings' own, and others'."""
    if source is None:
        return {}
    others = [id for id in corpus.generators if id != source.generator]
    return {"attributes": source.generator, **{f"attributes of fold {i}": id for i, id in enumerate(others, 1)}}


def _products(plan: Plan) -> TrainingProducts:
    """Return every listing of a pair, and the validation split, by which the best step was chosen."""
    train = plan.corpus.train
    used = {i for positive in plan.positives for i in (positive.listing, *positive.others)}
    return training_products(
        ((train[i].id, train[i].identity) for i in used), ((each.id, each.identity) for each in plan.corpus.validation)
    )


def _tell_plan(plan: Plan, listener: Listener) -> None:
    counts = mix(plan.positives)
    pairs = ", ".join(f"{number:,} {kind}" for kind, number in counts.items())
    batch_size = plan.settings.agcl.batch_size
    listener.note(f"pairs: {pairs}; batches of {batch_size}: {plan.strategy}; {plan.steps:,} steps")
    if plan.settings.embed.enrich != "none" and plan.settings.agcl.attributes == "generated":
        found = queries_with_attributes(plan)
        shares = ", ".join(f"{found[kind]:,} of {number:,} {kind}" for kind, number in counts.items())
        listener.note(f"queries that have attributes written from what they show: {shares}")
        if lacking := [kind for kind in KINDS if found.get(kind) == 0 and kind != "listings"]:
            of_queries = {view for kind in lacking for view in QUERIES_OF_KIND[kind]}
            views = ",".join(view for view in VIEWS if view in of_queries)
            listener.note(f"{' and '.join(lacking)} ask without: `afmrl attributes --views {views}` writes some")
    missing = len(plan.corpus.train) - plan.corpus.num_with_attributes
    if plan.loss.weighted and missing:
        listener.warn(f"{missing:,} training products have no attributes: nothing is weighted against them")
    if plan.strategy == "category":
        sizes: dict[str, int] = {}
        for listing in plan.corpus.train:
            sizes[listing.category] = sizes.get(listing.category, 0) + 1
        if single := [category or "(none)" for category, number in sizes.items() if number == 1]:
            listener.warn(
                f"{len(single)} categories have one product, such as {single[0]}: they share mixed batches, "
                "where their negatives are easy ones"
            )


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    train = partial(_train, job, planned.content, run)
    return Training(planned.settings, planned.description, train, partial(_measure, job, planned.content))


def _load(job: Job, settings: Settings, plan: Plan) -> Embedder:
    """Load the bare base as an embedder; the adapter comes on top, to be trained. Tell which texts are cut."""
    work = job.work.with_settings(settings)
    embedder = work.load_embedder(job.bare_model)
    _tell_cut(embedder, plan, work.listener)
    return embedder


def _tell_cut(embedder: Embedder, plan: Plan, listener: Listener) -> None:
    """Tell how many listings are read with a part of their text only."""
    before = embedder.texts_cut
    enriched = plan.settings.embed.enrich != "none"
    listings = plan.corpus.train + plan.corpus.validation
    items = [Item(each.text, attributes=each.attributes.get(LISTING, "") if enriched else "") for each in listings]
    embedder.texts(items, "")
    if cut := embedder.texts_cut - before:
        listener.warn(f"training: {cut_message(cut)}")


def _train(job: Job, plan: Plan, run: Path) -> Outcome:
    agcl = plan.settings.agcl
    embedder = _load(job, plan.settings, plan)
    model = add_trainable(embedder, agcl, job.parent, job.work.checkpoints)
    listener = job.work.listener
    card = partial(model_card, job, plan, embedder.template)
    trainer = AgclTrainer(plan, embedder, model, job.base, run, card, listener)
    if trainer.validation is None:
        listener.warn(
            "the validation split has too few pairs to measure recall: the last step's adapter is kept "
            "(split.validation is its share)"
        )
    with contextlib.ExitStack() as closing:
        closing.callback(lambda: trainer.board and trainer.board.close())
        resumed = train_resumably(trainer, listener, steps_per_epoch=plan.steps_per_epoch, at_start=trainer.evaluate)
    trainer.tell_gain()
    if job.world.first:
        trainer.negatives.write(run, plan.corpus.train, plan.corpus.tokens)
    best, margin = trainer.progress.best, trainer.margin.summary()
    if margin:
        listener.note(message(margin))
    details = {
        "metrics": best,
        "negatives": trainer.negatives.summary(),
        "nearest_margin": margin,
        "validation": trainer.validation.describe() if trainer.validation else {},
    }
    adapter = run / f"best-{trainer.state.best_global_step}"
    return Outcome(adapter, best, details, ("loss", agcl.best_by), resumed, trainer.seconds)


def _measure(job: Job, plan: Plan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model and do the work of a few pairs once; time and memory of a whole step follow from that."""
    settings = plan.settings
    # A dry run writes nothing, so no store: the estimate is that of the first epoch.
    uncached = settings.model_copy(update={"cache": settings.cache.model_copy(update={"vision": False})})
    embedder = _load(job, uncached, plan)
    add_trainable(embedder, settings.agcl, job.parent, job.work.checkpoints).train()
    pairs = next(plan.from_step(0, 0))[2][:MEASURED_PAIRS]
    batch = make_batch(pairs, plan.lexical, plan.corpus.train)
    reader = Reader(embedder, settings)

    def part() -> torch.Tensor:
        return accumulate(reader, batch, plan.loss, settings.agcl.chunk_tokens, World())[0].value

    parts = settings.agcl.batch_size / len(pairs) / job.world.size
    return measure(part, embedder.loaded.device, parts, plan.steps), {}


def _check(work: Workspace, corpus: Corpus) -> None:
    job = start_job(AGCL, work)
    plan = make_plan(corpus, _trial(work.settings), job.base)
    if work.part and "later" in work.part.learn and plan.steps_per_epoch < LEAST_BATCHES:
        raise DataError(
            f"{plan.steps_per_epoch} batches of {plan.settings.agcl.batch_size} products with a pair are fewer than "
            f"{LEAST_BATCHES}: every step would have nearly the same products"
        )


def _trial(settings: Settings) -> Settings:
    """Return the settings as for InfoNCE, where the attributes that AGCL weights by are still to be written; they cost
    nothing.
    """
    if settings.agcl.attributes == "given":
        return settings
    agcl = settings.agcl.model_copy(update={"loss": "infonce", "batches": "auto"})
    return settings.model_copy(update={"agcl": agcl})


def _uses(settings: Settings) -> frozenset[str]:
    texts = "columns" if settings.agcl.attributes == "given" else "generator"
    return frozenset({texts, "embedder", "texts", "verdicts"})


AGCL = Method(
    "agcl",
    "AGCL",
    "embedder",
    _plan,
    _prepare,
    check=_check,
    trial=_trial,
    uses=_uses,
    samples="share",
    not_the_result=NOT_THE_RESULT,
    parallel=True,
)
