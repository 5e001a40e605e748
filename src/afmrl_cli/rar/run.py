"""`train-rar` from catalog to checkpoint: what is read, which run it is, training, and what is written at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..catalog.problems import Problems
from ..errors import ModelError, UsageError
from ..listener import Listener
from ..models.embedder import load_embedder
from ..models.generator import load_generator
from ..models.presets import NANO, Base, name_of, resolve_adapter, resolve_base
from ..settings import Settings
from ..store.checkpoints import Checkpoints, Manifest
from ..store.files import hash_json, make_folder, write_json
from ..store.lineage import with_sources
from ..store.lock import writer_lock
from ..store.training_products import training_products
from ..training.adapter import add_trainable, save_adapter
from ..training.card import generator_card
from ..training.corpus import Corpus
from ..training.estimate import Estimate, peak_bytes
from ..training.outcome import draw_curve, find_done, refuse_taken_name
from ..training.resumable import train_resumably
from ..workspace import Workspace
from .environment import make_environments, read_corpus
from .frozen import weights_hash
from .held_out import write_samples
from .plan import NOT_THE_RESULT, Plan, make_plan
from .policy import Policy
from .trainer import Progress, RarTrainer

GALLERY = "train-rar-gallery"
"""The encoded galleries, beside the runs: runs with other seeds, losses or k share them."""


@dataclass(frozen=True)
class RarSummary:
    """What `train_rar` did or, for a dry run, would do (`estimate`).

    `plain`, `start` and `metrics` are held-out figures: without attributes, with those of the policy that training
    started from, with those of the best step. `checkpoint` is "" when no step was as good as the start.
    """

    run: Path
    plan: dict[str, object] = field(default_factory=dict)
    checkpoint: str = ""
    step: int = 0
    plain: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    spread_by_k: dict[str, float] = field(default_factory=dict)
    collapsed: str = ""
    resumed_from: int = 0
    seconds: float = 0.0
    already_done: bool = False
    estimate: Estimate | None = None


def train_rar(work: Workspace, *, dry_run: bool = False, force: bool = False) -> RarSummary:
    """Train the generator by the embedder's reward and put the adapter into the checkpoint store.

    The same settings and catalog continue a run that was stopped, and do nothing when it is done (`force`: train
    again). Raises UsageError, DataError and ModelError as the parts do.
    """
    folder, settings, listener, checkpoints = work.folder, work.settings, work.listener, work.checkpoints
    _refuse(settings)
    base = resolve_base(settings.model, "generator", listener)
    parent = _parent(settings, base, checkpoints)
    embedder_base = resolve_base(settings.model, "embedder", listener)
    judge = resolve_adapter(settings.model, "embedder", embedder_base, checkpoints)
    if judge is None and embedder_base.name != NANO:
        listener.warn(f"the embedder is the bare {embedder_base.name}: is it made for embedding? (`afmrl train-agcl`)")
    names = [
        name_of(settings.model, "generator", base, parent),
        name_of(settings.model, "embedder", embedder_base, judge),
        work.task.id,
    ]
    problems = Problems()
    with writer_lock(folder.store, "afmrl train-rar"):
        corpus = read_corpus(work, problems)
        problems.tell(listener)
        run = folder.runs / f"train-rar-{_key(settings, names, corpus)}"
        if not (force or dry_run) and (done := find_done(run, checkpoints)) is not None:
            return RarSummary(run, **done, already_done=True)
        refuse_taken_name(settings.rar.name, checkpoints, run)
        # The generator first: the model that TRL trains is then the one that PEFT makes for generators.
        policy = Policy(load_generator(_bare(settings), settings.attributes, checkpoints, bases=work.bases))
        add_trainable(policy.generator, _without_checkpointing(settings), parent, checkpoints, "CAUSAL_LM")
        embedder = load_embedder(
            settings.model, settings.embed, checkpoints, bases=work.bases, catalog=settings.catalog, listener=listener
        )
        environments = make_environments(work, embedder, make_folder(folder.runs / GALLERY), problems, corpus)
        plan = make_plan(environments, base, parent, names[0])
        settings = plan.settings
        _tell_plan(plan, listener)
        if dry_run:
            return _measure(work, plan, policy, run)
        if force:
            shutil.rmtree(run, ignore_errors=True)
        make_folder(run)
        write_json(run / "settings.json", settings.model_dump())
        write_json(run / "plan.json", plan.describe())
        return _train(work, plan, policy, run, corpus)


def _refuse(settings: Settings) -> None:
    if settings.attributes.endpoint:
        raise UsageError("attributes.endpoint is set, but only a local generator can be trained", "leave it empty")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train-rar runs in one process, on one GPU", "start it without torchrun")


def _parent(settings: Settings, base: Base, checkpoints: Checkpoints) -> Manifest | None:
    """The SFT adapter that training starts from and is held to; None with `rar.from_base`."""
    parent = resolve_adapter(settings.model, "generator", base, checkpoints)
    if parent is not None and settings.rar.from_base:
        raise UsageError(
            f"--from-base and model.generator_checkpoint = {parent.name} contradict each other", "leave one of them out"
        )
    if parent is None and not settings.rar.from_base:
        known = [m.name for m in checkpoints.list() if m.role == "generator" and m.base_revision == base.revision]
        how = f"name it: --set model.generator_checkpoint={known[-1]}" if known else "train it with `afmrl train-sft`"
        raise ModelError("no SFT checkpoint to start from", f"{how}, or start from the bare base with --from-base")
    return parent


def _key(settings: Settings, names: list[str], corpus: Corpus) -> str:
    """A hash of all that decides the result."""
    rar = {name: value for name, value in settings.rar.model_dump().items() if name not in NOT_THE_RESULT}
    embed = settings.embed
    texts = [embed.enrich, embed.query_instruction, embed.target_instruction]
    return hash_json([rar, names, texts, settings.model.generator_images, corpus.fingerprint])[:12]


def _bare(settings: Settings) -> Any:
    return settings.model.model_copy(update={"generator_checkpoint": ""})


def _without_checkpointing(settings: Settings) -> Any:
    """TRL switches activation checkpointing on and off by itself: it must be off in rollouts."""
    return settings.rar.model_copy(update={"activation_checkpointing": False})


def _tell_plan(plan: Plan, listener: Listener) -> None:
    told = plan.describe()
    listener.note(
        f"{told['queries']:,} queries ({told['query']}) against {told['gallery_rows']:,} products, "
        f"{told['heldout_queries']:,} held out against {told['heldout_gallery_rows']:,}; "
        f"{told['steps']:,} steps of {plan.prompts} queries x {plan.settings.rar.group} answers"
    )
    share, k = float(str(told["plain_hit"])), plan.settings.rar.k
    if not 0.1 < share < 0.9:
        listener.warn(
            f"without attributes {share:.0%} of the queries already have an answer among the first {k}: "
            f"rar.k = {told['median_k']} or rar.gallery = {told['middling_gallery_rows']} would leave more to learn"
        )


def _train(work: Workspace, plan: Plan, policy: Policy, run: Path, corpus: Corpus) -> RarSummary:
    listener, embedder = work.listener, plan.environments.train.embedder
    weights = weights_hash(embedder)
    with _unmoved_by_the_future():
        trainer = RarTrainer(plan, policy, run, _keeper(plan, policy), listener)
        resumed = train_resumably(trainer, listener, steps_per_epoch=trainer.steps_per_epoch, at_start=trainer.start)
    if weights_hash(embedder) != weights:
        raise ModelError("the embedder's weights changed during training", "this is a fault of afmrl: please report it")
    progress = trainer.progress
    draw_curve(run, "reward", trainer.held_out.main)
    write_samples(run, trainer.held_out.environment, progress.before, progress.after, trainer.state.global_step)
    done = _store(work, plan, progress, run, corpus)
    done["seconds"] = progress.seconds
    write_json(run / "done.json", done)
    for state in run.glob("state-*"):
        shutil.rmtree(state)
    if not progress.best_step:
        listener.warn("no step was as good as the start on the held-out queries: no checkpoint was made")
    return RarSummary(run, **done, resumed_from=resumed)


@contextlib.contextmanager
def _unmoved_by_the_future() -> Iterator[None]:
    """TRL uses names of transformers that are about to go; the user can't help it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _keeper(plan: Plan, policy: Policy) -> Callable[[Path], None]:
    """What writes the trained adapter, and nothing but it, into a folder."""
    rar = {name: value for name, value in plan.settings.rar.model_dump().items() if name != "name"}
    environment = plan.environments.train
    card = generator_card(
        plan.base,
        plan.parent,
        trained=f"`afmrl train-rar` on {len(environment.queries):,} queries of one catalog, rewarded by "
        f"recall@{plan.settings.rar.k} of {environment.embedder.id}",
        template=environment.task.template,
        content={"plan": plan.describe(), "rar": rar},
    )

    def keep(folder: Path) -> None:
        peft = policy.generator.loaded.peft
        if peft is None:
            raise ValueError("there is no adapter to keep")
        save_adapter(peft, plan.base, folder, card)

    return keep


def _store(work: Workspace, plan: Plan, progress: Progress, run: Path, corpus: Corpus) -> dict[str, Any]:
    """The best adapter into the store; what done.json says."""
    checkpoints, main = work.checkpoints, f"recall@{plan.settings.rar.k}"
    name = ""
    if progress.best_step:
        inputs = {"embedder": plan.environments.train.embedder.id}
        # All of both splits: what is not asked about stands in a gallery, and ranks reward by that too.
        seen = ([(each.id, each.identity) for each in side] for side in (corpus.train, corpus.validation))
        manifest = Manifest(
            role="generator",
            base=plan.base.name,
            base_revision=plan.base.revision,
            name=plan.settings.rar.name,
            parent=plan.parent.name if plan.parent else None,
            run=run.name,
            inputs=inputs,
            data=corpus.fingerprint,
            products=with_sources(training_products(*seen), plan.parent, inputs, checkpoints),
            settings={
                "rar": plan.settings.rar.model_dump(),
                "attributes": plan.settings.attributes.model_dump(),
                "plan": plan.describe(),
            },
            metrics={**progress.best, f"start_{main}": progress.start[main], f"plain_{main}": progress.plain[main]},
        )
        name = checkpoints.add(run / f"best-{progress.best_step}", manifest).name
    kept = {
        key: value for key, value in asdict(progress).items() if key in ("plain", "start", "spread_by_k", "collapsed")
    }
    return {"plan": plan.describe(), "checkpoint": name, "step": progress.best_step, "metrics": progress.best, **kept}


def _measure(work: Workspace, plan: Plan, policy: Policy, run: Path) -> RarSummary:
    """Two steps in a folder of their own, nothing of which is kept; the second one is measured. Looks at the held-out
    queries are not in it.
    """
    steps = 2 * plan.settings.rar.updates
    rar = plan.settings.rar.model_copy(update={"steps": steps, "validate_every": steps + 1, "save_every": steps + 1})
    short = dataclasses.replace(plan, settings=plan.settings.model_copy(update={"rar": rar}))
    with tempfile.TemporaryDirectory() as name, _unmoved_by_the_future():
        trainer = RarTrainer(short, policy, Path(name), _keeper(plan, policy), work.listener)
        device = policy.generator.loaded.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.measure()
        rows = [json.loads(line) for line in Path(name, "metrics.jsonl").read_text("utf-8").splitlines()]
    seconds = rows[-1]["step_time"]
    estimate = Estimate(peak_bytes(device), seconds, seconds * plan.settings.rar.steps)
    return RarSummary(run, plan.describe(), spread_by_k=trainer.progress.spread_by_k, estimate=estimate)
