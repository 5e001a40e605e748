"""What `train-rar` reads, reports, trains and leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..catalog.folds import Part
from ..catalog.problems import Problems
from ..errors import ModelError, UsageError
from ..listener import Listener
from ..models.backends import check_trainable
from ..models.generator import load_generator
from ..models.presets import NANO, name_of, resolve_adapter, resolve_base
from ..settings import Settings
from ..store.files import hash_json, make_folder, write_json
from ..store.training_products import training_products
from ..training.adapter import add_trainable, save_adapter
from ..training.card import generator_card
from ..training.corpus import Corpus
from ..training.estimate import Estimate, peak_bytes
from ..training.loop import train_resumably
from ..training.parallel import gather_objects, in_turn
from ..training.shell import (
    Job,
    Method,
    Outcome,
    Planned,
    Training,
    TrainingSummary,
    refuse_changed_tower,
    run_training,
)
from ..training.sizes import RAR_K
from ..workspace import Workspace
from .environment import make_environments, pose_all, read_corpus
from .frozen import weights_hash
from .held_out import write_samples
from .plan import NOT_THE_RESULT, Plan, make_plan
from .policy import Policy
from .room import kept_room, measure_room
from .trainer import RarTrainer

GALLERY = "train-rar-gallery"
"""The encoded galleries, beside the runs: runs with other seeds, losses or k share them."""
TRIAL_GALLERY, TRIAL_QUERIES = 128, 16
FEW_QUERIES = 200
"""So many held what they had learnt for queries that were held out; 52 did not."""


def train_rar(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary | None:
    """Train the generator by the embedder's reward and put the adapter into the checkpoint store, as `run_training`.

    `details`: plain, start and metrics are held-out metrics: without attributes, with those of the policy that training
    started from, with those of the best step; step (0: none was as good as the start), spread_by_k, collapsed, and
    where there was too little to learn `refused`, which says why.
    """
    return run_training(RAR, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work.with_instructions(), Problems()
    settings = work.settings
    check_trainable(settings, "generator", "embedder")
    job.world.share(settings.rar.prompts, "rar.prompts")
    _check_parent(job)
    base = resolve_base(settings.model, "embedder", work.listener)
    adapter = resolve_adapter(settings.model, "embedder", base, work.checkpoints)
    if adapter is not None:
        refuse_changed_tower(adapter, work.checkpoints)
    if adapter is None and base.name != NANO:
        work.listener.warn(f"the embedder is the bare {base.name}: is it made for embedding? (`afmrl train-agcl`)")
    embedder = name_of(job.model, "embedder", base, adapter)
    corpus = read_corpus(work, problems)
    problems.tell(work.listener)
    # All of both splits: products without a query stand in a gallery, and ranks reward by that too.
    seen = ([(each.id, each.identity) for each in side] for side in (corpus.train, corpus.validation))
    key = _key(settings, [job.model_id, embedder, work.task.id], corpus, work.part)
    return Planned(settings, key, corpus.fingerprint, training_products(*seen), {"embedder": embedder}, {}, corpus)


def _check_parent(job: Job) -> None:
    """Check that training starts from an SFT adapter and is held to it, or from the bare base with `rar.from_base`."""
    parent, settings = job.parent, job.work.settings
    if parent is not None and settings.rar.from_base:
        raise UsageError(
            f"--from-base and model.generator_checkpoint = {parent.name} contradict each other", "leave one of them out"
        )
    if parent is None and not settings.rar.from_base:
        checkpoints = job.work.checkpoints.list()
        known = [m.name for m in checkpoints if m.role == "generator" and m.base_revision == job.base.revision]
        how = f"name it: --set model.generator_checkpoint={known[-1]}" if known else "train it with `afmrl train-sft`"
        raise ModelError("no SFT checkpoint to start from", f"{how}, or start from the bare base with --from-base")


def _key(settings: Settings, names: list[str], corpus: Corpus, part: Part | None = None) -> str:
    """Hash all that decides the result."""
    rar = {name: value for name, value in settings.rar.model_dump().items() if name not in NOT_THE_RESULT}
    embed = settings.embed
    texts = [embed.enrich, embed.query_instruction, embed.target_instruction]
    content: list[object] = [rar, names, texts, settings.model.generator_images, corpus.fingerprint]
    return hash_json([*content, part.describe()] if part else content)[:12]


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    """Load generator and embedder, encode the gallery and choose the queries: sizes follow from what they rank."""
    work = job.work
    settings, problems = work.settings, Problems()
    # The generator first: the model that TRL trains is then the one that PEFT makes for generators.
    policy = Policy(load_generator(job.bare_model, settings.attributes, work.checkpoints, bases=work.bases))
    # TRL switches activation checkpointing on and off by itself: it must be off in rollouts.
    own = settings.rar.model_copy(update={"activation_checkpointing": False})
    add_trainable(policy.generator, own, job.parent, work.checkpoints, "CAUSAL_LM")
    embedder = work.load_embedder(job.model)
    gallery = make_folder(work.folder.runs / GALLERY)
    environments = in_turn(partial(make_environments, work, embedder, gallery, problems, planned.content), job.world)
    # What the first process sees: all measure, or none.
    room = gather_objects(kept_room(run), job.world)[0] or measure_room(work, environments.train, policy, job.world)
    room = gather_objects(room, job.world)[0]  # ranks may be rounded otherwise in another process
    plan = make_plan(environments, room, job.base, job.parent, job.model_id, work.part, job.world)
    if job.world.first:
        write_json(gallery / "gallery.json", plan.environments.description)
    _tell_plan(plan, work.listener)
    return Training(
        plan.settings,
        plan.describe(),
        partial(_train, plan, policy, run, work.listener),
        partial(_measure, plan, policy, work.listener),
    )


def _tell_plan(plan: Plan, listener: Listener) -> None:
    described = plan.describe()
    listener.note(
        f"{described['queries']:,} queries ({described['query']}) against {described['gallery_rows']:,} products, "
        f"{described['heldout_queries']:,} held out against {described['heldout_gallery_rows']:,}; "
        f"{described['steps']:,} steps of {plan.prompts} queries x {plan.settings.rar.group} answers"
    )
    for line in plan.room.lines:
        listener.note(line)
    if (number := len(plan.environments.train.queries)) < FEW_QUERIES:
        listener.note(f"only {number} queries: RAR may learn them by heart; {FEW_QUERIES} or more did not")


def _refused(plan: Plan) -> dict[str, str]:
    """Return why training would teach nothing, and what may help; {} where it may teach something."""
    why = plan.room.too_little_to_learn
    return {"refused": why, "what_may_help": plan.room.what_may_help} if why else {}


def _train(plan: Plan, policy: Policy, run: Path, listener: Listener) -> Outcome:
    spread = {"spread_by_k": plan.room.spread_by_k}
    if refused := _refused(plan):
        nothing: dict[str, Any] = {"step": 0, "metrics": {}, "plain": {}, "start": {}, "collapsed": ""}
        return Outcome(None, {}, nothing | spread | refused, None, 0, 0.0)
    embedder = plan.environments.train.embedder
    weights = weights_hash(embedder)
    with _ignore_future_warnings():
        trainer = RarTrainer(plan, policy, run, _keeper(plan, policy), listener)
        resumed = train_resumably(trainer, listener, steps_per_epoch=trainer.steps_per_epoch, at_start=trainer.start)
    if weights_hash(embedder) != weights:
        raise ModelError("the embedder's weights changed during training", "this is a fault of afmrl: please report it")
    progress, main = trainer.progress, trainer.held_out.main
    if plan.world.first:
        write_samples(run, trainer.held_out.environment, progress.before, progress.after, trainer.state.global_step)
    if not progress.best_step:
        listener.warn("no step was as good as the start on the held-out queries: no checkpoint was made")
    details = {"step": progress.best_step, "metrics": progress.best, "plain": progress.plain, "start": progress.start}
    details |= {**spread, "collapsed": progress.collapsed}
    metrics = {**progress.best, f"start_{main}": progress.start[main], f"plain_{main}": progress.plain[main]}
    adapter = run / f"best-{progress.best_step}" if progress.best_step else None
    return Outcome(adapter, metrics, details, ("reward", main), resumed, progress.seconds)


@contextlib.contextmanager
def _ignore_future_warnings() -> Iterator[None]:
    """Hide warnings: TRL uses names of transformers that are about to go; the user can't help it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _keeper(plan: Plan, policy: Policy) -> Callable[[Path], None]:
    """Return what writes the trained adapter, and nothing but it, into a folder."""
    rar = {name: value for name, value in plan.settings.rar.model_dump().items() if name != "name"}
    environment = plan.environments.train
    card = generator_card(
        plan.base,
        plan.parent,
        trained=f"`afmrl train-rar` on {len(environment.queries):,} queries of one catalog, rewarded by "
        f"{plan.room.rewarded_by} of {environment.embedder.id}",
        template=environment.task.template,
        content={"plan": plan.describe(), "rar": rar},
    )

    def keep(folder: Path) -> None:
        peft = policy.generator.loaded.peft
        if peft is None:
            raise ValueError("there is no adapter to keep")
        save_adapter(peft, plan.base, folder, card)

    return keep


def _measure(plan: Plan, policy: Policy, listener: Listener) -> tuple[Estimate, dict[str, Any]]:
    """Do two steps in a folder of their own, nothing of which is kept, and measure the second one. Validation is not in
    it.
    """
    rar = plan.settings.rar.model_copy(update={"steps": 2, "validate_every": 3, "save_every": 3})
    short = dataclasses.replace(plan, settings=plan.settings.model_copy(update={"rar": rar}))
    with tempfile.TemporaryDirectory() as name, _ignore_future_warnings():
        trainer = RarTrainer(short, policy, Path(name), _keeper(plan, policy), listener)
        device = policy.generator.loaded.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = trainer.measure()
    estimate = Estimate(peak_bytes(device), seconds, seconds * plan.settings.rar.steps)
    return estimate, {"spread_by_k": plan.room.spread_by_k, **_refused(plan)}


def _check(work: Workspace, corpus: Corpus) -> None:
    pose_all(corpus, work.settings, work.part)


def _trial(settings: Settings) -> Settings:
    """Return a step among few listings: to encode a whole gallery would take more than a few seconds."""
    rar = settings.rar
    small = {
        "from_base": not settings.model.generator_checkpoint,
        "gallery": max(TRIAL_GALLERY, 4 * (rar.k or RAR_K)),
        "queries": max(TRIAL_QUERIES, rar.prompts),
        "validation_queries": TRIAL_QUERIES,
    }
    return settings.model_copy(update={"rar": rar.model_copy(update=small)})


def _uses(settings: Settings) -> frozenset[str]:
    return frozenset({"generator", "embedder", "texts", "verdicts"})


RAR = Method(
    "rar",
    "RAR",
    "generator",
    _plan,
    _prepare,
    check=_check,
    trial=_trial,
    uses=_uses,
    samples="queries",
    not_the_result=NOT_THE_RESULT,
    parallel=True,
    writes_dry=True,
)
