"""What `train-sft` reads, reports, trains and leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..catalog.problems import Problems
from ..models.base import Bases
from ..models.generator import LocalGenerator, load_generator
from ..models.processor import load_processor
from ..saga.adjudicator import verdict_words
from ..saga.photos import load_photos
from ..settings import Settings
from ..store.training_products import training_products
from ..training.adapter import add_trainable
from ..training.card import generator_card
from ..training.corpus import Corpus as TrainingCorpus
from ..training.estimate import Estimate, measure
from ..training.loop import train_resumably
from ..training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_training, start_job
from ..workspace import Workspace
from .corpus import load_corpus
from .pair_score import near_chance
from .pairs import PairPlan, make_pair_plan
from .plan import NOT_THE_RESULT, Plan, make_plan, run_key
from .trainer import Collator, SftTrainer, loss_of
from .vocabulary import warn_of_indistinct


def train_sft(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary | None:
    """Train the generator on right answers and put the adapter into the checkpoint store, as `run_training`.

    `details`: before and best are the validation's metrics with step, keys (per key) and failures; {} without one.
    """
    return run_training(SFT, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    if job.work.settings.sft.source == "pairs":
        return _plan_pairs(job)
    work, problems = job.work, Problems()
    corpus = load_corpus(work, load_processor(job.base), job.reading_id, problems)
    problems.tell(work.listener)
    plan = make_plan(corpus, work.task, work.settings, job.base)
    plan.chunk(job.world)
    work.listener.note(
        f"targets from {corpus.source.name}: {len(corpus.train):,} to learn, {len(corpus.validation):,} to check by; "
        f"{plan.steps:,} steps of {plan.settings.sft.batch_size}"
    )
    for reason, number in corpus.left_out.most_common():
        product, text = corpus.first[reason]
        first = f"first {product}" + (f": {text[:80]}" if text else "")
        work.listener.warn(f"{number:,} targets left out: {reason}; {first}")
    if not corpus.validation:
        work.listener.warn(
            "no product of the validation split has a target: the last step's adapter is kept "
            "(split.validation is its share)"
        )
    sides = (corpus.train, corpus.validation)
    return Planned(
        plan.settings,
        run_key(plan, job.model_id, job.world),
        corpus.fingerprint,
        training_products(*([(each.product.id, each.product.identity) for each in side] for side in sides)),
        {"targets": corpus.source.teacher} if corpus.source.teacher else {},
        plan.describe(work.part),
        plan,
    )


def _plan_pairs(job: Job) -> Planned:
    work, problems = job.work, Problems()
    processor = load_processor(job.base)
    words = verdict_words(job.base, job.parent, processor.tokenizer)
    photos = load_photos(work, problems, job.reading_id)
    problems.tell(work.listener)
    plan = make_pair_plan(photos, words, work.task, work.settings, job.base, processor)
    plan.chunk(job.world)
    work.listener.note(
        f"pairs of {len(plan.known.photos):,} photos in {len(plan.known.classes):,} classes, attributes from "
        f"{photos.source}; {len(plan.validation):,} pairs to check by; {plan.steps:,} steps of "
        f"{plan.settings.sft.batch_size}"
    )
    if left_out := (photos.left_out + plan.left_out).most_common():
        work.listener.warn("left out: " + ", ".join(f"{number:,} {reason}" for reason, number in left_out))
    if not plan.reranks:
        work.listener.note("no two products have two photos each: the reranker's question is not taught")
    if not plan.validation:
        work.listener.warn(
            "the validation split has no two classes with two photos: the last step's adapter is kept "
            "(split.validation is its share)"
        )
    sides = (plan.known.photos, photos.validation.photos)
    return Planned(
        plan.settings,
        plan.key(job.model_id, job.world),
        photos.fingerprint,
        training_products(*(sorted({(each.listing, each.identity) for each in side}) for side in sides)),
        {"targets": photos.teacher} if photos.teacher else {},
        plan.describe(work.part),
        plan,
    )


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    plan = planned.content
    return Training(
        planned.settings, planned.description, partial(_train, job, plan, run), partial(_measure, job, plan)
    )


def _load(job: Job, plan: Plan | PairPlan, bases: Bases) -> LocalGenerator:
    """Load the bare base as a generator; the adapter comes on top, to be trained."""
    work = job.work
    return load_generator(job.bare_model, plan.attributes, work.checkpoints, bases=bases, listener=work.listener)


def _train(job: Job, plan: Plan | PairPlan, run: Path) -> Outcome:
    listener, sft = job.work.listener, plan.settings.sft
    generator = _load(job, plan, job.work.bases)
    warn_of_indistinct(generator, plan.answers, listener)
    model = add_trainable(generator, sft, job.parent, job.work.checkpoints, "CAUSAL_LM")
    trainer = SftTrainer(plan, generator, model, run, job, _card(job, plan), listener)
    validate = trainer.evaluate if plan.validation else None
    resumed = train_resumably(trainer, listener, steps_per_epoch=plan.steps_per_epoch, at_start=validate)
    best, before = trainer.best, trainer.before
    if best and not best["valid"]:
        kind = max(best["failures"], key=best["failures"].__getitem__)
        listener.warn(f"no answer of the trained generator is valid (most often: {kind}); train longer (sft.epochs)")
    elif best and isinstance(plan, PairPlan) and near_chance(best["accuracy"], len(plan.validation)):
        listener.warn(
            f"{best['accuracy']:.0%} of {len(plan.validation)} verdicts are right: not shown to be better than chance, "
            "50%, so that `train-vision` will refuse this generator; train longer (sft.epochs), or a larger one"
        )
    elif best and best[sft.best_by] <= before[sft.best_by]:
        listener.warn("the trained generator is no better than before; more targets or steps may help")
    metrics = {key: float(value) for key, value in best.items() if isinstance(value, int | float) and key != "step"}
    metrics |= {f"accuracy.{key}": each["accuracy"] for key, each in best.get("keys", {}).items()}
    adapter = run / f"best-{trainer.state.best_global_step}"
    details = {"metrics": metrics, "before": before, "best": best}
    return Outcome(adapter, metrics, details, ("loss", sft.best_by), resumed, trainer.seconds)


def _card(job: Job, plan: Plan | PairPlan) -> str:
    sft = {key: value for key, value in plan.settings.sft.model_dump().items() if key not in ("name", "file")}
    return generator_card(
        job.base,
        job.parent,
        trained=f"`afmrl train-sft` on {plan.learnt_from} of one catalog",
        template=plan.prompt,
        content={"plan": plan.describe(job.work.part), "sft": sft},
    )


def _measure(job: Job, plan: Plan | PairPlan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model and learn one chunk; time and memory of a whole step follow from that."""
    settings = plan.settings
    # A dry run writes nothing, so no store: the estimate is that of the first epoch.
    generator = _load(job, plan, Bases())
    model = add_trainable(generator, settings.sft, job.parent, job.work.checkpoints, "CAUSAL_LM").train()
    chunk, own = plan.chunk(job.world), settings.sft.batch_size / job.world.size
    batch = Collator(generator, plan.task, settings)([plan[i] for i in range(chunk)])

    def part() -> torch.Tensor:
        loss = loss_of(model, batch, generator)
        torch.autograd.backward(loss)
        return loss.detach()

    return measure(part, generator.loaded.device, own / chunk, plan.steps), {}


def _check(work: Workspace, corpus: TrainingCorpus) -> None:
    _plan(start_job(SFT, work))


def _trial(settings: Settings) -> Settings:
    return settings


def _uses(settings: Settings) -> frozenset[str]:
    return frozenset({"columns", "targets", "generator"})


SFT = Method(
    "sft",
    "SFT",
    "generator",
    _plan,
    _prepare,
    check=_check,
    trial=_trial,
    uses=_uses,
    samples="max_products",
    not_the_result=NOT_THE_RESULT,
    parallel=True,
)
