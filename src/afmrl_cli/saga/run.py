"""What `train-vision` reads, reports, trains and leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from ..catalog.problems import Problems
from ..errors import ModelError
from ..intervals import interval_of_share
from ..models.base import Bases
from ..models.generator import LocalGenerator, load_generator
from ..models.presets import base_precision, resolve_adapter
from ..models.processor import load_processor
from ..store.checkpoints import POOLER_WEIGHTS
from ..store.files import read_object, reading, write_json
from ..store.training_products import training_products
from ..training.adapter import ADAPTER_NAME, add_trainable, save_adapter
from ..training.estimate import Estimate
from ..training.loop import train_resumably
from ..training.parallel import gather_objects
from ..training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_training
from ..training.staged import load_weights
from ..workspace import Workspace
from .adjudicator import judging, verdict_words
from .card import vision_card
from .estimate import measure_parts
from .maps import mapped_photos
from .metric import make_metric
from .model import Saga
from .page import write_page
from .photos import load_photos
from .plan import NOT_THE_RESULT, Plan, describe, make_plan, run_key
from .pooler import Pooler, load_pooler, save_pooler
from .trainer import VisionTrainer
from .verdicts import share_of_right

JUDGE = "judge.json"


def train_vision(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary | None:
    """Train the vision encoder on photos and put tower and pooler into the checkpoint store, as `run_training`.

    `details`: metrics of the best step and before the first one, what the judge knew, how many pairs were asked about.
    """
    return run_training(VISION, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work, Problems()
    photos = load_photos(work, problems)
    problems.tell(work.listener)
    judge = resolve_adapter(work.settings.model, "generator", job.base, work.checkpoints)
    words = verdict_words(job.base, judge, load_processor(job.base).tokenizer)
    plan = make_plan(photos, words, work.generator_id, work.settings, job.base)
    job.world.need_one_each(plan.least_photos, "vision.batch_size")
    _tell(plan, work)
    sides = (photos.train.photos, photos.validation.photos)
    return Planned(
        plan.settings,
        run_key(plan, job.model_id),
        photos.fingerprint,
        training_products(*([(each.listing, each.identity) for each in side] for side in sides)),
        {"judge": plan.judge} if plan.asks else {},
        describe(plan),
        plan,
    )


def _tell(plan: Plan, work: Workspace) -> None:
    train, vision, listener = plan.photos.train, plan.settings.vision, work.listener
    listener.note(
        f"{len(train.photos):,} photos of {len(train.classes):,} classes ({', '.join(vision.classes) or 'identity'}); "
        f"{plan.steps:,} steps of {vision.batch_size} photos" + (f", {vision.pairs} pairs each" if plan.asks else "")
    )
    for reason, number in plan.photos.left_out.most_common():
        listener.warn(f"left out: {number:,} {reason}")
    if not plan.photos.validation.photos:
        listener.warn(
            "no photo of the validation split has another one of its class: the last step's weights are kept "
            "(split.validation is its share)"
        )


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    plan = planned.content
    return Training(
        planned.settings, planned.description, partial(_train, job, plan, run), partial(_measure, job, plan)
    )


def load_judge(job: Job, plan: Plan, bases: Bases) -> LocalGenerator:
    """Load the generator that judges pairs, in the precision that the tower is trained in. ModelError when its vision
    tower can't be trained.
    """
    work = job.work
    if base_precision(job.model, job.base).precision == "nf4" and plan.asks:
        work.listener.note("the language model is in 4 bits: gradients through it are noisier (docs/lab/vision.md)")
    judge = load_generator(job.model, judging(plan.settings), work.checkpoints, bases=bases, listener=work.listener)
    odd = next(
        (name for name, each in judge.loaded.trunk.visual.named_parameters() if not each.is_floating_point()), ""
    )
    if odd:
        raise ModelError(
            f"{job.base.name}: the vision tower is quantised ({odd}) and can't be trained",
            "use the model's folder in full precision; model.precision = nf4 leaves the tower as it is",
        )
    return judge


def make_saga(job: Job, plan: Plan, judge: LocalGenerator) -> tuple[Saga, PeftModel]:
    """Hang the adapter that is trained on the tower of `judge`, and make pooler and proxies; the language model and its
    adapter are frozen.
    """
    vision, parent, checkpoints = plan.settings.vision, job.parent, job.work.checkpoints
    language = judge.adapter
    tower = add_trainable(judge, vision, parent, checkpoints, targets=job.base.family.tower_targets)
    if language is not None:
        tower.base_model.set_adapter([language, ADAPTER_NAME])
    for name, parameter in tower.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(".visual." in name and f".{ADAPTER_NAME}." in name)
    width = int(judge.loaded.causal.config.get_text_config().hidden_size)
    dimension = vision.dimension or width
    if parent is None:
        pooler = Pooler(width, dimension, vision.pooling)
    else:
        pooler = load_pooler(checkpoints.path(parent.name) / POOLER_WEIGHTS)
        if (pooler.dimension, pooler.pooling) != (dimension, vision.pooling):
            raise ModelError(
                f"checkpoint {parent.name} has {pooler.pooling} pooling to {pooler.dimension} numbers",
                f"set vision.pooling = {pooler.pooling} and vision.dimension = {pooler.dimension}",
            )
    metric = make_metric(vision.loss, len(plan.photos.train.classes), dimension, vision.seed)
    device = judge.loaded.device
    return Saga(judge, pooler.to(device), metric.to(device), plan.question, plan.words, vision), tower


def _train(job: Job, plan: Plan, run: Path) -> Outcome:
    listener = job.work.listener
    judge = load_judge(job, plan, job.work.bases)
    known = _check_judge(judge, plan, run, job) if plan.asks else {}
    saga, tower = make_saga(job, plan, judge)
    card = vision_card(job, plan)

    def save(folder: Path) -> None:
        save_adapter(tower, job.base, folder, card)
        save_pooler(saga.pooler, folder / POOLER_WEIGHTS)

    trainer = VisionTrainer(plan, saga, tower, run, save, listener)
    resumed = train_resumably(trainer, listener, steps_per_epoch=plan.steps_per_epoch, at_start=trainer.evaluate)
    best, before = trainer.progress.best, trainer.progress.start
    if best and best["recall@1"] <= before["recall@1"]:
        listener.warn(
            f"nothing was gained: validation recall@1 {before['recall@1']:.3f} before, {best['recall@1']:.3f} at the "
            "best step; train longer (vision.epochs), or lower vision.learning_rate"
        )
    kept = trainer.state.best_global_step
    adapter = run / f"best-{kept}"
    if job.world.first:
        load_weights(tower, adapter)
        saga.pooler.load_state_dict(load_pooler(adapter / POOLER_WEIGHTS).state_dict())
        tower.eval()
        write_page(run, job.work.folder.catalog.name, plan, kept, saga.layer + 1, mapped_photos(saga, plan))
    details = {
        "metrics": best,
        "before": before,
        "judge": known,
        "pairs": {"asked": trainer.asked, "differing": trainer.differing},
    }
    return Outcome(adapter, best, details, ("loss", "recall@1"), resumed, trainer.seconds)


def _check_judge(judge: LocalGenerator, plan: Plan, run: Path, job: Job) -> dict[str, Any]:
    """Return how often the judge is right about validation pairs, measured once a run. ModelError when it is not shown
    to be better than chance: then rewards would be noise.
    """
    work, file = job.work, run / JUDGE
    if job.world.first and not file.exists():
        photos = plan.photos.validation if len(plan.photos.validation.classes) > 1 else plan.photos.train
        found = share_of_right(judge, plan.question, plan.words, photos, plan.settings, work.listener)
        write_json(file, {"right": found.right, "pairs": found.asked, "unreadable": found.unreadable})
    gather_objects(None, job.world)
    with reading(file):
        known = read_object(file)
        right, asked, unreadable = (int(known[name]) for name in ("right", "pairs", "unreadable"))
    low, _ = interval_of_share(right / max(1, asked), asked)
    message = f"the generator is right about {right / max(1, asked):.0%} of {asked} pairs ({unreadable} can't be read)"
    if low <= 0.5:
        raise ModelError(
            f"{message}: not shown to be better than chance, 50%",
            "teach it to judge: afmrl train-sft --set sft.source=pairs, then name that checkpoint in "
            "model.generator_checkpoint",
        )
    work.listener.note(message)
    return known


def _measure(job: Job, plan: Plan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model and do a part of a step; time and memory of a whole one follow from that."""
    judge = load_judge(job, plan, Bases())
    saga, _ = make_saga(job, plan, judge)
    return measure_parts(saga, plan, job.world.size)


VISION = Method("vision", "vision encoder", "vision", _plan, _prepare, not_the_result=NOT_THE_RESULT, parallel=True)
