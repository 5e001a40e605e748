"""What `train-recommender` reads, reports, trains and leaves.

A run's folder holds a folder for each stage, `sft` and `grpo` (`training/staged.py`). The checkpoint is the best
adapter of the last stage that made the held-out ranking better; of the first, where none did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..catalog.problems import Problems
from ..errors import DataError, ModelError
from ..listener import Silent
from ..models.base import Bases, open_role
from ..models.generator import LocalGenerator
from ..models.processor import load_processor
from ..next_item.histories import questions_of
from ..next_item.retrieval import open_retrieval
from ..rar.policy import Policy
from ..recommend.split import TRAIN, VALIDATION
from ..store.training_products import training_products
from ..training.adapter import add_trainable, save_adapter
from ..training.estimate import Estimate, measure, peak_bytes
from ..training.loop import train_resumably
from ..training.shell import Job, Method, Outcome, Planned, Training, TrainingSummary, run_alone
from ..training.staged import Done, join_metrics, load_weights, read_done, write_done
from ..workspace import Workspace
from .card import recommender_card
from .grpo import GrpoTrainer
from .load import as_trained, make_generator, make_reader
from .plan import GRPO, NOT_THE_RESULT, SFT, Plan, data_of, describe, make_plan, run_key
from .questions import NEAR, first_of, sampled
from .ranking import naming_lengths
from .reasoning import Case, write_reasonings
from .sft import Collator, SftTrainer
from .texts import listing_texts
from .validation import NAMES, make_validation

JUDGED = 2**40
"""The draw that a judge is shown: the same whatever the steps are, so that its answers are found again."""
FEW = 20
"""So many held-out questions are too few to choose a step by."""


def train_recommender(work: Workspace, *, dry_run: bool = False, force: bool = False) -> TrainingSummary:
    """Train the recommender and put the adapter into the checkpoint store, as `run_training`.

    `details`: metrics of what was kept, `stages` with those before and after each, `stopped` where a stage was ended
    for reward inflation, and what came of the `reasoning`.
    """
    return run_alone(RECOMMENDER, work, dry_run=dry_run, force=force)


def _plan(job: Job) -> Planned:
    work, problems = job.work, Problems()
    if job.parent is not None:  # it goes on reading as it has learnt to
        work = work.with_settings(as_trained(work.settings, job.parent))
    own = work.settings.recommender
    if own.stages == GRPO and job.parent is None:
        raise ModelError(
            "recommender.stages = grpo: no recommender to start from",
            "name one: --set model.recommender_checkpoint=..., or leave recommender.stages = both",
        )
    retrieval = open_retrieval(work)
    histories = retrieval.histories
    texts = listing_texts(work, load_processor(job.base), problems)
    problems.tell(work.listener)
    by_key = sampled(questions_of(histories, TRAIN), texts.ids, own.questions, own.seed)
    keys, train = list(by_key), list(by_key.values())
    by_key = sampled(questions_of(histories, VALIDATION), texts.ids, own.validation_questions, own.seed)
    held_out = list(by_key.values())
    if not train:
        raise DataError(
            "no interaction of the training part has one of the same customer before it",
            "a recommender learns from histories of two and more; see `afmrl interactions`",
        )
    near = first_of(retrieval.fused, train, NEAR)
    validation = make_validation(retrieval.fused, held_out, own.shortlist) if len(held_out) >= FEW else None
    data = data_of(texts, train, held_out, retrieval.fused)
    plan = make_plan(work.settings, job.base, texts, (train, keys, near), validation, data)
    _tell(plan, work, len(held_out))
    learnt = {int(item) for each in train for item in (*each.history, each.target)}
    chosen_by = {each.target for each in held_out}
    sides = [[(texts.ids[i], texts.identities[i]) for i in sorted(side)] for side in (learnt, chosen_by)]
    source = work.source_on_disk if texts.generated else None
    made_by = {"attributes": source.generator} if source else {}
    return Planned(
        plan.settings, run_key(plan, job.model_id), data, training_products(*sides), made_by, describe(plan), plan
    )


def _tell(plan: Plan, work: Workspace, held_out: int) -> None:
    own, texts = plan.settings.recommender, plan.texts
    stages = " and ".join(f"{number:,} steps of {stage}" for stage, number in plan.steps.items())
    work.listener.note(
        f"{len(plan.train):,} interactions to learn from, {held_out:,} to choose by; {stages}, SFT in batches of "
        f"{own.batch_size}; {texts.described:,} of {len(texts.ids):,} listings have attributes"
    )
    if "attributes" in own.text and not texts.described:
        work.listener.warn("no listing has attributes: run `afmrl attributes` first, or the titles are all it reads")
    if texts.shared:
        work.listener.note(
            f"{texts.shared:,} listings have the text of another one, which it can't tell apart (recommender.text)"
        )
    if plan.validation is None:
        work.listener.warn(
            f"{held_out} interactions of the validation part are too few to choose a step by: the last one's adapter "
            "is kept, and reward inflation would not be noticed (recommend.validation is its share)"
        )


def _prepare(job: Job, planned: Planned, run: Path) -> Training:
    plan = planned.content
    return Training(
        planned.settings, planned.description, partial(_train, job, plan, run), partial(_measure, job, plan)
    )


class Run:
    """One run in memory: the generator whose adapter is trained, and the folder."""

    def __init__(self, job: Job, plan: Plan, run: Path, bases: Bases) -> None:
        self.job, self.plan, self.run = job, plan, run
        work, settings = job.work, plan.settings
        opened = open_role(job.bare_model, "recommender", work.checkpoints, bases, work.listener)
        self.generator: LocalGenerator = make_generator(opened, settings, work.listener)
        self.model = add_trainable(self.generator, settings.recommender, job.parent, work.checkpoints, "CAUSAL_LM")
        self.reader = make_reader(self.generator, plan.texts, settings, job.base.name, work.listener)

    def validate(self) -> dict[str, float]:
        """Rank the validation's shortlists with the adapter as it is now."""
        assert self.plan.validation is not None
        return self.plan.validation.metrics(self.reader)

    def save(self, folder: Path) -> None:
        """Write the adapter as it is now."""
        save_adapter(self.model, self.job.base, folder, recommender_card(self.job, self.plan))

    def sft(self, place: Path) -> SftTrainer:
        """Return the trainer of the first stage."""
        validate = self.validate if self.plan.validation else None
        return SftTrainer(self.plan, self.generator, self.model, place, validate, self.save, self.job.work.listener)

    def grpo(self, place: Path) -> GrpoTrainer:
        """Return the trainer of the second stage, which starts from the adapter as it is now."""
        validate = self.validate if self.plan.validation else None
        policy = Policy(self.generator)
        return GrpoTrainer(self.plan, policy, place, validate, self.save, self.job.work.listener)

    def stage(self, name: str, start: Path | None) -> Done:
        """Do one stage, from the adapter in the folder `start` on."""
        place, listener = self.run / name, self.job.work.listener
        place.mkdir(exist_ok=True)
        if start is not None:
            load_weights(self.model, start)
            self.model.eval()
        with _without_future_warnings(), naming_lengths():
            trainer = self.sft(place) if name == SFT else self.grpo(place)
            at_start = trainer.start if isinstance(trainer, GrpoTrainer) else trainer.evaluate
            resumed = train_resumably(
                trainer,
                listener,
                steps_per_epoch=self.plan.steps_per_epoch,
                at_start=at_start if self.plan.validation else None,
            )
        adapter = place / f"best-{trainer.state.best_global_step}"
        said = trainer.stopped if isinstance(trainer, GrpoTrainer) else ""
        done = Done(adapter, trainer.progress.start, trainer.progress.best, trainer.seconds, resumed, said)
        write_done(place, done)
        return done


@contextlib.contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Hide warnings: TRL uses names of transformers that are about to go; the user can't help it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _train(job: Job, plan: Plan, run: Path) -> Outcome:
    listener, by = job.work.listener, plan.settings.recommender.best_by
    plan, reasoning = _with_reasonings(job, plan)
    found: dict[str, Done] = {}
    training = None
    for name in plan.stages:
        if (done := read_done(run / name, NAMES)) is None:
            training = training or Run(job, plan, run, job.work.bases)
            done = training.stage(name, found[SFT].adapter if found else None)
        for state in (run / name).glob("state-*"):
            shutil.rmtree(state)
        found[name] = done
        _tell_gain(name, done, by, listener)
    first, *later = found.values()
    kept = next((done for done in reversed(later) if done.gained(by)), first)
    join_metrics(run, plan.steps)
    details: dict[str, Any] = {
        "metrics": kept.best,
        "kept": next(name for name, done in found.items() if done is kept),
        "stages": {name: {"before": done.start, "best": done.best} for name, done in found.items()},
        "stopped": next((done.said for done in found.values() if done.said), ""),
        **({"reasoning": reasoning} if reasoning else {}),
    }
    seconds, resumed = sum(done.seconds for done in found.values()), sum(done.resumed_from for done in found.values())
    # What GRPO alone has not made better is there already: the checkpoint that it started from.
    adapter = kept.adapter if SFT in found or kept.gained(by) else None
    return Outcome(adapter, kept.best, details, ("loss", by), resumed, seconds)


def _tell_gain(name: str, done: Done, by: str, listener: Any) -> None:
    if done.said:
        listener.warn(f"{name}: {done.said}; the run was stopped")
    if not done.start:
        return
    message = f"{name}: validation nDCG@10 {done.start[by]:.3f} before, {done.best[by]:.3f} at the best step"
    if done.gained(by):
        listener.note(message)
    elif name == GRPO:
        listener.note(f"{message}: nothing was gained, so what it started from is kept")
    else:
        listener.warn(f"{message}: nothing was gained; train longer (recommender.epochs)")


def _with_reasonings(job: Job, plan: Plan) -> tuple[Plan, dict[str, int]]:
    """Return the plan with the reasoning of a seeded share of its questions, and the counts of what came of it."""
    reasoning = plan.settings.reasoning
    if not reasoning.share:
        return plan, {}
    cases = []
    for number, key in enumerate(plan.keys):
        # By the key, so that a question keeps its reasoning when others come or go.
        if int(key, 16) % 10_000 >= reasoning.share * 10_000:
            continue
        asked = plan.drawn(number, JUDGED)
        target, texts = plan.train[number].target, plan.texts
        names = (texts.titles[target], texts.ids[target])
        cases.append(Case(key, asked.history, asked.candidates, asked.candidates[asked.target], names))
    found = write_reasonings(job.work.with_settings(plan.settings), cases)
    return plan.with_reasonings(found.kept), found.counts


def _measure(job: Job, plan: Plan) -> tuple[Estimate, dict[str, Any]]:
    """Load the model, learn one chunk of SFT and do two steps of GRPO, nothing of which is kept."""
    own = plan.settings.recommender
    with tempfile.TemporaryDirectory() as name, naming_lengths():
        training = Run(job, plan, Path(name), Bases())
        device = training.generator.loaded.device
        model = training.model.train()
        batch = Collator(training.generator, plan)([plan[i % len(plan)] for i in range(plan.chunk)])

        def part() -> torch.Tensor:
            loss: torch.Tensor = model(**{key: _on(value, device) for key, value in batch.items()}).loss
            torch.autograd.backward(loss)
            return loss.detach()

        found = measure(part, device, own.batch_size / plan.chunk, plan.steps.get(SFT, 0))
        if GRPO not in plan.stages:
            return found, {}
        short = own.model_copy(update={"grpo_steps": 2, "save_every": 3})
        training.plan = dataclasses.replace(
            plan, settings=plan.settings.model_copy(update={"recommender": short}), validation=None
        )
        training.job = dataclasses.replace(job, work=dataclasses.replace(job.work, listener=Silent()))
        with _without_future_warnings():
            trainer = training.grpo(Path(name))
            train_resumably(trainer, Silent(), steps_per_epoch=plan.steps_per_epoch)
        rows = [json.loads(line) for line in Path(name, "metrics.jsonl").read_text("utf-8").splitlines()]
        seconds = float(rows[-1]["step_time"])
    whole = found.whole_seconds + seconds * own.grpo_steps
    peak = max(found.peak_bytes, peak_bytes(device))
    return Estimate(peak, found.step_seconds or seconds, whole), {"grpo_step_seconds": seconds}


def _on(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


RECOMMENDER = Method(
    "recommender", "recommender", "recommender", _plan, _prepare, not_the_result=NOT_THE_RESULT, writes_dry=True
)
